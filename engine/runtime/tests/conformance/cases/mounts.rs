//! Mounts, their options and their propagation.

use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::container::{Workplace, contains, same};
use crate::suite::{Case, Need};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "bind-mounts-show-their-source-and-read-only-ones-stay-unwritten",
        needs: &[],
        run: bind,
    },
    Case {
        name: "a-single-file-can-be-bound",
        needs: &[],
        run: bind_file,
    },
    Case {
        name: "mount-options-are-set",
        needs: &[],
        run: options,
    },
    Case {
        name: "a-recursive-read-only-bind-covers-what-is-below",
        needs: &[],
        run: recursive,
    },
    Case {
        name: "a-private-mount-does-not-see-later-mounts-of-the-host",
        needs: &[],
        run: private,
    },
    Case {
        name: "a-slave-mount-sees-later-mounts-of-the-host",
        needs: &[],
        run: slave,
    },
    Case {
        name: "the-containers-mounts-do-not-reach-the-host",
        needs: &[],
        run: inward,
    },
    Case {
        name: "mounts-below-a-shared-source-reach-the-host",
        // crun wants the whole root shared for it.
        needs: &[Need::Keelson],
        run: outward,
    },
    Case {
        name: "a-propagation-with-a-leading-r-is-known",
        needs: &[],
        run: root_propagation,
    },
    Case {
        name: "the-hosts-files-are-out-of-reach",
        needs: &[],
        run: pivoted,
    },
    Case {
        name: "an-option-that-does-not-exist-is-an-error",
        needs: &[Need::Keelson],
        run: unknown_option,
    },
];

fn add(config: &mut Value, mount: Value) {
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.push(mount);
    }
}

/// A directory of the host with a file in it.
fn source(place: &Workplace) -> anyhow::Result<String> {
    let path = place.directory.join("source");
    fs::create_dir_all(&path)?;
    fs::write(path.join("file"), "from-the-host\n")?;
    Ok(path.to_string_lossy().into_owned())
}

fn bind(place: &Workplace) -> anyhow::Result<()> {
    let source = source(place)?;
    let mut config =
        place.config("cat /rw/file; touch /rw/new && echo written; touch /ro/other 2>&1; true");
    add(
        &mut config,
        json!({ "destination": "/rw", "type": "bind", "source": source, "options": ["bind", "rw"] }),
    );
    add(
        &mut config,
        json!({ "destination": "/ro", "type": "bind", "source": source, "options": ["bind", "ro"] }),
    );
    let text = place.print(&config)?;
    contains("output", &text, "from-the-host\nwritten")?;
    contains("writing", &text, "Read-only file system")?;
    same(
        "the file is on the host",
        fs::exists(place.directory.join("source/new"))?,
        true,
    )
}

fn bind_file(place: &Workplace) -> anyhow::Result<()> {
    let source = format!("{}/file", source(place)?);
    let mut config = place.config("cat /etc/new/file");
    add(
        &mut config,
        json!({ "destination": "/etc/new/file", "type": "bind", "source": source, "options": ["bind", "ro"] }),
    );
    same("output", place.print(&config)?.as_str(), "from-the-host")
}

fn options(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("grep ' /m ' /proc/self/mountinfo; cp /bin/busybox /m/echo; /m/echo ran 2>&1; stat -c %a /m; true");
    add(
        &mut config,
        json!({ "destination": "/m", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "nodev", "noexec", "mode=1750", "size=4096k"] }),
    );
    let text = place.print(&config)?;
    for part in [
        "nosuid",
        "nodev",
        "noexec",
        "size=4096k",
        "Permission denied",
        "1750",
    ] {
        contains("the mount", &text, part)?;
    }
    Ok(())
}

