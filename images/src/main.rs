//! Builds Keelson's images from the recipes in this folder and in `system-services/`, and boots them.
//!
//! - `arguments.rs`: the command line
//! - `build.rs`: the whole build, step after step
//! - `recipe/`: the recipes and how they are read
//! - `packages/`: Debian packages, from apt to a tree
//! - `image/`: the service images
//! - `programs.rs`: our own programs, built by cargo
//! - `keys/`: what Secure Boot and releases are signed with
//! - `kernel/`, `initrd/`, `root/`, `disk/`: one folder for each part of the system image
//! - `medium/`: what starts machines without being installed on them
//! - `output/`: the files in `out/`, manifest and bill of materials
//! - `vm/`: boots the result in QEMU
//! - `reproducible.rs`: two builds compared, and cleaning up
//! - `step.rs`, `workspace.rs`, `progress.rs`: steps that are done once, where they work, what is shown
//! - `command.rs`, `files.rs`, `glob.rs`: helpers

mod arguments;
mod build;
mod command;
mod disk;
mod files;
mod glob;
mod image;
mod initrd;
mod kernel;
mod keys;
mod medium;
mod output;
mod packages;
mod programs;
mod progress;
mod recipe;
mod reproducible;
mod root;
#[path = "../../upgrade/src/state_partition.rs"]
#[allow(unreachable_pub, dead_code)]
mod state_partition;
mod step;
mod vm;
mod workspace;

use std::io;
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use clap::Parser;

use arguments::{Arguments, Command};
use workspace::Workspace;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mkimage: error: {error:#}");
            if is_full(&error) {
                eprintln!(
                    "mkimage: the disk is full: make room (`./mkimage.sh clean` removes old results) and try again"
                );
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let top = std::env::current_dir().context("finding the current folder")?;
    let workspace = || Workspace::open(&top, &top.join("out"));
    match arguments.command {
        Command::Build(options) => {
            let mut workspace = workspace()?;
            if let Some(folder) = options.output {
                workspace.publish_to(&folder)?;
            }
            let how = build::Options {
                update: options.update,
                quick: options.quick,
                services: options.services,
                sign: options.sign,
                version: options.version,
                flavour: options.flavour,
                formats: options.format,
                media: medium::Wanted {
                    iso: options.iso,
                    netboot: options.netboot,
                },
            };
            build::build(&workspace, &how)
        }
        Command::Run(options) => {
            let workspace = workspace()?;
            let how = build::Options {
                quick: options.quick,
                sign: options.sign.clone(),
                ..build::Options::default()
            };
            build::build(&workspace, &how)?;
            vm::run(&workspace, &options)
        }
        Command::CheckReproducible(options) => reproducible::check(&top, &options),
        Command::Keys(options) => keys::make(&workspace()?, &options.output),
        Command::Release(release) => {
            programs::run_tool("keelson-upgrade", "keelson-release", &release.options)
        }
        Command::Clean => reproducible::clean(&top),
    }
}

/// Whether a full disk is the reason, be it met here or by a program that was run.
fn is_full(error: &Error) -> bool {
    let met_here = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::StorageFull)
    };
    error.chain().any(met_here) || format!("{error:#}").contains("No space left on device")
}
