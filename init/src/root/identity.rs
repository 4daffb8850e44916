//! Who this machine is: its host name and its machine id (machine-id(5)).

use crate::cmdline::{Options, is_hostname};
use crate::{files, kmsg};
use anyhow::{Context as _, Result};
use std::io::Read as _;
use std::path::Path;

const HOSTNAME: &str = "/state/config/hostname";
const MACHINE_ID: &str = "/state/config/machine-id";
/// Where programs of this boot find the machine id.
const MACHINE_ID_NOW: &str = "/run/keelson/machine-id";
const DEFAULT_HOSTNAME: &str = "keelson";

/// Sets the host name: the configured one, else the command line's, else `keelson`.
pub(super) fn set_hostname(options: &Options) -> Result<()> {
    let configured =
        kmsg::tolerate("read the host name", files::get_if_present(HOSTNAME)).flatten();
    let name = choose_hostname(configured.as_deref(), options);
    nix::unistd::sethostname(name)?;
    Ok(())
}

fn choose_hostname<'a>(configured: Option<&'a str>, options: &'a Options) -> &'a str {
    let configured = configured.map(str::trim).filter(|name| {
        let good = is_hostname(name);
        if !good {
            kmsg::error(format_args!(
                "{HOSTNAME}: {name:?} is no host name; it is ignored"
            ));
        }
        good
    });
    configured
        .or(options.hostname.as_deref())
        .unwrap_or(DEFAULT_HOSTNAME)
}

/// Makes the machine id at the first boot, and shows it to this boot's programs.
pub(super) fn make_machine_id() -> Result<()> {
    let kept = files::get_if_present(MACHINE_ID)?.filter(|text| is_machine_id(text.trim()));
    let id = match kept {
        Some(id) => id,
        None => {
            let id = format!("{}\n", new_machine_id()?);
            files::replace(MACHINE_ID, id.as_bytes())?;
            id
        }
    };
    std::fs::write(MACHINE_ID_NOW, id).context("write /run/keelson/machine-id")
}

fn is_machine_id(text: &str) -> bool {
    text.len() == 32
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|byte| byte != b'0')
}

/// A random UUID of version 4, without dashes.
fn new_machine_id() -> Result<String> {
    let mut bytes = [0u8; 16];
    let source = Path::new("/dev/urandom");
    std::fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    Ok(files::hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_host_name_wins() {
        let options = Options::parse("keelson.hostname=line");
        assert_eq!(choose_hostname(Some("boat\n"), &options), "boat");
        assert_eq!(choose_hostname(Some("not a name"), &options), "line");
        assert_eq!(choose_hostname(None, &options), "line");
        assert_eq!(choose_hostname(None, &Options::parse("")), "keelson");
    }

    #[test]
    fn machine_ids_are_random_uuids() {
        let id = new_machine_id().unwrap();
        assert!(is_machine_id(&id), "{id}");
        assert_eq!(&id[12..13], "4");
        assert!("89ab".contains(&id[16..17]), "{id}");
        assert_ne!(id, new_machine_id().unwrap());
        assert!(
            !is_machine_id(&"0".repeat(32))
                && !is_machine_id("x")
                && !is_machine_id(&"A".repeat(32))
        );
    }
}