fn recursive(place: &Workplace) -> anyhow::Result<()> {
    let source = source(place)?;
    let below = format!("{source}/below");
    fs::create_dir_all(&below)?;
    mount(
        Some("tmpfs"),
        below.as_str(),
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    let mut config = place.config("touch /m/below/new 2>&1; ls /m/below");
    add(
        &mut config,
        json!({ "destination": "/m", "type": "bind", "source": source, "options": ["rbind", "rro"] }),
    );
    let text = place.print(&config);
    umount2(below.as_str(), MntFlags::MNT_DETACH)?;
    contains("writing below", &text?, "Read-only file system")
}

/// Mounts something below a shared source while the container runs; whether the container sees it.
fn later_mount(place: &Workplace, propagation: &str) -> anyhow::Result<bool> {
    let none = None::<&str>;
    let source = source(place)?;
    let below = format!("{source}/below");
    fs::create_dir_all(&below)?;
    mount(
        Some(source.as_str()),
        source.as_str(),
        none,
        MsFlags::MS_BIND,
        none,
    )?;
    mount(none, source.as_str(), none, MsFlags::MS_SHARED, none)?;
    let seen = look(place, &source, &below, propagation);
    umount2(source.as_str(), MntFlags::MNT_DETACH)?;
    seen
}

fn look(place: &Workplace, source: &str, below: &str, propagation: &str) -> anyhow::Result<bool> {
    let mut config =
        place.config("echo up; while ! test -e /m/go; do sleep 0.02; done; ls /m/below");
    // Without it a runtime is free to cut every mount off first: crun does.
    config["linux"]["rootfsPropagation"] = propagation.into();
    add(
        &mut config,
        json!({ "destination": "/m", "type": "bind", "source": source, "options": ["rbind", propagation] }),
    );
    let container = place.create("c", &config)?;
    container.start()?;
    container.wait_for("up")?;
    mount(
        Some("tmpfs"),
        below,
        Some("tmpfs"),
        MsFlags::empty(),
        None::<&str>,
    )?;
    fs::write(format!("{below}/late"), "")?;
    fs::write(format!("{source}/go"), "")?;
    let ended = container.wait();
    umount2(below, MntFlags::MNT_DETACH)?;
    Ok(ended?.stdout.contains("late"))
}

fn private(place: &Workplace) -> anyhow::Result<()> {
    same("the mount is seen", later_mount(place, "rprivate")?, false)
}

fn slave(place: &Workplace) -> anyhow::Result<()> {
    same("the mount is seen", later_mount(place, "rslave")?, true)
}

fn inward(place: &Workplace) -> anyhow::Result<()> {
    let source = source(place)?;
    let mut config = place.config("mount -t tmpfs tmpfs /m && touch /m/inside && ls /m");
    let some = ["CAP_SYS_ADMIN"];
    config["process"]["capabilities"] =
        json!({ "bounding": some, "effective": some, "permitted": some });
    add(
        &mut config,
        json!({ "destination": "/m", "type": "bind", "source": source, "options": ["rbind", "rslave"] }),
    );
    same("output", place.print(&config)?.as_str(), "inside")?;
    same(
        "the mount reached the host",
        fs::exists(format!("{source}/inside"))?,
        false,
    )
}

fn outward(place: &Workplace) -> anyhow::Result<()> {
    let none = None::<&str>;
    let source = source(place)?;
    fs::create_dir_all(format!("{source}/below"))?;
    let bind = Some(source.as_str());
    mount(bind, source.as_str(), none, MsFlags::MS_BIND, none)?;
    mount(none, source.as_str(), none, MsFlags::MS_SHARED, none)?;
    let mut config = place.config("mount -t tmpfs tmpfs /m/below && touch /m/below/inside");
    let some = ["CAP_SYS_ADMIN"];
    config["process"]["capabilities"] =
        json!({ "bounding": some, "effective": some, "permitted": some });
    config["linux"]["rootfsPropagation"] = "rslave".into();
    add(
        &mut config,
        json!({ "destination": "/m", "type": "bind", "source": source, "options": ["rbind", "rshared"] }),
    );
    let ran = place.print(&config);
    let reached = fs::exists(format!("{source}/below/inside"));
    umount2(source.as_str(), MntFlags::MNT_DETACH)?;
    ran?;
    same("the mount reached the host", reached?, true)
}

fn root_propagation(place: &Workplace) -> anyhow::Result<()> {
    for propagation in ["private", "rprivate", "slave", "rslave"] {
        let mut config = place.config("echo ran");
        config["linux"]["rootfsPropagation"] = propagation.into();
        same(propagation, place.print(&config)?.as_str(), "ran")?;
    }
    Ok(())
}

fn pivoted(place: &Workplace) -> anyhow::Result<()> {
    let marker = place.directory.join("only-on-the-host");
    fs::write(&marker, "")?;
    let script = format!(
        "cat /proc/self/mountinfo | wc -l; ls {0} 2>&1; ls /../../..{0} 2>&1; ls /bundle 2>&1; true",
        marker.display()
    );
    let text = place.print(&place.config(&script))?;
    same(
        "failures to find it",
        text.matches("No such file").count(),
        3,
    )?;
    let mounts: usize = text.lines().next().unwrap_or_default().trim().parse()?;
    same("mounts of the host are left", mounts > 12, false)
}

fn unknown_option(place: &Workplace) -> anyhow::Result<()> {
    let source = source(place)?;
    for (kind, option) in [
        ("bind", "rprivat"),
        ("bind", "size=1k"),
        ("tmpfs", "colour=grey"),
        ("tmpfs", "rshared"),
    ] {
        let mut config = place.config("true");
        add(
            &mut config,
            json!({ "destination": "/m", "type": kind, "source": source, "options": [option] }),
        );
        place.refusal(&config)?;
    }
    Ok(())
}
