//! Places at which tests let the engine die, as `kill -9` would at that moment: named in `KEELSON_ENGINE_FAILPOINT`.

use std::ffi::OsString;
use std::sync::OnceLock;

/// What names one.
pub const VARIABLE: &str = "KEELSON_ENGINE_FAILPOINT";

/// All of them, in the order in which a container comes by that is created, started, stopped and removed.
pub const NAMES: [&str; 13] = [
    "create-written",
    "create-added",
    "start-recorded",
    "start-mounted",
    "start-made",
    "start-connected",
    "start-launched",
    "stop-recorded",
    "stop-signalled",
    "end-recorded",
    "remove-deleted",
    "remove-out",
    "remove-released",
];

/// Dies here when that was asked for.
pub(crate) fn reach(name: &str) {
    static WANTED: OnceLock<Option<OsString>> = OnceLock::new();
    debug_assert!(NAMES.contains(&name), "{name}");
    let wanted = WANTED.get_or_init(|| std::env::var_os(VARIABLE));
    if wanted.as_ref().is_some_and(|wanted| wanted == name) {
        std::process::abort();
    }
}
