//! Random operations of one process on a simulated disk, which take the
//! database through its history, state by state.

use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use nix::time::{ClockId, clock_gettime};
use wal_core::protocol::{
    CheckpointMode, DatabaseKind, ReadTx, Synchronous, Wal, WalConfig, WriteTx,
};
use wal_core::storage::Storage;
use wal_core::{PageNo, WalCoordination};

use super::shared::Shared;
use super::{Disk, History, Image};

/// How long a thread may take before something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) type Handle = Arc<Wal<Shared>>;
type Writing = WriteTx<Shared>;

/// What is worked on.
#[derive(Debug)]
pub struct Work<'h> {
    /// The states to go through.
    pub history: &'h History,
    /// The disk.
    pub disk: Disk,
    /// What the database is opened with.
    pub synchronous: Synchronous,
    /// The state that the database has.
    pub state: usize,
}

/// A process's own life: its handle, and the readers it has.
pub(super) struct Life {
    pub(super) wal: Handle,
    reading: Option<ReadTx<Shared>>,
}

/// Commits, closes, and restores the first state, as a backup is restored: once the
/// last user has closed a database without an error, its file is all of it.
///
/// # Errors
///
/// When the library refuses something.
pub fn restore_after_close(work: &mut Work<'_>, rng: &mut Rng) -> Result<()> {
    let limit = rng.bool().then(|| rng.u64(..20_000));
    let mut life = work.open_with(|config| {
        config.log_size_limit = limit;
        config.persistent_log = limit.is_some();
    });
    for _ in 0..rng.u8(1..4) {
        work.commit(&life, rng).context("a commit")?;
        if rng.u8(..3) == 0 {
            life.wal.checkpoint(CheckpointMode::Truncate)?;
        }
    }
    life.close()?;
    work.state = 0;
    work.disk.replace_database(work.history.bytes(0), 0);
    Ok(())
}

impl Life {
    fn close(&mut self) -> Result<()> {
        self.reading = None;
        self.wal.close().context("a close")
    }

    /// True if the log stays as it is when the last life ends.
    fn keeps_frames(&self) -> bool {
        let config = self.wal.config();
        config.persistent_log && config.log_size_limit.is_none()
    }
}

impl<'h> Work<'h> {
    /// Work on a database that has state `state` of the history durably, and no log.
    pub fn new(history: &'h History, synchronous: Synchronous, state: usize) -> Self {
        let image = Image {
            database: history.bytes(state).to_vec(),
            log: None,
        };
        Work {
            history,
            disk: Disk::new(&image, state),
            synchronous,
            state,
        }
    }
}

impl Work<'_> {
    pub(super) fn open(&self) -> Life {
        self.open_with(|_| {})
    }

    /// A life with a log that may have a limit, and may stay when it ends.
    fn open_by(&self, rng: &mut Rng) -> Life {
        self.open_with(|config| {
            config.persistent_log = rng.bool();
            config.log_size_limit = [None, Some(0), Some(rng.u64(..20_000))][rng.usize(..3)];
        })
    }

    /// Puts an earlier state in the place of the database, which is closed.
    fn restore(&mut self, rng: &mut Rng) {
        self.state -= rng.usize(..3).min(self.state);
        let bytes = self.history.bytes(self.state);
        self.disk.replace_database(bytes, self.state);
    }

    pub(super) fn open_with(&self, change: impl FnOnce(&mut WalConfig)) -> Life {
        let mut config = WalConfig::new(DatabaseKind::Sqlite, self.history.page_size);
        config.synchronous = self.synchronous;
        change(&mut config);
        self.join(Shared::new(), config)
    }

    fn join(&self, coordination: Shared, config: WalConfig) -> Life {
        let storage = Box::new(self.disk.clone());
        Life {
            wal: Wal::new(coordination, storage, config),
            reading: None,
        }
    }
}

