//! What the container's process is: user, environment, limits, descriptors.

use std::fs::{self, File};
use std::io::Write as _;

use anyhow::bail;
use serde_json::json;

use crate::container::{Workplace, contains, field, same};
use crate::suite::{Case, Need};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "user-groups-umask-and-directory-are-as-asked",
        needs: &[],
        run: identity,
    },
    Case {
        name: "the-environment-is-the-configured-one",
        needs: &[],
        run: environment,
    },
    Case {
        name: "resource-limits-are-set",
        needs: &[],
        run: rlimits,
    },
    Case {
        name: "a-limit-that-is-not-named-stays-as-it-was",
        needs: &[],
        run: untouched_limit,
    },
    Case {
        name: "the-oom-score-is-set",
        needs: &[],
        run: oom_score,
    },
    Case {
        name: "the-container-has-the-standard-input-of-its-creator",
        needs: &[],
        run: input,
    },
    Case {
        name: "descriptors-of-the-caller-do-not-leak",
        needs: &[],
        run: descriptors,
    },
    Case {
        name: "a-program-only-its-owner-may-run-is-run",
        needs: &[],
        run: owner_only,
    },
    Case {
        name: "an-absolute-program-needs-no-path",
        needs: &[Need::Keelson],
        run: no_path,
    },
];

fn identity(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("cat /proc/self/status; readlink /proc/self/cwd");
    config["process"]["user"] =
        json!({ "uid": 1000, "gid": 1001, "additionalGids": [7, 9], "umask": 23 });
    config["process"]["cwd"] = "/tmp".into();
    let text = place.print(&config)?;
    same("Uid", field(&text, "Uid")?, "1000\t1000\t1000\t1000")?;
    same("Gid", field(&text, "Gid")?, "1001\t1001\t1001\t1001")?;
    let groups: Vec<&str> = field(&text, "Groups")?
        .split_whitespace()
        .filter(|group| *group != "1001")
        .collect();
    same("Groups", groups, vec!["7", "9"])?;
    same("Umask", field(&text, "Umask")?, "0027")?;
    same("working directory", text.lines().last(), Some("/tmp"))
}

fn environment(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("env");
    config["process"]["env"] = json!(["PATH=/bin", "HOME=/there", "COLOUR=grey=blue"]);
    let text = place.print(&config)?;
    for line in ["PATH=/bin", "HOME=/there", "COLOUR=grey=blue"] {
        contains("the environment", &text, line)?;
    }
    same(
        "the caller's environment leaks",
        text.contains("KEELSON_RUNTIMES"),
        false,
    )
}

fn rlimits(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("cat /proc/self/limits");
    config["process"]["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }, { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_MEMLOCK", "soft": 8192, "hard": 16384 }]);
    let text = place.print(&config)?;
    let limits = |name| -> anyhow::Result<Vec<&str>> {
        Ok(field(&text, name)?.split_whitespace().take(2).collect())
    };
    same("open files", limits("Max open files")?, vec!["100", "200"])?;
    same("core", limits("Max core file size")?, vec!["0", "0"])?;
    same(
        "locked memory",
        limits("Max locked memory")?,
        vec!["8192", "16384"],
    )
}

fn untouched_limit(place: &Workplace) -> anyhow::Result<()> {
    let own = fs::read_to_string("/proc/self/limits")?;
    let text = place.print(&place.config("cat /proc/self/limits"))?;
    for name in ["Max locked memory", "Max open files", "Max stack size"] {
        same(name, field(&text, name)?, field(&own, name)?)?;
    }
    Ok(())
}

fn oom_score(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("cat /proc/self/oom_score_adj");
    config["process"]["oomScoreAdj"] = 321.into();
    same("oom_score_adj", place.print(&config)?.as_str(), "321")
}

fn input(place: &Workplace) -> anyhow::Result<()> {
    let (read, mut write) = std::io::pipe()?;
    let container = place.create_with("c", &place.config("cat"), &[], read.into())?;
    container.start()?;
    write.write_all(b"through the pipe")?;
    drop(write);
    same(
        "output",
        container.wait()?.stdout.as_str(),
        "through the pipe",
    )
}

fn descriptors(place: &Workplace) -> anyhow::Result<()> {
    let leak = File::open("/proc/self/status")?;
    // Without close-on-exec, as another program might leave it.
    let leaked = nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_DUPFD(50))?;
    let text = place.print(&place.config("ls /proc/self/fd"));
    nix::unistd::close(leaked)?;
    drop(leak);
    for descriptor in text?.split_whitespace() {
        // 3 is the directory that ls reads.
        if !["0", "1", "2", "3"].contains(&descriptor) {
            bail!("descriptor {descriptor} is open in the container");
        }
    }
    Ok(())
}

fn owner_only(place: &Workplace) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let program = place.rootfs().join("bin/mine");
    fs::copy(place.rootfs().join("bin/busybox"), &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    let mut config = place.config("");
    config["process"]["args"] = json!(["mine", "echo", "ran"]);
    // busybox takes its applet from the name it is called by; an unknown one is an error of its own.
    let ended = place.run(&config)?;
    contains(
        "output",
        &format!("{}{}", ended.stdout, ended.stderr),
        "applet not found",
    )
}

fn no_path(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("");
    config["process"]["args"] = json!(["/bin/echo", "ran"]);
    config["process"]["env"] = json!([]);
    same("output", place.print(&config)?.as_str(), "ran")
}
