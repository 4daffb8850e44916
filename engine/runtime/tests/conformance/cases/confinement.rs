//! Capabilities, seccomp, no_new_privs, masked and read-only paths, the read-only root.

use std::fs;

use serde_json::json;

use crate::container::{Workplace, contains, field, same};
use crate::suite::{Case, Need};

const KILL: u64 = 1 << 5;
const CHOWN: u64 = 1;
const NET_RAW: u64 = 1 << 13;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "root-has-the-capabilities-of-the-bounding-set-and-no-others",
        needs: &[],
        run: root_capabilities,
    },
    Case {
        name: "a-user-has-each-of-the-five-sets-as-asked",
        needs: &[],
        run: user_capabilities,
    },
    Case {
        name: "empty-capability-sets-are-no-capabilities",
        needs: &[],
        run: no_capabilities,
    },
    Case {
        name: "no-capabilities-given-are-no-capabilities",
        needs: &[Need::Keelson],
        run: absent_capabilities,
    },
    Case {
        name: "seccomp-forbids-what-the-profile-forbids",
        needs: &[],
        run: seccomp,
    },
    Case {
        name: "seccomp-is-on-without-no-new-privs-too",
        needs: &[],
        run: seccomp_without_nnp,
    },
    Case {
        name: "all-arguments-of-a-seccomp-rule-must-match",
        needs: &[],
        run: seccomp_arguments,
    },
    Case {
        name: "a-seccomp-default-that-forbids-is-kept",
        needs: &[],
        run: seccomp_default,
    },
    Case {
        name: "no-new-privs-is-on-when-asked-and-off-when-not",
        needs: &[],
        run: no_new_privileges,
    },
    Case {
        name: "masked-files-are-empty-and-masked-directories-too",
        needs: &[],
        run: masked,
    },
    Case {
        name: "read-only-paths-cannot-be-written",
        needs: &[],
        run: read_only_paths,
    },
    Case {
        name: "a-read-only-root-cannot-be-written",
        needs: &[],
        run: read_only_root,
    },
    Case {
        name: "a-read-only-root-keeps-its-other-mount-flags",
        needs: &[Need::Keelson], // crun's remount gives them up (runc's too: its issue 1247)
        run: root_flags,
    },
];

fn capability_sets(text: &str) -> anyhow::Result<Vec<u64>> {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .iter()
        .map(|set| Ok(u64::from_str_radix(field(text, set)?, 16)?))
        .collect()
}

fn root_capabilities(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("cat /proc/self/status");
    let some = ["CAP_KILL", "CAP_CHOWN"];
    config["process"]["capabilities"] = json!({ "bounding": some, "effective": some, "permitted": some, "inheritable": [], "ambient": [] });
    let both = KILL | CHOWN;
    same(
        "sets (inh, prm, eff, bnd, amb)",
        capability_sets(&place.print(&config)?)?,
        vec![0, both, both, both, 0],
    )
}

fn user_capabilities(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("cat /proc/self/status");
    config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    config["process"]["capabilities"] = json!({
        "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NET_RAW"], "permitted": ["CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL", "CAP_NET_RAW"], "ambient": ["CAP_KILL"] });
    // After execve a user keeps of the permitted and effective sets what is ambient (capabilities(7)).
    let expected = vec![KILL | NET_RAW, KILL, KILL, KILL | CHOWN | NET_RAW, KILL];
    same(
        "sets (inh, prm, eff, bnd, amb)",
        capability_sets(&place.print(&config)?)?,
        expected,
    )
}

fn no_capabilities(place: &Workplace) -> anyhow::Result<()> {
    let text = place.print(&place.config("cat /proc/self/status"))?;
    same(
        "sets (inh, prm, eff, bnd, amb)",
        capability_sets(&text)?,
        vec![0; 5],
    )
}

fn absent_capabilities(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("cat /proc/self/status");
    if let Some(process) = config["process"].as_object_mut() {
        process.remove("capabilities");
    }
    same(
        "sets (inh, prm, eff, bnd, amb)",
        capability_sets(&place.print(&config)?)?,
        vec![0; 5],
    )
}

const TRY_MKDIR: &str = "cat /proc/self/status; mkdir /tmp/new 2>&1; ls /tmp";

fn forbid_mkdir() -> serde_json::Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 27 }] })
}

fn seccomp(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config(TRY_MKDIR);
    let without = place.print(&config)?;
    same(
        "seccomp mode without a profile",
        field(&without, "Seccomp")?,
        "0",
    )?;
    config["linux"]["seccomp"] = forbid_mkdir();
    let text = place.print(&config)?;
    same("seccomp mode", field(&text, "Seccomp")?, "2")?;
    // 27 is EFBIG, which mkdir never answers by itself.
    contains("mkdir's answer", &text, "File too large")
}

