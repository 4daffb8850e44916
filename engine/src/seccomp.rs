//! Docker's seccomp profile format, resolved for one container.
//!
//! A profile of this format (Moby `profiles/seccomp`, containers-common `seccomp.json`) is a superset of the OCI
//! `linux.seccomp` object: rules carry conditions on the container's capabilities, the machine's architecture and the
//! kernel's version. [`resolve`] decides them and leaves what an OCI runtime understands. Rules keep their order.

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

/// The architecture that images are built for: as the conditions name it, and as libseccomp does.
const ARCHITECTURE: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");

/// What forbidden system calls answer when the profile does not say: EPERM, as in Docker.
const DEFAULT_ERRNO: u32 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    /// The same errno by name: for people.
    #[serde(rename = "defaultErrno")]
    _default_errno: Option<String>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<Architecture>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: String,
    /// Those of 32-bit programs: see [`architectures`].
    #[serde(rename = "subArchitectures", default)]
    _sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    /// Older profiles have one name a rule.
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(rename = "errno")]
    _errno: Option<String>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    args: Option<Vec<Argument>>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Resolves a profile for a container with these capabilities (`CAP_...`) on this machine, to an OCI `linux.seccomp`
/// object (runtime specification 1.2, config-linux.md, "Seccomp").
///
/// # Errors
/// When the profile does not parse, has a key or value that is not understood, or does not know this architecture.
pub fn resolve(profile: &[u8], capabilities: &[String]) -> anyhow::Result<Value> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's version")?;
    let kernel = parse_kernel(release.trim())?;
    resolve_for(profile, capabilities, kernel)
}

fn resolve_for(
    profile: &[u8],
    capabilities: &[String],
    kernel: (u32, u32),
) -> anyhow::Result<Value> {
    let profile: Profile =
        serde_json::from_slice(profile).context("cannot parse the seccomp profile")?;
    let mut seccomp = json!({
        "defaultAction": profile.default_action,
        "architectures": architectures(&profile)?,
    });
    if denies(&profile.default_action) {
        seccomp["defaultErrnoRet"] = profile.default_errno_ret.unwrap_or(DEFAULT_ERRNO).into();
    }
    if !profile.flags.is_empty() {
        seccomp["flags"] = json!(profile.flags);
    }
    let mut rules = Vec::new();
    for rule in &profile.syscalls {
        let names = names(rule)?;
        let included = applies(rule.includes.as_ref(), capabilities, kernel, Every::Needed)?;
        let excluded = applies(
            rule.excludes.as_ref(),
            capabilities,
            kernel,
            Every::OneIsEnough,
        )?;
        if included && !excluded {
            rules.push(oci_rule(rule, &names));
        }
    }
    seccomp["syscalls"] = rules.into();
    Ok(seccomp)
}

/// How the parts of a condition combine: all of `includes` must hold, any of `excludes` is enough.
#[derive(Clone, Copy, PartialEq)]
enum Every {
    Needed,
    OneIsEnough,
}

fn applies(
    condition: Option<&Condition>,
    capabilities: &[String],
    kernel: (u32, u32),
    every: Every,
) -> anyhow::Result<bool> {
    let none = Condition::default();
    let condition = condition.unwrap_or(&none);
    let mut parts = Vec::new();
    if let Some(wanted) = condition.caps.as_ref().filter(|wanted| !wanted.is_empty()) {
        let has = |wanted: &String| capabilities.contains(wanted);
        parts.push(match every {
            Every::Needed => wanted.iter().all(has),
            Every::OneIsEnough => wanted.iter().any(has),
        });
    }
    if let Some(arches) = condition
        .arches
        .as_ref()
        .filter(|arches| !arches.is_empty())
    {
        parts.push(arches.iter().any(|arch| arch == ARCHITECTURE.0));
    }
    if let Some(minimum) = condition
        .min_kernel
        .as_deref()
        .filter(|minimum| !minimum.is_empty())
    {
        parts.push(kernel >= parse_kernel(minimum)?);
    }
    Ok(match every {
        Every::Needed => parts.iter().all(|holds| *holds),
        Every::OneIsEnough => parts.iter().any(|holds| *holds),
    })
}

