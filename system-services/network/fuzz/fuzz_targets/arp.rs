#![no_main]
//! Fuzzes `arp` of `targets.rs`.

#[allow(dead_code)] // each fuzzer uses one of them
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::arp_packet(bytes));
