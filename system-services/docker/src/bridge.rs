//! Where `docker0` is. Docker takes 172.17.0.0/16 whatever the machine's own networks are; where they have it, it is given another
//! one of its pools, and keeps that.

use crate::cgroup::APPLICATIONS;
use crate::paths::Paths;
use std::fs;
use std::net::Ipv4Addr;

/// Its name.
pub const INTERFACE: &str = "docker0";
/// Its usual address, and others outside of the pools from which Docker takes its further networks (`docker network create --help`):
/// those may have been given away while this one was somewhere else.
const CANDIDATES: [(Ipv4Addr, u8); 6] = [
    (Ipv4Addr::new(172, 17, 0, 1), 16),
    (Ipv4Addr::new(10, 214, 0, 1), 16),
    (Ipv4Addr::new(10, 87, 0, 1), 16),
    (Ipv4Addr::new(172, 16, 87, 1), 24),
    (Ipv4Addr::new(198, 18, 87, 1), 24),
    (Ipv4Addr::new(100, 127, 87, 1), 24),
];
/// Routes wider than this are a VPN's, which takes everything, and not a network that the machine is in.
const WIDEST_BITS: u32 = 8;

/// The `bip` of dockerd: `None` leaves it where Docker has it. What was chosen once is written down. `refused` are those that dockerd
/// did not start with.
pub fn choose(paths: &Paths, refused: &[String]) -> Option<String> {
    let routes = fs::read_to_string(&paths.routes).unwrap_or_default();
    let last = fs::read_to_string(&paths.bridge).ok();
    let last_chosen = last.as_deref().map(str::trim);
    let chosen = among(&networks(&routes), last_chosen, refused);
    if let Some(bip) = &chosen
        && last.as_deref().map(str::trim) != Some(bip)
    {
        // Without it the choice is made again.
        let _ = fs::write(&paths.bridge, format!("{bip}\n"));
    }
    chosen
}

/// Whether any container runs: dockerd leaves its networks alone then, wherever the container is.
pub fn in_use(paths: &Paths) -> bool {
    let events = paths.cgroup.join(APPLICATIONS).join("cgroup.events");
    let events = fs::read_to_string(events).unwrap_or_default();
    events.lines().any(|line| line == "populated 1")
}

fn among(taken: &[(u32, u32)], last: Option<&str>, refused: &[String]) -> Option<String> {
    let is_free = |(address, length): &(Ipv4Addr, u8)| {
        let own = u32::MAX << (32 - u32::from(*length));
        let mut taken = taken.iter();
        taken.all(|(network, mask)| (address.to_bits() ^ network) & mask & own != 0)
            && !refused.contains(&format!("{address}/{length}"))
    };
    let shown = |(address, length): &(Ipv4Addr, u8)| format!("{address}/{length}");
    let kept = CANDIDATES
        .iter()
        .find(|candidate| Some(shown(candidate).as_str()) == last && is_free(candidate));
    let found = kept.or_else(|| CANDIDATES.iter().find(|candidate| is_free(candidate)));
    // Where nothing is free, it stays where it is.
    let Some(found) = found else {
        return last
            .map(str::to_owned)
            .filter(|last| !refused.contains(last));
    };
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
        let is_network = mask.count_ones() >= WIDEST_BITS;
        (*name != INTERFACE && is_network).then_some((network, mask))
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
        assert_eq!(among(&usual, None, &[]), None);
        let lan = table(&[("eth0", "172.17.4.0", 24), ("eth1", "10.0.0.0", 9)]);
        assert_eq!(among(&lan, None, &[]).as_deref(), Some("10.214.0.1/16"));
        // Not back when the network is away, nor anywhere else while it is free.
        let last = Some("10.214.0.1/16");
        assert_eq!(among(&usual, last, &[]).as_deref(), last);
        let other = table(&[("eth0", "10.128.0.0", 9), ("eth0", "172.17.0.0", 16)]);
        assert_eq!(among(&other, last, &[]).as_deref(), Some("10.87.0.1/16"));
        let refused = ["10.87.0.1/16".to_owned()];
        assert_eq!(
            among(&other, last, &refused).as_deref(),
            Some("172.16.87.1/24")
        );
        // A VPN that takes everything changes nothing, and neither does one that takes all that is private.
        let vpn = table(&[("tun0", "0.0.0.0", 1), ("tun0", "128.0.0.0", 1)]);
        assert_eq!(among(&vpn, None, &[]), None);
        let all = table(&[
            ("a", "172.16.0.0", 12),
            ("b", "198.18.0.0", 15),
            ("c", "10.0.0.0", 8),
            ("d", "100.64.0.0", 10),
        ]);
        assert_eq!(among(&all, last, &[]).as_deref(), last);
        assert_eq!(
            among(&usual, Some("nonsense"), &[]).as_deref(),
            Some("172.17.0.1/16")
        );
    }
}
