//! Collects what the system prints and keeps it on disk

fn main() {}
