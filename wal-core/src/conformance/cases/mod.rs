//! The cases, by what they are about.

mod checkpoint_modes;
mod checkpoints;
mod closing;
mod contract;
mod deaths;
mod durability;
mod proofs;
mod races;
mod recovery;
mod restarts;
mod saved_snapshots;
mod savepoints;
mod snapshots;
mod spilling;
mod tails;
mod vacuums;
mod waiting;
mod writing;

pub(super) use checkpoint_modes::*;
pub(super) use checkpoints::*;
pub(super) use closing::*;
pub(super) use contract::*;
pub(super) use deaths::*;
pub(super) use durability::*;
pub(super) use proofs::*;
pub(super) use races::*;
pub(super) use recovery::*;
pub(super) use restarts::*;
pub(super) use saved_snapshots::*;
pub(super) use savepoints::*;
pub(super) use snapshots::*;
pub(super) use spilling::*;
pub(super) use tails::*;
pub(super) use vacuums::*;
pub(super) use waiting::*;
pub(super) use writing::*;
