//! Addresses, routes, DHCP and resolv.conf

fn main() {}
