//! Makes a release from what the image builder has built: an OCI image layout that any web server or disk can offer, and that is copied to
//! any registry. `./mkimage.sh release` calls it.
//!
//! - [`pack`]: the layout
//! - [`tools`]: programs that are called: mtools, openssl, skopeo

mod pack;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Makes a signed release from a built image.
#[derive(Debug, Parser)]
#[command(name = "mkimage.sh release", version, about)]
struct Arguments {
    /// The folder with the built image.
    #[arg(long, default_value = "out", value_name = "FOLDER")]
    from: PathBuf,
    /// The folder of keys (`./mkimage.sh keys`); the image must have been built with `--sign` and the same keys.
    #[arg(long, default_value = "out/keys", value_name = "FOLDER")]
    sign: PathBuf,
    /// The image layout that the release is added to.
    #[arg(long, default_value = "out/release", value_name = "FOLDER")]
    output: PathBuf,
    /// The channel, a tag, that offers this release from now on; more than one may be given.
    #[arg(long, default_value = "stable", value_name = "TAG")]
    channel: Vec<String>,
    /// When machines stop taking it unless asked for by its version, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: Option<String>,
    /// So many of a hundred machines take it by themselves (`keelson.upgrade.policy`), 1 to 100; which ones is each machine's own matter.
    /// Made again with more, it reaches more.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    staged: Option<u8>,
    /// Copies it to a registry as well: HOST/REPOSITORY.
    #[arg(long, value_name = "REPOSITORY")]
    push: Option<String>,
    /// The registry is spoken to without TLS.
    #[arg(long, requires = "push")]
    insecure: bool,
}

fn expiry(text: &str) -> Result<String, String> {
    let time = humantime::parse_rfc3339(text).map_err(|error| error.to_string())?;
    Ok(humantime::format_rfc3339_seconds(time).to_string())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mkimage: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let released = pack::release(arguments)?;
    println!(
        "version {} is in {} ({})",
        released.version,
        arguments.output.display(),
        released.digest
    );
    if let Some(repository) = &arguments.push {
        for tag in &released.tags {
            tools::push(&arguments.output, tag, repository, arguments.insecure)?;
            println!("pushed {repository}:{tag}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
        assert!(Arguments::try_parse_from(["x", "--expires", "soon"]).is_err());
        assert!(Arguments::try_parse_from(["x", "--insecure"]).is_err());
    }
}
