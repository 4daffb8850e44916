//! The time line of this boot: firmware, boot loader, kernel, PID 1, services.

use crate::api::{Boot, BootEntry, BootKind, Service, State};
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// Where systemd-boot and systemd-stub leave their times (Boot Loader Interface): microseconds since the machine was
/// switched on, as UTF-16 decimals after four bytes of attributes.
const LOADER_VARIABLES: &str = "/sys/firmware/efi/efivars";
const LOADER_VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// The word of the kernel's command line that says that the machine was started without its firmware.
const KEXEC: &str = "keelson.kexec=";

/// A line of PID 1's time line.
#[derive(Debug, Deserialize)]
struct Step {
    name: String,
    start_us: u64,
    end_us: u64,
}

/// Puts the time line together.
pub fn timeline(init_timeline: &Path, services: &[Service]) -> Boot {
    let steps: Vec<Step> = fs::read_to_string(init_timeline)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let mut entries = before_kernel(
        loader_time("LoaderTimeInitUSec"),
        loader_time("LoaderTimeExecUSec"),
    );
    if let Some(first) = steps.iter().map(|step| step.start_us).min() {
        entries.push(entry("kernel", BootKind::Kernel, 0, Some(signed(first))));
    }
    entries.extend(steps.into_iter().map(|step| {
        entry(
            &step.name,
            BootKind::Init,
            signed(step.start_us),
            Some(signed(step.end_us)),
        )
    }));
    entries.extend(services.iter().filter_map(of_service));
    entries.sort_by_key(|entry| entry.start_us);
    Boot { entries }
}

fn of_service(service: &Service) -> Option<BootEntry> {
    let ready_us = service.ready_us.map(signed);
    let ended = matches!(service.state, State::Finished);
    Some(BootEntry {
        started_us: service.started_us.map(signed),
        ready_us,
        ..entry(
            &service.name,
            BootKind::Service,
            signed(service.created_us?),
            ready_us.filter(|_| ended),
        )
    })
}

/// The boot loader hands over to the kernel at its `exec` time, which is the time line's zero.
fn before_kernel(init_us: Option<u64>, exec_us: Option<u64>) -> Vec<BootEntry> {
    let (Some(init), Some(exec)) = (init_us.map(signed), exec_us.map(signed)) else {
        return Vec::new();
    };
    if init > exec {
        return Vec::new();
    }
    vec![
        entry("firmware", BootKind::Firmware, -exec, Some(init - exec)),
        entry("loader", BootKind::Loader, init - exec, Some(0)),
    ]
}

fn loader_time(name: &str) -> Option<u64> {
    // What kexec has started finds the times of the boot before.
    let line = fs::read_to_string("/proc/cmdline").ok()?;
    if line.split(' ').any(|word| word.starts_with(KEXEC)) {
        return None;
    }
    let bytes = fs::read(format!("{LOADER_VARIABLES}/{name}-{LOADER_VENDOR}")).ok()?;
    parse_loader_time(&bytes)
}

fn parse_loader_time(bytes: &[u8]) -> Option<u64> {
    let units = bytes
        .get(4..)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .collect::<Result<_, _>>()
        .ok()?;
    text.parse().ok()
}

fn entry(name: &str, kind: BootKind, start_us: i64, end_us: Option<i64>) -> BootEntry {
    BootEntry {
        name: name.to_owned(),
        kind,
        start_us,
        started_us: None,
        ready_us: None,
        end_us,
    }
}

fn signed(microseconds: u64) -> i64 {
    i64::try_from(microseconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_ends_where_the_first_step_of_pid_1_begins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = "{\"name\":\"root\",\"start_us\":300,\"end_us\":400}\n{\"name\":\"initrd\",\"start_us\":100,\"end_us\":300}\ncut";
        fs::write(file.path(), lines).unwrap();
        let boot = timeline(file.path(), &[]);
        let names: Vec<_> = boot
            .entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.end_us))
            .collect();
        assert_eq!(
            names,
            [
                ("kernel", Some(100)),
                ("initrd", Some(300)),
                ("root", Some(400))
            ]
        );
    }

    #[test]
    fn loader_times_are_utf16_after_the_attributes() {
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend("1234\0".encode_utf16().flat_map(u16::to_le_bytes));
        assert_eq!(parse_loader_time(&bytes), Some(1234));
        assert_eq!(parse_loader_time(&[1, 2]), None);
        let entries = before_kernel(Some(1000), Some(1500));
        assert_eq!(
            (entries[0].start_us, entries[0].end_us),
            (-1500, Some(-500))
        );
    }
}