/// Of a profile's map only the machine's own system calls: no system service takes those of 32-bit programs, which are a
/// second way into the kernel and two thirds of the filter.
fn architectures(profile: &Profile) -> anyhow::Result<Vec<String>> {
    if profile.arch_map.is_empty() {
        return Ok(profile.architectures.clone());
    }
    if !profile.architectures.is_empty() {
        bail!("the seccomp profile has both \"architectures\" and \"archMap\"");
    }
    let own = |entry: &Architecture| entry.architecture == ARCHITECTURE.1;
    if !profile.arch_map.iter().any(own) {
        bail!(
            "the seccomp profile has no entry for {} in its archMap",
            ARCHITECTURE.1
        );
    }
    Ok(vec![ARCHITECTURE.1.to_owned()])
}

fn names(rule: &Rule) -> anyhow::Result<Vec<&str>> {
    match (&rule.name, rule.names.as_slice()) {
        (Some(name), []) => Ok(vec![name]),
        (None, [_, ..]) => Ok(rule.names.iter().map(String::as_str).collect()),
        _ => bail!("a rule of the seccomp profile needs either \"name\" or \"names\""),
    }
}

fn oci_rule(rule: &Rule, names: &[&str]) -> Value {
    let mut resolved = json!({ "names": names, "action": rule.action });
    if denies(&rule.action) {
        resolved["errnoRet"] = rule.errno_ret.unwrap_or(DEFAULT_ERRNO).into();
    }
    let arguments = rule.args.as_deref().unwrap_or_default();
    if !arguments.is_empty() {
        resolved["args"] = arguments
            .iter()
            .map(|argument| {
                json!({
                    "index": argument.index, "value": argument.value, "valueTwo": argument.value_two, "op": argument.op,
                })
            })
            .collect();
    }
    resolved
}

/// The actions that come with an errno.
fn denies(action: &str) -> bool {
    matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE")
}

