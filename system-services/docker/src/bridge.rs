//! Where `docker0` is. Docker takes 172.17.0.0/16 whatever the machine's own networks are; where they have it, it is given another
//! one of its pools, and keeps that.

use crate::paths::Paths;
use std::fs;
use std::net::Ipv4Addr;

/// Its name.
pub const INTERFACE: &str = "docker0";
/// Its address among Docker's own pools (`docker network create --help`, "default address pools"), its usual one first.
const CANDIDATES: [(Ipv4Addr, u8); 12] = [
    (Ipv4Addr::new(172, 17, 0, 1), 16),
    (Ipv4Addr::new(172, 18, 0, 1), 16),
    (Ipv4Addr::new(172, 19, 0, 1), 16),
    (Ipv4Addr::new(172, 20, 0, 1), 16),
    (Ipv4Addr::new(172, 24, 0, 1), 16),
    (Ipv4Addr::new(172, 26, 0, 1), 16),
    (Ipv4Addr::new(172, 28, 0, 1), 16),
    (Ipv4Addr::new(172, 31, 0, 1), 16),
    (Ipv4Addr::new(192, 168, 64, 1), 20),
    (Ipv4Addr::new(192, 168, 160, 1), 20),
    (Ipv4Addr::new(192, 168, 240, 1), 20),
    (Ipv4Addr::new(10, 214, 0, 1), 16),
];

/// The `bip` of dockerd: `None` leaves it where Docker has it. What was chosen once is written down.
pub fn choose(paths: &Paths) -> Option<String> {
    let routes = fs::read_to_string(&paths.routes).unwrap_or_default();
    let last = fs::read_to_string(&paths.bridge).ok();
    let chosen = among(&networks(&routes), last.as_deref().map(str::trim));
    if let Some(bip) = &chosen
        && last.as_deref().map(str::trim) != Some(bip)
    {
        // Without it the choice is made again.
        let _ = fs::write(&paths.bridge, format!("{bip}\n"));
    }
    chosen
}

/// Whether containers are at it.
pub fn in_use(paths: &Paths) -> bool {
    let ports = paths.sys_class_net.join(INTERFACE).join("brif");
    fs::read_dir(ports).is_ok_and(|mut ports| ports.next().is_some())
}

fn among(taken: &[(u32, u32)], last: Option<&str>) -> Option<String> {
    let is_free = |(address, length): &(Ipv4Addr, u8)| {
        let own = u32::MAX << (32 - u32::from(*length));
        taken
            .iter()
            .all(|(network, mask)| (address.to_bits() ^ network) & mask & own != 0)
    };
    let shown = |(address, length): &(Ipv4Addr, u8)| format!("{address}/{length}");
    let kept = CANDIDATES
        .iter()
        .find(|candidate| Some(shown(candidate).as_str()) == last && is_free(candidate));
    let found = kept.or_else(|| CANDIDATES.iter().find(|candidate| is_free(candidate)))?;
    // Where it always is, nothing has to be said, as long as nothing ever was.
    (*found != CANDIDATES[0] || last.is_some()).then(|| shown(found))
}

/// Networks of the routing table (`/proc/net/route`: hexadecimal, in the processor's order), with their masks, but for docker0's and
/// the default route.
fn networks(table: &str) -> Vec<(u32, u32)> {
    let number = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::from_be);
    let network = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (name, network) = (fields.first()?, number(fields.get(1)?)?);
        let mask = number(fields.get(7)?)?;
        (*name != INTERFACE && mask != 0).then_some((network, mask))
    };
    table.lines().skip(1).filter_map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(networks: &[(&str, &str, u8)]) -> Vec<(u32, u32)> {
        let mut text = String::from("Iface\tDestination\n");
        for (name, network, length) in networks {
            let network: Ipv4Addr = network.parse().unwrap();
            let mask = u32::MAX.checked_shl(32 - u32::from(*length)).unwrap_or(0);
            let word = |bits: u32| format!("{:08X}", bits.swap_bytes());
            let (network, mask) = (word(network.to_bits()), word(mask));
            text += &format!("{name}\t{network}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n");
        }
        super::networks(&text)
    }

    #[test]
    fn docker0_gives_way_to_the_machines_networks_and_stays_where_it_went() {
        let usual = table(&[
            ("eth0", "0.0.0.0", 0),
            ("eth0", "10.0.2.0", 24),
            (INTERFACE, "172.17.0.0", 16),
        ]);
        assert_eq!(among(&usual, None), None);
        let lan = table(&[("eth0", "172.17.4.0", 24), ("eth1", "172.18.0.0", 15)]);
        assert_eq!(among(&lan, None).as_deref(), Some("172.20.0.1/16"));
        // Not back when the network is away, nor anywhere else while it is free.
        assert_eq!(
            among(&usual, Some("172.20.0.1/16")).as_deref(),
            Some("172.20.0.1/16")
        );
        let other = table(&[("eth0", "172.16.0.0", 12)]);
        assert_eq!(
            among(&other, Some("172.20.0.1/16")).as_deref(),
            Some("192.168.64.1/20")
        );
        let all = table(&[
            ("a", "172.16.0.0", 12),
            ("b", "192.168.0.0", 16),
            ("c", "10.0.0.0", 8),
        ]);
        assert_eq!(among(&all, None), None);
        assert_eq!(
            among(&usual, Some("nonsense")).as_deref(),
            Some("172.17.0.1/16")
        );
    }
}
