//! The process's end: what a worker has open, and the commands on it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde_json::Value;
use wal::generic::{Database, ReadTx, WriteTx};
use wal::{CheckpointOptions, LockKind, PageNo, Savepoint};
use wal_core::LockMode;
use wal_core::storage::ByteLocks;

use super::standard_streams::{answer, read_command};
use super::wire::{Answer, BackendKind, Command, HeldByte, Refusal, Settings, SnapshotInfo};
use super::{Stamp, fork, run_load};

/// Carries out the commands on stdin until it ends, then closes what is open.
///
/// # Errors
///
/// When a line is no command, or the other end is gone.
pub fn serve() -> Result<()> {
    #[cfg(feature = "test-points")]
    super::steps::install();
    let mut worker = WorkerState::default();
    while let Some(command) = read_command()? {
        answer(&match worker.execute(command) {
            Ok(value) => Answer::Ok(value),
            Err(error) => Answer::Error(Refusal::of(&error)),
        })?;
    }
    worker.close()
}

/// What the process has open, with whichever coordination.
#[derive(Default)]
struct WorkerState {
    session: Option<Box<dyn Session>>,
    /// Children that outlive this process if it is killed.
    children: Vec<super::ForkedChild>,
}

impl WorkerState {
    fn execute(&mut self, command: Command) -> Result<Value> {
        match command {
            Command::Open(settings) => {
                // A second handle takes the place of the first only once it
                // is open.
                self.session = Some(open(&settings)?);
                done()
            }
            Command::Close => {
                self.close()?;
                done()
            }
            Command::Arm { point, pass } => arm(&point, pass),
            Command::Record => record(),
            Command::Passed => passed(),
            Command::Go => bail!("nothing is stopped"),
            Command::Probe { file, byte } => value(probe(&file, byte)?),
            Command::Fork => {
                let child = fork(wait_for_hang_up)?;
                let pid = child.pid();
                self.children.push(child);
                value(pid)
            }
            command => self
                .session
                .as_mut()
                .context("no database is open")?
                .execute(command),
        }
    }

    fn close(&mut self) -> Result<()> {
        self.session
            .take()
            .map_or(Ok(()), |session| session.close())
    }
}

fn open(settings: &Settings) -> Result<Box<dyn Session>> {
    let options = settings.options()?;
    Ok(match settings.backend {
        BackendKind::Shm => Box::new(Handle::new(options.open_shm(&settings.path)?, settings)),
        BackendKind::InProcess => {
            Box::new(Handle::new(options.open_inproc(&settings.path)?, settings))
        }
    })
}

/// Asks about a byte through a description of our own, on which nothing is
/// locked.
fn probe(file: &Path, byte: u64) -> Result<Option<HeldByte>> {
    let file = std::fs::File::options().read(true).write(true).open(file)?;
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let conflict = locks.conflict(&file, byte..byte + 1)?;
    Ok(conflict.map(|conflict| match conflict.mode {
        LockMode::Shared => HeldByte::Shared,
        LockMode::Exclusive => HeldByte::Exclusive,
    }))
}

/// Sleeps until nobody can write to our stdin any more. Reading it would take
/// the parent's commands away.
fn wait_for_hang_up() -> Result<()> {
    let stdin = io::stdin();
    let mut ends = [PollFd::new(
        std::os::fd::AsFd::as_fd(&stdin),
        PollFlags::empty(),
    )];
    while poll(&mut ends, PollTimeout::NONE) == Err(nix::errno::Errno::EINTR) {}
    Ok(())
}

#[cfg(feature = "test-points")]
fn arm(point: &str, pass: u32) -> Result<Value> {
    super::steps::arm(point, pass)?;
    done()
}

#[cfg(feature = "test-points")]
fn record() -> Result<Value> {
    super::steps::record();
    done()
}

#[cfg(feature = "test-points")]
fn passed() -> Result<Value> {
    value(super::steps::passed())
}

#[cfg(not(feature = "test-points"))]
fn arm(_point: &str, _pass: u32) -> Result<Value> {
    no_step_points()
}

#[cfg(not(feature = "test-points"))]
fn record() -> Result<Value> {
    no_step_points()
}

#[cfg(not(feature = "test-points"))]
fn passed() -> Result<Value> {
    no_step_points()
}

#[cfg(not(feature = "test-points"))]
fn no_step_points() -> Result<Value> {
    bail!("this worker was built without the feature `test-points`")
}

/// A database of either coordination, with its transactions.
trait Session {
    fn execute(&mut self, command: Command) -> Result<Value>;
    fn close(self: Box<Self>) -> Result<()>;
}

