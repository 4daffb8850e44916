//! OCI runtime command line on libcontainer: single-threaded, static

fn main() {}