/// Works until the history ends, as `rng` chooses.
///
/// # Errors
///
/// When the library refuses something.
pub fn work(work: &mut Work<'_>, rng: &mut Rng) -> Result<()> {
    let mut life = work.open_by(rng);
    while work.state < work.history.last() {
        match rng.u8(..18) {
            0..=6 => work.commit(&life, rng).context("a commit")?,
            17 => work.fill_disk(&life, rng).context("a full disk")?,
            7 => work.roll_back(&life, rng).context("a rollback")?,
            8..=10 => {
                let mode = [
                    CheckpointMode::Passive,
                    CheckpointMode::Full,
                    CheckpointMode::Restart,
                    CheckpointMode::Truncate,
                ][rng.usize(..4)];
                life.wal.checkpoint(mode).context("a checkpoint")?;
            }
            11 => restart(&life, rng).context("a restart by proof")?,
            12 => {
                life.reading = None;
                work.commit_exclusively(&life).context("a vacuum")?;
            }
            13 => life.reading = Some(life.wal.begin_read().context("a reader")?),
            14 => life.reading = None,
            15 => {
                life.reading = None;
                work.move_by_careless(&life).context("a careless peer")?;
                if rng.bool() {
                    life.close().context("behind a careless peer")?;
                    life = work.open_by(rng);
                }
            }
            _ => {
                // A process dies, or closes, and another one comes.
                if rng.bool() {
                    life.close()?;
                    // A log that stays with its frames is a part of the database.
                    if !life.keeps_frames() && rng.bool() {
                        work.restore(rng);
                    }
                }
                life = work.open_by(rng);
            }
        }
    }
    life.close().context("the last one")
}

impl Work<'_> {
    /// Commits the next state.
    pub(super) fn commit(&mut self, life: &Life, rng: &mut Rng) -> Result<()> {
        let mut tx = life.wal.begin_write(Duration::ZERO)?;
        if rng.u8(..3) == 0 {
            let savepoint = tx.savepoint();
            self.scribble(&mut tx, rng)?;
            tx.rollback_to(savepoint)?;
        }
        self.fill(&mut tx, rng)?;
        let next = self.state + 1;
        self.disk.attempt(next);
        tx.commit()?;
        self.acknowledge(next);
        Ok(())
    }

    pub(super) fn commit_if_any(&mut self, life: &Life, rng: &mut Rng) -> Result<()> {
        match self.state < self.history.last() {
            true => self.commit(life, rng),
            false => Ok(()),
        }
    }

    pub(super) fn acknowledge(&mut self, state: usize) {
        let durable = self.synchronous == Synchronous::Full;
        self.disk.acknowledge(state, durable);
        self.state = state;
    }

    /// Commits the next state and moves the log, if there is room for it. What is
    /// refused for want of room is never found.
    fn fill_disk(&mut self, life: &Life, rng: &mut Rng) -> Result<()> {
        self.disk.set_free_space(Some(rng.usize(..40_000)));
        let refused = |outcome: Result<()>| match outcome.map_err(|error| error.downcast()) {
            Ok(()) => Ok(false),
            Err(Ok(wal_core::Error::Io { source, .. }))
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                Ok(true)
            }
            outcome => bail!("the disk is full, and {outcome:?}"),
        };
        if refused(self.commit(life, rng))? {
            self.disk.attempt(self.state);
        }
        let checkpoint = life.wal.checkpoint(CheckpointMode::Passive);
        refused(checkpoint.map(drop).map_err(Into::into))?;
        self.disk.set_free_space(None);
        Ok(())
    }

    /// Makes the pages those of the next state.
    fn fill(&self, tx: &mut Writing, rng: &mut Rng) -> Result<()> {
        let next = self.state + 1;
        tx.set_page_count(self.history.page_count(next))?;
        for (page, content) in self.history.changed(self.state, next) {
            tx.page_mut(page)?.copy_from_slice(content);
            if rng.u8(..8) == 0 {
                tx.spill()?;
            }
        }
        Ok(())
    }

    /// Writes what is never committed.
    fn scribble(&self, tx: &mut Writing, rng: &mut Rng) -> Result<()> {
        for _ in 0..rng.u8(1..4) {
            let page = PageNo::new(rng.u32(1..=tx.page_count()))?;
            tx.page_mut(page)?.fill(rng.u8(..));
            if rng.u8(..3) == 0 {
                tx.allocate()?;
            }
            if rng.bool() {
                tx.spill()?;
            }
        }
        Ok(())
    }

    fn roll_back(&self, life: &Life, rng: &mut Rng) -> Result<()> {
        let mut tx = life.wal.begin_write(Duration::ZERO)?;
        self.scribble(&mut tx, rng)?;
        tx.rollback();
        Ok(())
    }

    /// A peer that syncs nothing moves the log to the database file. At `Full` the log is
    /// durable by then, so every promise is kept for as long as the log stays; below that
    /// nothing is promised beside such a peer, so there is none.
    fn move_by_careless(&self, life: &Life) -> Result<()> {
        if self.synchronous != Synchronous::Full {
            return Ok(());
        }
        let mut config = *life.wal.config();
        config.synchronous = Synchronous::Off;
        let careless = self.join(life.wal.coordination().clone(), config);
        careless.wal.checkpoint(CheckpointMode::Passive)?;
        Ok(())
    }

    /// Commits the next state with everybody shut out, as a vacuum does.
    fn commit_exclusively(&mut self, life: &Life) -> Result<()> {
        let locks = life.wal.try_begin_vacuum_checkpoint_lock(Duration::ZERO)?;
        let mut tx = locks.begin_vacuum_blocking_tx()?;
        self.fill(tx.tx(), &mut Rng::with_seed(0))?;
        let next = self.state + 1;
        self.disk.attempt(next);
        let locks = tx.commit()?;
        self.acknowledge(next);
        locks.vacuum_checkpoint_with_held_lock()?;
        Ok(())
    }
}

