//! The cases, by what they are about.

mod checkpoints;
mod closing;
mod contract;
mod deaths;
mod durability;
mod races;
mod recovery;
mod restarts;
mod snapshots;
mod writing;

pub(super) use checkpoints::*;
pub(super) use closing::*;
pub(super) use contract::*;
pub(super) use deaths::*;
pub(super) use durability::*;
pub(super) use races::*;
pub(super) use recovery::*;
pub(super) use restarts::*;
pub(super) use snapshots::*;
pub(super) use writing::*;
