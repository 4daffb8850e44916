//! The system engine's program.

use keelson_engine::options::{Options, Request};
use keelson_engine::supervise;
use std::process::ExitCode;
use tokio::task::LocalSet;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let system = std::env::var_os(keelson_sys::control::FD_VARIABLE).is_some();
            keelson_engine::console::Console::open(system).error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let options = match Options::parse(std::env::args_os().skip(1))? {
        Request::Run(options) => *options,
        Request::Print(text) => {
            println!("{text}");
            return Ok(());
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, supervise::start(options))
}