struct Handle<B: wal::Backend> {
    reads: BTreeMap<String, ReadTx<B>>,
    write: Option<WriteTx<B>>,
    savepoint: Option<Savepoint>,
    checkpoint_patience: Duration,
    database: Database<B>,
}

impl<B: wal::Backend> Handle<B> {
    fn new(database: Database<B>, settings: &Settings) -> Self {
        Handle {
            checkpoint_patience: settings.checkpoint_patience,
            reads: BTreeMap::new(),
            write: None,
            savepoint: None,
            database,
        }
    }

    fn read(&self, name: &str) -> Result<&ReadTx<B>> {
        let read = self.reads.get(name);
        read.with_context(|| format!("no read transaction is called `{name}`"))
    }

    fn read_times(&self, times: u32, pause: Duration) -> Result<()> {
        for _ in 0..times {
            drop(self.database.begin_read()?);
            if !pause.is_zero() {
                std::thread::sleep(pause);
            }
        }
        Ok(())
    }

    fn writer(&mut self) -> Result<&mut WriteTx<B>> {
        self.write.as_mut().context("no write transaction is open")
    }

    fn stamps(&self, name: &str, pages: Range<u32>) -> Result<Vec<Option<Stamp>>> {
        let read = self.read(name)?;
        pages
            .map(|page| Stamp::read(page, &read.page(PageNo::new(page)?)?))
            .collect()
    }

    fn write(&mut self, pages: Range<u32>, stamp: Stamp) -> Result<()> {
        let write = self.writer()?;
        for page in pages {
            stamp.write(page, write.page_mut(PageNo::new(page)?)?);
        }
        Ok(())
    }

    fn add_page(&mut self, stamp: Stamp) -> Result<u32> {
        let write = self.writer()?;
        let page = write.allocate()?;
        stamp.write(page.get(), write.page_mut(page)?);
        Ok(page.get())
    }
}

impl<B: wal::Backend> Session for Handle<B> {
    fn execute(&mut self, command: Command) -> Result<Value> {
        match command {
            Command::BeginRead { name } => {
                let read = self.database.begin_read()?;
                self.reads.insert(name, read);
            }
            Command::EndRead { name } => {
                self.read(&name)?;
                self.reads.remove(&name);
            }
            Command::ReadTimes { times, pause } => self.read_times(times, pause)?,
            Command::Snapshot { name } => return value(snapshot_info(self.read(&name)?)),
            Command::Stamps { name, pages } => return value(self.stamps(&name, pages)?),
            Command::BeginWrite => self.write = Some(self.database.begin_write()?),
            Command::Write { pages, stamp } => self.write(pages, stamp)?,
            Command::AddPage { stamp } => return value(self.add_page(stamp)?),
            Command::SetPageCount { pages } => self.writer()?.set_page_count(pages)?,
            Command::Spill => self.writer()?.spill()?,
            Command::Savepoint => self.savepoint = Some(self.writer()?.savepoint()),
            Command::RollbackTo => {
                let savepoint = self.savepoint.context("no savepoint was set")?;
                self.writer()?.rollback_to(savepoint)?;
            }
            Command::Commit => {
                let write = self.write.take().context("nothing to commit")?;
                write.commit()?;
            }
            Command::Rollback => self
                .write
                .take()
                .context("nothing to roll back")?
                .rollback(),
            Command::Checkpoint(mode) => {
                let options = CheckpointOptions::new(mode.into()).busy(self.checkpoint_patience);
                let report = self.database.checkpoint_with(options)?;
                return value(report.is_complete());
            }
            Command::Load(load) => return value(run_load(&self.database, &load)?),
            other => bail!("{other:?} is not done on a database"),
        }
        done()
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Handle {
            reads,
            write,
            database,
            ..
        } = *self;
        drop(write);
        drop(reads);
        Ok(database.close()?)
    }
}

fn snapshot_info<B: wal::Backend>(read: &ReadTx<B>) -> SnapshotInfo {
    let snapshot = read.snapshot();
    SnapshotInfo {
        salts: snapshot.salts().0,
        max_frame: snapshot.max_frame(),
        page_count: snapshot.page_count(),
        bypasses_log: snapshot.bypasses_log(),
        slot: snapshot.slot().map(wal::ReadSlot::index),
    }
}

fn value(answer: impl Serialize) -> Result<Value> {
    Ok(serde_json::to_value(answer)?)
}

fn done() -> Result<Value> {
    Ok(Value::Null)
}
