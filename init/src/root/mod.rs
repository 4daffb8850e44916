//! The real root: what the engine needs before it starts, and what may come after.
//!
//! - [`mounts`]: kernel file systems and settings
//! - [`cgroups`]: the control group tree and its limits
//! - [`identity`]: host name, machine id
//! - [`seed`]: the random seed
//! - [`preload`]: modules that Docker will ask for

pub(crate) mod cgroups;
pub(crate) mod identity;
mod mounts;
mod preload;
pub(crate) mod seed;

use crate::cmdline::Options;
use crate::kmsg;
use crate::storage::state;
use crate::timeline::{Timeline, now_us};
use std::path::Path;

/// Where the state partition, or memory, is mounted.
const STATE: &str = "/state";

/// Prepares what the engine needs. A step that fails is reported and the next one is taken: an OS with a part
/// missing is better than none.
pub(crate) fn prepare(options: &Options, timeline: &mut Timeline) {
    timeline.measure("root.mounts", mounts::mount_all);
    timeline.measure("root.cgroups", cgroups::make_tree);
    timeline.measure("root.settings", || {
        mounts::apply_settings();
        kmsg::tolerate("set the host name", identity::set_hostname(options));
        kmsg::tolerate(
            "set up the loopback interface",
            keelson_sys::machine::interface_up("lo"),
        );
        kmsg::tolerate("make /run/docker.sock", mounts::link_docker_socket());
        kmsg::tolerate(
            "going on without mounts of the configuration",
            mounts::share(Path::new(STATE)),
        );
    });
}

/// What nobody waits for; runs in a child of its own beside the engine.
pub(crate) fn housekeeping() {
    let start_us = now_us();
    kmsg::tolerate(
        "going on with a small state partition",
        state::grow(Path::new(STATE)),
    );
    kmsg::tolerate("make the machine id", identity::make_machine_id());
    kmsg::tolerate("feed the random seed", seed::restore());
    preload::load();
    kmsg::tolerate(
        "going on without the firmware's variables",
        mounts::mount_firmware_variables(),
    );
    let mut timeline = Timeline::default();
    timeline.add("root.housekeeping", start_us);
    kmsg::tolerate("write the time line", timeline.write());
}
