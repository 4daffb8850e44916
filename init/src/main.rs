//! PID 1 of Keelson, both in the initrd and on the real root

fn main() {}