/// Takes the database through its history at `Full`, beside a peer that syncs nothing
/// and moves the log to the database file. Then the log goes, in one way or another,
/// and what the peer has moved has to be durable first.
///
/// # Errors
///
/// When the library refuses something.
pub fn work_beside_careless(work: &mut Work<'_>, rng: &mut Rng) -> Result<()> {
    let mut life = work.open();
    while work.state < work.history.last() {
        for _ in 0..rng.u8(1..3) {
            work.commit_if_any(&life, rng).context("a commit")?;
        }
        work.move_by_careless(&life).context("a careless peer")?;
        match rng.u8(..6) {
            0 | 1 => {
                life.wal.close().context("a close")?;
                life = work.open();
            }
            2 => drop(life.wal.checkpoint(CheckpointMode::Truncate)?),
            3 => restart(&life, rng).context("a restart by proof")?,
            4 => {
                let mut tail = life.wal.tail()?;
                let restarted = tail.restart_log(Duration::ZERO)?;
                ensure!(
                    restarted,
                    "a tail that has seen all did not restart the log"
                );
            }
            // The next commit restarts it.
            _ => {}
        }
    }
    Ok(())
}

fn restart(life: &Life, rng: &mut Rng) -> Result<()> {
    life.wal.checkpoint(CheckpointMode::Passive)?;
    let Some(proof) = life.wal.prove_backfill(Duration::ZERO)? else {
        return Ok(());
    };
    let restarted = match rng.bool() {
        true => life.wal.restart_log(&proof, Duration::ZERO),
        false => life.wal.truncate_log(&proof, Duration::ZERO),
    };
    match restarted {
        // Our own reader is in the way.
        Err(wal_core::Error::Busy { .. }) => Ok(()),
        restarted => Ok(restarted?),
    }
}

