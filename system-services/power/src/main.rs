//! Power key, reboot and poweroff

fn main() {}
