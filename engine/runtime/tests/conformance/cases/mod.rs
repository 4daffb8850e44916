//! The table, by subject.

mod confinement;
mod devices;
mod exec;
mod lifecycle;
mod limits;
mod mounts;
mod namespaces;
mod process;
mod refusals;

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
    refusals::CASES,
];
