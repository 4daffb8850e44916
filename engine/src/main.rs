//! The system engine's program.

fn main() {}
