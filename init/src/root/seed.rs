//! The random seed: what one boot's entropy leaves for the next.

use crate::files;
use anyhow::{Context as _, Result, ensure};
use keelson_sys::machine::{SEED_BYTES, credit_entropy};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;

const PATH: &str = "/state/config/random-seed";
/// What a kept seed is worth: it was read from a pool that had been seeded.
const CREDIT_BITS: u16 = 256;

/// Feeds the kept seed to the kernel and puts a new one in its place. The old one is gone from the disk before it
/// is credited, so that no seed is ever used twice, wherever the power fails.
pub(super) fn restore() -> Result<()> {
    match fs::read(PATH) {
        Ok(seed) => {
            fs::remove_file(PATH).context("delete the used seed")?;
            let directory = Path::new(PATH).parent().unwrap_or(Path::new("/"));
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .context("flush the used seed's deletion")?;
            let usable = seed.get(..SEED_BYTES);
            if let Some(seed) = usable {
                let random = OpenOptions::new()
                    .write(true)
                    .open("/dev/urandom")
                    .context("open /dev/urandom")?;
                credit_entropy(&random, seed, CREDIT_BITS).context("feed the kernel")?;
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("read the kept seed"),
    }
    save()
}

/// Keeps a new seed, durably. /dev/random waits until the pool is seeded: a seed of nothing would be credited later.
fn save() -> Result<()> {
    let mut seed = [0; SEED_BYTES];
    File::open("/dev/random")
        .and_then(|mut file| file.read_exact(&mut seed))
        .context("read /dev/random")?;
    files::replace(PATH, &seed)?;
    fs::set_permissions(PATH, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .context("protect the seed")
}

/// As the last thing of a boot: keeps a new seed unless the pool never was ready, without waiting for it.
pub(crate) fn save_at_shutdown() -> Result<()> {
    let random = File::open("/dev/random").context("open /dev/random")?;
    let mut ready = [PollFd::new(random.as_fd(), PollFlags::POLLIN)];
    ensure!(
        poll(&mut ready, PollTimeout::ZERO)? > 0,
        "the kernel's random pool is not ready"
    );
    save()
}
