//! A replica on a simulated disk, which is given the frames of a source whose own disk
//! does not fail.

use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use wal_core::protocol::{CheckpointMode, Synchronous};

use super::work::Work;
use super::{Disk, History};

/// Gives a copy of some state the log that led to it and beyond, from its beginning.
/// Fewer frames than that would overlay newer pages with older ones.
///
/// # Errors
///
/// When the library refuses something.
pub fn catch_up(history: &History, synchronous: Synchronous, rng: &mut Rng) -> Result<Disk> {
    let mut source = Work::new(history, Synchronous::Off, 0);
    let life = source.open();
    for _ in 0..rng.usize(2..=history.last()) {
        source.commit(&life, rng)?;
    }
    let mut copy = Work::new(history, synchronous, rng.usize(1..=source.state));
    let replica = copy.open_with(|config| config.cache_spill = rng.u64(1..20_000));
    let tail = life.wal.tail()?;
    let mut tx = replica.wal.begin_apply(Duration::ZERO)?;
    copy.disk.attempt(source.state);
    tx.apply_frames(tail.log_so_far(), None)?;
    tx.commit().context("applied frames")?;
    copy.acknowledge(source.state);
    Ok(copy.disk)
}

/// Takes a replica through the history, by the frames of a source whose own
/// disk does not fail. It begins as a copy of some state.
///
/// # Errors
///
/// When the library refuses something.
pub fn replicate(history: &History, synchronous: Synchronous, rng: &mut Rng) -> Result<Disk> {
    let mut source = Work::new(history, Synchronous::Off, 0);
    let life = source.open();
    let mut tail = life.wal.tail()?;
    for _ in 0..rng.u8(1..4) {
        source.commit(&life, rng)?;
    }
    let mut replica = Work::new(history, synchronous, rng.usize(0..=source.state));
    let mut copy = replica.open_with(|config| config.cache_spill = rng.u64(1..20_000));
    let mut ended = None;
    let mut first = true;
    while replica.state < history.last() {
        for _ in 0..rng.u8(0..3) {
            source.commit_if_any(&life, rng)?;
        }
        let mut tx = copy.wal.begin_apply(Duration::ZERO)?;
        replica.disk.attempt(source.state);
        tail.advance()?;
        // What the replica has already is given again.
        tx.apply_frames(tail.log_so_far(), if first { None } else { ended })?;
        tx.commit().context("applied frames")?;
        first = false;
        replica.acknowledge(source.state);
        if rng.bool() {
            copy.wal.checkpoint(CheckpointMode::Passive)?;
        }
        if rng.u8(..4) == 0 {
            copy = replica.open();
        }
        if rng.u8(..3) == 0 && tail.position().frame > 0 {
            copy.wal.checkpoint(CheckpointMode::Passive)?;
            life.wal.checkpoint(CheckpointMode::Passive)?;
            let position = tail.position();
            if tail.restart_log(Duration::ZERO)? {
                ended = Some(position);
                source.commit_if_any(&life, rng)?;
            }
        }
    }
    Ok(replica.disk)
}
