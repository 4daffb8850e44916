//! Modules that Docker and its first container will ask for one by one: loaded side by side meanwhile.

use crate::kmod::{Library, coldplug};
use crate::kmsg;

const MODULES: [&str; 24] = [
    "overlay",
    "nf_tables",
    "nf_conntrack",
    "nf_nat",
    "nft_compat",
    "nft_chain_nat",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_counter",
    "nft_fib_inet",
    "xt_conntrack",
    "xt_MASQUERADE",
    "xt_addrtype",
    "xt_nat",
    "xt_tcpudp",
    "xt_comment",
    "bridge",
    "br_netfilter",
    "veth",
    "xfrm_user",
    "nf_conntrack_netlink",
    "tun",
    "loop",
];

/// Loads them, and the drivers of network cards, whose links and addresses take their time; those of all other devices
/// are udevd's. One that this kernel does not have as a module is skipped.
pub(super) fn load() {
    if let Some(library) = kmsg::tolerate("going on without kernel modules", Library::open()) {
        let devices = coldplug();
        let cards = devices
            .iter()
            .map(String::as_str)
            .filter(|alias| is_network_card(alias));
        let requests: Vec<&str> = MODULES.into_iter().chain(cards).collect();
        library.load_all(&requests);
    }
}

/// virtio's network device, and PCI's class 02.
fn is_network_card(alias: &str) -> bool {
    alias.starts_with("virtio:d00000001") || (alias.starts_with("pci:") && alias.contains("bc02"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_cards_are_known_by_their_class() {
        assert!(is_network_card("virtio:d00000001v00001AF4"));
        assert!(is_network_card(
            "pci:v00008086d000010D3sv00008086sd0000A01Fbc02sc00i00"
        ));
        assert!(!is_network_card("virtio:d00000002v00001AF4"));
        assert!(!is_network_card(
            "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01"
        ));
    }
}
