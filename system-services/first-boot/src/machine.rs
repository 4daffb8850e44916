//! What the machine says of itself, from `/sys` and `/proc`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use keelson_config::sources::choice::Choice;
use keelson_config::sources::machine::Machine;

/// Fields that data sources are known by, or that an address may have (`__dmi.NAME__`).
const FIELDS: [&str; 16] = [
    "bios_vendor",
    "bios_version",
    "board_asset_tag",
    "board_name",
    "board_serial",
    "board_vendor",
    "chassis_asset_tag",
    "chassis_serial",
    "chassis_vendor",
    "product_family",
    "product_name",
    "product_serial",
    "product_sku",
    "product_uuid",
    "product_version",
    "sys_vendor",
];

/// Reads it below `root`. What is not there says nothing. `choice` is which data sources its configuration allows.
pub(crate) fn read(root: &Path, choice: Choice) -> Machine {
    let field = |name: &&str| {
        let path = root.join("sys/class/dmi/id").join(name);
        let value = fs::read(path).ok()?;
        let value = String::from_utf8_lossy(&value).trim().to_owned();
        Some(((*name).to_owned(), value))
    };
    let routes = fs::read_to_string(root.join("proc/net/route")).unwrap_or_default();
    Machine {
        dmi: FIELDS.iter().filter_map(field).collect(),
        command_line: fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default(),
        router: router(&routes),
        choice,
    }
}

/// The next hop of the first default route in `/proc/net/route`.
fn router(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (to, via) = (words.next()?, words.next()?);
        let mask = words.nth(4)?;
        let via = u32::from_str_radix(via, 16).ok()?;
        // The kernel prints the four bytes as they lie in memory.
        let is_default = to == "00000000" && mask == "00000000" && via != 0;
        is_default.then(|| Ipv4Addr::from(via.to_ne_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_the_default_routes_next_hop() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
            eth0\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        assert_eq!(router(routes), Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(router("Iface\n"), None);
    }

    #[test]
    fn fields_come_without_blanks_and_only_those_that_are_there() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("sys/class/dmi/id");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("sys_vendor"), "Hetzner \n").unwrap();
        let machine = read(root.path(), Choice::default());
        assert_eq!(
            (machine.dmi("sys_vendor"), machine.dmi.len()),
            ("Hetzner", 1)
        );
        assert_eq!(
            machine.platform().map(|platform| platform.name()),
            Some("Hetzner")
        );
    }
}
