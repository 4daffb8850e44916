//! Applies the user's configuration at first boot

fn main() {}
