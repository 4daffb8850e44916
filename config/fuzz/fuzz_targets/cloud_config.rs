#![no_main]
//! Fuzzes `cloud_config` of `targets.rs`.

#[allow(dead_code)] // each fuzzer uses one of them
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::cloud_config(bytes));
