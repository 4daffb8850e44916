//! `keelson-image`: fetches, unpacks and packs images for the system engine. One process a task; what it prints are the
//! JSON lines that Docker's clients read.
//!
//! - [`arguments`]: the command line
//! - [`registry`]: the OCI distribution protocol; [`access`]: where images may be had; [`pull`]: an image from a registry into the store
//! - [`unpack`]: layers, in a process that is shut in
//! - [`archive`]: images and files as tar archives; [`change`]: names, removal, cleaning up
//! - [`exchange`]: questions to services that speak HTTP, for other programs; [`source`]: documents and content of one repository
//! - [`progress`]: what is printed; [`failpoint`]: where tests let it die

mod access;
mod archive;
mod arguments;
mod blob;
mod change;
mod commit;
mod exchange;
mod failpoint;
mod failure;
mod progress;
mod pull;
mod registry;
mod source;
mod unpack;

use arguments::{Command, Request};
use keelson_image::Store;
use progress::Progress;
use std::process::ExitCode;

fn main() -> ExitCode {
    let request = match Request::parse(std::env::args_os().skip(1)) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("keelson-image: {error:#}");
            return ExitCode::from(2);
        }
    };
    let progress = Progress::default();
    match run(&request, &progress) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match request.command {
                // Its parent tells.
                Command::Unpack { .. } => eprintln!("{error:#}"),
                _ => progress.failed(&error),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(request: &Request, progress: &Progress) -> anyhow::Result<()> {
    let store = Store::new(request.store.clone());
    match &request.command {
        Command::Unpack { directory } => return unpack::child::main(directory),
        Command::CopyIn(copy) => return archive::copy::copy_in(copy),
        Command::CopyOut { root, path } => return archive::copy::copy_out(root, path),
        Command::Stat { root, path } => return archive::copy::stat(root, path),
        Command::Export { root } => return archive::copy::export(root),
        Command::Exchange => return exchange::exchange(request),
        Command::Read(read) => return source::serve(request, read),
        _ => {}
    }
    unpack::confine::confine(unpack::confine::STORE)?;
    store.prepare()?;
    match &request.command {
        Command::Pull(pull) => pull::pull(&store, request, pull, progress),
        Command::Load => archive::load::load(&store, progress),
        Command::Save { names } => archive::save::save(&store, names),
        Command::Import(import) => archive::import::import(&store, import, progress),
        Command::Commit(snapshot) => archive::snapshot::snapshot(&store, snapshot, progress),
        Command::Login { registry } => access::login(request, registry),
        Command::Tag { source, target } => change::tag(&store, source, target),
        Command::Remove { name, force } => change::remove(&store, name, *force),
        Command::Prune { all } => change::prune(&store, *all),
        // Done above.
        _ => Ok(()),
    }
}
