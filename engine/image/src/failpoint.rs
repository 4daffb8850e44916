//! Places at which tests let the program die, as a power cut would: named in `KEELSON_FAILPOINT`.

/// All of them, in the order in which a pull comes by.
pub(crate) const NAMES: [&str; 6] = [
    "blob-fetched",
    "blob-named",
    "layer-unpacked",
    "layer-named",
    "before-index",
    "after-index",
];

/// Dies here when that was asked for.
pub(crate) fn reach(name: &str) {
    debug_assert!(NAMES.contains(&name), "{name}");
    if std::env::var_os("KEELSON_FAILPOINT").is_some_and(|wanted| wanted == name) {
        std::process::abort();
    }
}
