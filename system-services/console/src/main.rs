//! First process of the console.

fn main() {}