/// Takes the database through its history by commits that are visible before
/// they are durable. During some of their syncs another process that syncs
/// nothing commits more, and may move the log to the database file and begin it
/// anew.
///
/// # Errors
///
/// When the library refuses something.
pub fn work_in_group(work: &mut Work<'_>, rng: &mut Rng) -> Result<()> {
    let open = |work: &Work<'_>| work.open_with(|config| config.group_commit = true);
    let mut life = open(work);
    while work.state < work.history.last() {
        match rng.u8(..8) {
            0 => {
                life.wal.checkpoint(CheckpointMode::Passive)?;
            }
            1 => life = open(work),
            2..=4 => work.commit_beside_careless(&life, rng)?,
            5 => life = work.commit_in_vain(&life, rng)?,
            _ => work.commit(&life, rng).context("a commit")?,
        }
    }
    Ok(())
}

/// Takes the database through its history by several threads of one handle. During
/// some of their syncs others go on from what is not durable yet, and are
/// synced together.
///
/// # Errors
///
/// When the library refuses something.
pub fn work_by_threads(work: &mut Work<'_>, rng: &mut Rng) -> Result<()> {
    let mut life = work.open();
    while work.state < work.history.last() {
        match rng.u8(..8) {
            0 => {
                life.wal.checkpoint(CheckpointMode::Passive)?;
            }
            1 => life = work.open(),
            2 => work.roll_back(&life, rng).context("a rollback")?,
            3 => work.commit(&life, rng).context("a commit")?,
            _ => work.commit_beside_threads(&life, rng)?,
        }
    }
    Ok(())
}

/// A state of the history, as changes of the one before it.
type Step = (usize, u32, Vec<(PageNo, Vec<u8>)>);

impl Work<'_> {
    /// Commits the next state, but the disk loses what was written to the log.
    /// Another process goes on, and what it acknowledges is durable.
    fn commit_in_vain(&mut self, life: &Life, rng: &mut Rng) -> Result<Life> {
        let other = self.join(life.wal.coordination().clone(), *life.wal.config());
        let next = self.state + 1;
        self.disk.lose_log();
        match self.commit(life, rng).map_err(|error| error.downcast()) {
            Err(Ok(wal_core::Error::DurabilityUnknown { .. })) => {
                self.disk.acknowledge(next, false);
                self.state = next;
            }
            // The header of the log was lost; nothing was committed.
            Err(Ok(wal_core::Error::Io { .. })) => {}
            outcome => bail!("a sync failed, and {outcome:?}"),
        }
        if rng.bool() {
            other.wal.checkpoint(CheckpointMode::Passive)?;
        }
        self.commit_if_any(&other, rng)?;
        Ok(other)
    }

    fn steps(&self, states: Range<usize>) -> Vec<Step> {
        let step = |state| {
            let changed = self.history.changed(state - 1, state).into_iter();
            let changed = changed.map(|(page, content)| (page, content.to_vec()));
            (state, self.history.page_count(state), changed.collect())
        };
        states.map(step).collect()
    }

    /// Commits the next state, and lets other threads go on from there before it
    /// is durable.
    fn commit_beside_threads(&mut self, life: &Life, rng: &mut Rng) -> Result<()> {
        let next = self.state + 1;
        let last = (next + rng.usize(1..4)).min(self.history.last());
        let mut steps = Some(self.steps(next + 1..last + 1));
        let (wal, disk) = (life.wal.clone(), self.disk.clone());
        let (tell, told) = std::sync::mpsc::channel();
        self.disk.during_log_sync(Some(Box::new(move || {
            // Else the sync is that of a log header.
            let is_commit = committed_frames(&disk) > 0;
            for step in steps.take_if(|_| is_commit).into_iter().flatten() {
                // Nobody hears it if the commit has failed.
                let _ = tell.send((step.0, commit_on_a_thread(&wal, &disk, step)));
            }
            is_commit
        })));
        let committed = self.commit(life, rng);
        self.disk.during_log_sync(None);
        committed.context("a commit that threads build on")?;
        let threads: Vec<_> = told.try_iter().collect();
        ensure!(
            threads.len() == last - next,
            "a sync of a commit was not seen"
        );
        for (state, thread) in threads {
            let committed = thread?.join();
            let Ok(committed) = committed else {
                bail!("the thread of state {state} panicked");
            };
            committed.context("a commit of a thread")?;
            self.acknowledge(state);
        }
        Ok(())
    }

    /// Commits the next state, and lets another process go on from there
    /// before it is durable.
    fn commit_beside_careless(&mut self, life: &Life, rng: &mut Rng) -> Result<()> {
        let next = self.state + 1;
        let last = (next + rng.usize(..3)).min(self.history.last());
        let checkpoints = rng.bool();
        let steps = self.steps(next + 1..last + 1);
        let (wal, disk) = (life.wal.clone(), self.disk.clone());
        let (tell, told) = std::sync::mpsc::channel();
        self.disk.during_log_sync(Some(Box::new(move || {
            let outcome = be_careless(&wal, &disk, &steps, checkpoints);
            let done = !matches!(outcome, Ok(false));
            // Nobody hears it if the commit has failed.
            let _ = tell.send(outcome);
            done
        })));
        let committed = self.commit(life, rng);
        self.disk.during_log_sync(None);
        committed.context("a commit that others build on")?;
        let mut went_on = false;
        for outcome in told.try_iter() {
            went_on = outcome.context("a careless peer")?;
        }
        ensure!(went_on, "a commit was not synced after it was visible");
        self.acknowledge(next);
        // Nobody has promised more.
        self.disk.acknowledge(last, false);
        self.state = last;
        Ok(())
    }
}

