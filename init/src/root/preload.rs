//! Modules that Docker and its first container will ask for one by one: loaded side by side meanwhile.

use crate::kmod::Library;
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

/// Loads them. One that this kernel does not have as a module is skipped.
pub(super) fn load() {
    if let Some(library) = kmsg::tolerate("going on without kernel modules", Library::open()) {
        library.load_all(&MODULES);
    }
}
