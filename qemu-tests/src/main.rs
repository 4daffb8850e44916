//! Boots Keelson in QEMU and shows that it does what it promises

fn main() {}
