//! What is checked before any machine is booted.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::harness::release;

/// A check.
pub struct Check {
    /// What it shows.
    pub name: &'static str,
    /// Makes it; its output goes to ours. Fails when what it checks does not hold.
    pub run: fn() -> Result<()>,
}

/// Checks of the sources.
pub const SOURCES: [Check; 6] = [
    Check {
        name: "the sources are formatted",
        run: || command("cargo fmt --check"),
    },
    Check {
        name: "the sources have no lints",
        run: || {
            command("cargo clippy --locked --profile tool --workspace --all-targets -- -D warnings")
        },
    },
    Check {
        name: "the dependencies are as deny.toml says",
        run: dependencies,
    },
    Check {
        name: "the tests of every crate pass",
        run: || {
            command(
                "cargo test --quiet --locked --profile tool --workspace --exclude keelson-network --no-fail-fast",
            )
        },
    },
    Check {
        // Which mostly waits: for leases to end, for neighbours to speak up.
        name: "the network service holds its own among servers, routers and neighbours",
        run: || {
            command(
                "env RUST_TEST_THREADS=8 cargo test --quiet --locked --profile tool -p keelson-network",
            )
        },
    },
    Check {
        name: "the shell scripts can be parsed",
        run: || command("sh -n mkimage.sh qemu-tests/run .ci/run"),
    },
];

/// The image as it is shipped, with the tests' own services, and signed; and other versions of it.
pub const IMAGES: [Check; 4] = [
    Check {
        name: "the image can be built",
        run: || {
            command(
                "cargo run --locked --profile tool -p keelson-images -- build --iso --netboot --format qcow2 --format vmdk --format vhdx",
            )
        },
    },
    Check {
        name: "the test image can be built",
        run: || {
            command(
                "cargo run --locked --profile tool -p keelson-images -- build --quick --services qemu-tests/services --output out/test",
            )
        },
    },
    Check {
        name: "the shipped image can be signed",
        run: signed,
    },
    Check {
        name: "the versions that machines are upgraded to can be built",
        run: || release::build(Path::new("out")),
    },
];

/// What needs the image's kernel.
pub const KERNEL: [Check; 1] = [Check {
    name: "the runtime does what an OCI runtime must, and crun the same",
    run: || {
        command("cargo build --quiet --locked --profile tool -p keelson-runtime --examples")?;
        command(
            "env KEELSON_VM_KERNEL=../../out/vmlinuz cargo test --locked --profile tool -p keelson-runtime --test vm -- --ignored --nocapture",
        )
    },
}];

/// With keys that are made once and worth nothing. Most of the image comes from the builder's cache.
fn signed() -> Result<()> {
    command("cargo run --locked --profile tool -p keelson-images -- keys --output out/test-keys")?;
    command(
        "cargo run --locked --profile tool -p keelson-images -- build --sign out/test-keys --output out/signed",
    )
}

/// Debian has no cargo-deny, so it is built first.
fn dependencies() -> Result<()> {
    command(
        "cargo install --quiet --locked --debug --no-default-features --root out/cargo --target-dir out/target/cargo-deny cargo-deny@0.20.2",
    )?;
    command("out/cargo/bin/cargo-deny --offline --log-level error check licenses bans sources")?;
    if command("out/cargo/bin/cargo-deny fetch db").is_err() {
        println!("      advisories: NOT CHECKED, their database cannot be fetched from here");
        return Ok(());
    }
    command("out/cargo/bin/cargo-deny --offline check advisories")
}

fn command(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    let status = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .status();
    let status = status.with_context(|| format!("starting {program}"))?;
    ensure!(status.success(), "`{line}` ended with {status}");
    Ok(())
}