/// Version and patch level of a kernel: `(6, 12)` of `6.12.117+deb13-cloud-amd64`.
fn parse_kernel(release: &str) -> anyhow::Result<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("{release:?} is not a kernel version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shapes that occur in containers-common's profile.
    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
        "archMap": [
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] },
            { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] }],
        "syscalls": [
            { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {} },
            { "names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": { "arches": ["amd64", "x32"] } },
            { "names": ["riscv_flush_icache"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["riscv64"] } },
            { "names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_CHROOT"] } },
            { "names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM",
              "excludes": { "caps": ["CAP_SYS_CHROOT"] } },
            { "names": ["bpf"], "action": "SCMP_ACT_ERRNO", "excludes": { "caps": ["CAP_SYS_ADMIN", "CAP_BPF"] } },
            { "names": ["both"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN", "CAP_BPF"] } },
            { "names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "args": null, "includes": { "minKernel": "4.8" } },
            { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22, "args": [
                { "index": 0, "value": 16, "valueTwo": 0, "op": "SCMP_CMP_EQ" },
                { "index": 2, "value": 9, "op": "SCMP_CMP_EQ" }] },
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": 0, "value": 4294967295, "valueTwo": 0, "op": "SCMP_CMP_EQ" }] }
        ]}"#;

    fn resolved(capabilities: &[&str], kernel: (u32, u32)) -> Value {
        let capabilities: Vec<String> =
            capabilities.iter().map(|name| (*name).to_owned()).collect();
        resolve_for(PROFILE.as_bytes(), &capabilities, kernel).unwrap()
    }

    fn rules<'a>(seccomp: &'a Value, name: &str) -> Vec<&'a Value> {
        let all = seccomp["syscalls"].as_array().unwrap();
        all.iter()
            .filter(|rule| rule["names"].as_array().unwrap().contains(&name.into()))
            .collect()
    }

    #[test]
    fn the_frame_is_that_of_this_architecture() {
        let seccomp = resolved(&[], (6, 12));
        assert_eq!(seccomp["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(seccomp["defaultErrnoRet"], 38);
        assert_eq!(seccomp["architectures"], json!(["SCMP_ARCH_X86_64"]));
        assert_eq!(rules(&seccomp, "arch_prctl").len(), 1);
        assert!(rules(&seccomp, "riscv_flush_icache").is_empty());
        assert_eq!(
            rules(&seccomp, "read")[0],
            &json!({ "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" })
        );
    }

    #[test]
    fn capabilities_choose_between_allowing_and_forbidding() {
        let without = resolved(&[], (6, 12));
        assert_eq!(
            rules(&without, "chroot"),
            [&json!({ "names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 })]
        );
        let with = resolved(&["CAP_SYS_CHROOT"], (6, 12));
        assert_eq!(
            rules(&with, "chroot"),
            [&json!({ "names": ["chroot"], "action": "SCMP_ACT_ALLOW" })]
        );
    }

    #[test]
    fn all_included_capabilities_are_needed_and_one_excluded_is_enough() {
        let one = resolved(&["CAP_BPF"], (6, 12));
        assert!(rules(&one, "both").is_empty());
        assert!(rules(&one, "bpf").is_empty());
        assert_eq!(
            rules(&resolved(&["CAP_BPF", "CAP_SYS_ADMIN"], (6, 12)), "both").len(),
            1
        );
        assert_eq!(
            rules(&resolved(&[], (6, 12)), "bpf")[0]["errnoRet"],
            DEFAULT_ERRNO
        );
    }

    #[test]
    fn a_rule_for_newer_kernels_waits_for_them() {
        for (kernel, count) in [((4, 7), 0), ((4, 8), 1), ((6, 12), 1), ((3, 20), 0)] {
            assert_eq!(
                rules(&resolved(&[], kernel), "ptrace").len(),
                count,
                "{kernel:?}"
            );
        }
    }

    #[test]
    fn arguments_stay_together_and_whole() {
        let seccomp = resolved(&[], (6, 12));
        let socket = rules(&seccomp, "socket")[0];
        assert_eq!(socket["args"].as_array().unwrap().len(), 2);
        assert_eq!(
            socket["args"][1],
            json!({ "index": 2, "value": 9, "valueTwo": 0, "op": "SCMP_CMP_EQ" })
        );
        assert_eq!(
            rules(&seccomp, "personality")[0]["args"][0]["value"],
            4_294_967_295_u64
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error_not_a_weaker_filter() {
        for (profile, expected) in [
            ("[]", "cannot parse"),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscals":[]}"#,
                "syscals",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"action":"SCMP_ACT_ALLOW"}]}"#,
                "either \"name\" or \"names\"",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["a"],"action":"A","includes":{"cap":[]}}]}"#,
                "cap",
            ),
            (
                r#"{"defaultAction":"A","archMap":[{"architecture":"SCMP_ARCH_ARM"}]}"#,
                "no entry for SCMP_ARCH_X86_64",
            ),
            (
                r#"{"defaultAction":"A","architectures":["X"],"archMap":[{"architecture":"Y"}]}"#,
                "both",
            ),
            (
                r#"{"defaultAction":"A","syscalls":[{"names":["a"],"action":"A","includes":{"minKernel":"new"}}]}"#,
                "not a kernel version",
            ),
        ] {
            let error = format!(
                "{:#}",
                resolve_for(profile.as_bytes(), &[], (6, 12)).unwrap_err()
            );
            assert!(error.contains(expected), "{profile}: {error}");
        }
    }

    #[test]
    fn kernel_versions_are_read_as_numbers() {
        assert_eq!(parse_kernel("6.12.117+deb13-cloud-amd64").unwrap(), (6, 12));
        assert_eq!(parse_kernel("4.8").unwrap(), (4, 8));
        assert!(parse_kernel("linux").is_err());
    }

    #[test]
    fn this_machines_kernel_is_understood() {
        resolve(PROFILE.as_bytes(), &[]).unwrap();
    }
}
