//! The table, by subject.

mod confinement;
mod devices;
mod exec;
mod lifecycle;
mod limits;
mod mounts;
mod namespaces;
mod pausing;
mod process;
mod refusals;
mod terminals;
mod updates;

use crate::suite::Case;

/// All cases.
pub(crate) const ALL: &[&[Case]] = &[
    lifecycle::CASES,
    process::CASES,
    namespaces::CASES,
    mounts::CASES,
    confinement::CASES,
    devices::CASES,
    limits::CASES,
    exec::CASES,
    terminals::CASES,
    pausing::CASES,
    updates::CASES,
    refusals::CASES,
];
