//! Documents: random changes of good ones, with the targets of `fuzz/`. Fuzzers that look at what is reached go further
//! (docs/building.md); this goes with every run of the tests. `KEELSON_FUZZ_CASES` says how often.

#[path = "../fuzz/drive.rs"]
mod drive;
#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn no_change_of_good_bytes_makes_a_target_fail() {
    drive::change_seeds(&targets::TARGETS, 3000);
}

/// With `KEELSON_FUZZ_SEEDS`, a folder: writes what the targets begin from there, for fuzzers.
#[test]
fn seeds_are_written_where_fuzzers_look_for_them() {
    drive::write_seeds(&targets::TARGETS);
}
