//! Supervises containerd and dockerd inside the user engine's container

fn main() {}