fn seccomp_without_nnp(place: &Workplace) -> anyhow::Result<()> {
    for value in [json!(null), json!(false)] {
        let mut config = place.config(TRY_MKDIR);
        config["process"]["noNewPrivileges"] = value;
        config["linux"]["seccomp"] = forbid_mkdir();
        let text = place.print(&config)?;
        same("no_new_privs", field(&text, "NoNewPrivs")?, "0")?;
        contains("mkdir's answer", &text, "File too large")?;
    }
    Ok(())
}

fn seccomp_arguments(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("for n in 0 18; do kill -$n 1 2>&1 && echo sent-$n; done; true");
    config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 27, "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": 18, "op": "SCMP_CMP_EQ" }] }] });
    let text = place.print(&config)?;
    contains("output with one argument that matches", &text, "sent-0")?;
    contains("output with two that match", &text, "File too large")?;
    same("signal 18 went through", text.contains("sent-18"), false)
}

fn seccomp_default(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("mkdir /tmp/new 2>&1; chmod 700 /tmp 2>&1; echo end");
    // Docker's own list would do as well; this one is found out by asking: everything but two calls.
    let mut names: Vec<String> = (0..470).filter_map(name_of).collect();
    names.retain(|name| !name.starts_with("mkdir") && !name.contains("chmod"));
    config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 27,
        "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }] });
    let text = place.print(&config)?;
    same("refusals", text.matches("File too large").count(), 2)?;
    contains("output", &text, "end")
}

fn name_of(number: i32) -> Option<String> {
    libseccomp::ScmpSyscall::from(number).get_name().ok()
}

fn no_new_privileges(place: &Workplace) -> anyhow::Result<()> {
    for (asked, expected) in [(json!(true), "1"), (json!(false), "0"), (json!(null), "0")] {
        let mut config = place.config("cat /proc/self/status");
        config["process"]["noNewPrivileges"] = asked.clone();
        same(
            &format!("NoNewPrivs with {asked}"),
            field(&place.print(&config)?, "NoNewPrivs")?,
            expected,
        )?;
    }
    Ok(())
}

fn masked(place: &Workplace) -> anyhow::Result<()> {
    let root = place.rootfs();
    fs::create_dir_all(root.join("secrets"))?;
    fs::write(root.join("secrets/key"), "topsecret")?;
    fs::write(root.join("secret"), "topsecret")?;
    let mut config = place
        .config("cat /secret /secrets/key 2>&1; ls -A /secrets; touch /secrets/new 2>&1; true");
    contains(
        "output without masking",
        &place.print(&config)?,
        "topsecret",
    )?;
    config["linux"]["maskedPaths"] = json!(["/secret", "/secrets", "/not-there", "/proc/kcore"]);
    let text = place.print(&config)?;
    same("the secret is visible", text.contains("topsecret"), false)?;
    contains(
        "writing to a masked directory",
        &text,
        "Read-only file system",
    )
}

fn read_only_paths(place: &Workplace) -> anyhow::Result<()> {
    fs::create_dir_all(place.rootfs().join("data"))?;
    let mut config =
        place.config("touch /data/new 2>&1; ls /data; echo 1 2>&1 >/proc/sys/kernel/msgmax; true");
    contains("output without it", &place.print(&config)?, "new")?;
    fs::remove_file(place.rootfs().join("data/new"))?;
    config["linux"]["readonlyPaths"] = json!(["/data", "/proc/sys", "/not-there"]);
    let ended = place.run(&config)?;
    let refusals = ended.stdout.matches("Read-only file system").count();
    same("refusals, of a file and of a sysctl", refusals, 2)
}

fn read_only_root(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("touch /new 2>&1; touch /tmp/new && echo tmp-works; ls /");
    same(
        "the file is there without it",
        place.print(&config)?.lines().any(|line| line == "new"),
        true,
    )?;
    fs::remove_file(place.rootfs().join("new"))?;
    config["root"]["readonly"] = true.into();
    let text = place.print(&config)?;
    contains("touch's answer", &text, "Read-only file system")?;
    contains("output", &text, "tmp-works")
}

fn root_flags(place: &Workplace) -> anyhow::Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let root = place.rootfs();
    let none = None::<&str>;
    mount(Some(&root), &root, none, MsFlags::MS_BIND, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let made = mount(
        none,
        &root,
        none,
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags,
        none,
    );
    let mut config =
        place.config("grep ' / / ' /proc/self/mountinfo || grep ' / ' /proc/self/mountinfo");
    config["root"]["readonly"] = true.into();
    let text = made
        .map_err(anyhow::Error::from)
        .and_then(|()| place.print(&config));
    umount2(&root, MntFlags::MNT_DETACH)?;
    let text = text?;
    for flag in ["ro", "nosuid", "nodev"] {
        contains("the root's mount flags", &text, flag)?;
    }
    Ok(())
}
