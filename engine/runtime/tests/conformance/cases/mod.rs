//! The table, by subject.

mod changes;
mod confinement;
mod devices;
mod exec;
mod lifecycle;
mod limits;
mod mounts;
mod namespaces;
mod process;
mod refusals;
mod terminals;

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
    changes::CASES,
    terminals::CASES,
    refusals::CASES,
];