/// How many frames of the log belong to commits, published or not.
fn committed_frames(disk: &Disk) -> u32 {
    let scan = wal_core::format::scan(disk.log());
    scan.ok().flatten().map_or(0, |scan| scan.max_frame())
}

/// Begins to write on what is not durable yet, and lets a thread commit that, which
/// has written its frames when this returns.
fn commit_on_a_thread(
    wal: &Handle,
    disk: &Disk,
    (state, page_count, changed): Step,
) -> Result<JoinHandle<wal_core::Result<()>>> {
    let deadline = Instant::now() + PATIENCE;
    let mut tx = loop {
        // WRITE is passed on within a time slice, however long it took to come here.
        let wait_state = wal.coordination().wait_state();
        wait_state
            .context("no wait state")?
            .writer_queue()
            .begin_slice(1, micros()?, true);
        match wal.begin_write(Duration::ZERO) {
            Err(wal_core::Error::Busy { .. }) if Instant::now() < deadline => thread::yield_now(),
            begun => break begun?,
        }
    };
    tx.set_page_count(page_count)?;
    for (page, content) in changed {
        tx.page_mut(page)?.copy_from_slice(&content);
    }
    disk.attempt(state);
    let before = committed_frames(disk);
    let thread = thread::spawn(move || tx.commit().map(drop));
    while committed_frames(disk) == before {
        ensure!(Instant::now() < deadline, "a thread wrote no commit");
        thread::yield_now();
    }
    Ok(thread)
}

/// The machine's clock as the line of writers reads it.
fn micros() -> Result<u32> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?).as_micros();
    Ok(u32::try_from(now & u128::from(u32::MAX))?)
}

/// What a process does that syncs nothing. False if Write is not free: the sync
/// is that of a log header.
fn be_careless(wal: &Handle, disk: &Disk, steps: &[Step], checkpoints: bool) -> Result<bool> {
    match wal.begin_write(Duration::ZERO) {
        Err(wal_core::Error::Busy { .. }) => return Ok(false),
        begun => begun?.rollback(),
    }
    let synchronous = wal.tuning().synchronous();
    wal.tuning().set_synchronous(Synchronous::Off);
    for (state, page_count, changed) in steps {
        if checkpoints {
            disk.void_promise();
            wal.checkpoint(CheckpointMode::Passive)?;
        }
        let mut tx = wal.begin_write(Duration::ZERO)?;
        tx.set_page_count(*page_count)?;
        for (page, content) in changed {
            tx.page_mut(*page)?.copy_from_slice(content);
        }
        disk.attempt(*state);
        tx.commit()?;
        disk.acknowledge(*state, false);
    }
    wal.tuning().set_synchronous(synchronous);
    Ok(true)
}
