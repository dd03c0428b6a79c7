//! A disk whose writes are volatile until they are synced.
//!
//! # Model
//! A file has what is durable, and the changes since. When the power fails,
//! any of these changes may have reached the disk, whole, in part by sectors
//! of 512 bytes, or not at all, whatever their order was: of each sector the
//! disk has some version that was written since the last sync, or the durable
//! one. A change of the length, and the removal of the log, may be there or
//! not: a file that was cut may have its length and its old bytes again. A sync
//! makes all changes of its file durable that were made before it began; a sync of
//! the directory, or of a new log, makes the removal of the log durable.

use std::fmt;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;
use wal_core::Result;
use wal_core::storage::{File, FileSyncType, Storage};
use wal_core::sync::Unpoison;

const SECTOR: usize = 512;

/// A change that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    SetLen(usize),
    Remove,
}

#[derive(Clone, Debug, Default)]
struct Content {
    durable: Arc<Vec<u8>>,
    /// With their place in the order of all changes of both files.
    pending: Vec<(usize, Change)>,
}

/// What is promised, and may be found, if the power fails now: states of the
/// history, by number.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    acknowledged: usize,
    /// What is there for sure.
    floor: usize,
    /// What is being committed.
    ceiling: usize,
    /// Somebody who syncs nothing may have broken every promise.
    void: bool,
}

/// What another process does at a certain moment; false if it is not the one.
pub type Interlude = Box<dyn FnMut() -> bool + Send>;

#[derive(Default)]
struct State {
    /// What programs read: database and log.
    now: [Vec<u8>; 2],
    contents: [Content; 2],
    changes: usize,
    promise: Promise,
    crashes: Vec<Crash>,
    during_log_sync: Option<Interlude>,
    loses_log: bool,
    /// How much room there is; `None` if there is enough.
    free_space: Option<usize>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} changes, {:?}", self.changes, self.promise)
    }
}

/// A moment at which the power may fail.
#[derive(Clone, Debug)]
pub struct Crash {
    contents: [Content; 2],
    /// The last state that was acknowledged, durable or not.
    pub acknowledged: usize,
    /// The oldest state that may be found.
    pub floor: usize,
    /// The newest state that may be found.
    pub ceiling: usize,
    /// Nothing is promised.
    pub void: bool,
}

/// What is on the disk after a crash.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// The database file.
    pub database: Vec<u8>,
    /// The log; `None` if it was removed.
    pub log: Option<Vec<u8>>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log.as_ref().map(Vec::len);
        write!(
            f,
            "database of {} bytes, log of {log:?}",
            self.database.len()
        )
    }
}

/// The disk, which its files share.
#[derive(Clone, Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    files: Arc<[SimulatedFile; 2]>,
}

#[derive(Debug)]
struct SimulatedFile {
    path: PathBuf,
    which: usize,
    state: Arc<Mutex<State>>,
}

impl Disk {
    /// A disk on which `image` is durable, which is state `state` of the
    /// history.
    pub fn new(image: &Image, state: usize) -> Self {
        let log = image.log.clone().unwrap_or_default();
        let contents = [&image.database, &log].map(|bytes| Content {
            durable: Arc::new(bytes.clone()),
            pending: Vec::new(),
        });
        let state = Arc::new(Mutex::new(State {
            now: [image.database.clone(), log],
            contents,
            promise: Promise {
                acknowledged: state,
                floor: state,
                ceiling: state,
                void: false,
            },
            ..State::default()
        }));
        let file = |which, name: &str| SimulatedFile {
            path: PathBuf::from(name),
            which,
            state: state.clone(),
        };
        let files = Arc::new([file(0, "simulated"), file(1, "simulated-wal")]);
        Disk { state, files }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// State `number` is about to be committed.
    pub fn attempt(&self, number: usize) {
        self.state().promise.ceiling = number;
    }

    /// State `number` was acknowledged; `durable` says that it must survive.
    pub fn acknowledge(&self, number: usize, durable: bool) {
        let promise = &mut self.state().promise;
        promise.acknowledged = number;
        if durable {
            promise.floor = promise.floor.max(number);
            promise.void = false;
        }
    }

    /// From now on somebody works who syncs nothing, until a commit is
    /// acknowledged as durable.
    pub fn void_promise(&self) {
        self.state().promise.void = true;
    }

    /// Puts another database in the place of this one, which is closed, as a program
    /// does that restores a backup: `database` is durable, and is state `state`.
    pub fn replace_database(&self, database: &[u8], state: usize) {
        let mut current = self.state();
        current.step();
        current.now[0] = database.to_vec();
        current.contents[0] = Content {
            durable: Arc::new(database.to_vec()),
            pending: Vec::new(),
        };
        current.promise = Promise {
            acknowledged: state,
            floor: state,
            ceiling: state,
            void: false,
        };
    }

    /// Runs `interlude` while the log is synced, as another process or thread
    /// might, until it says that it was the moment. What it writes comes too late
    /// for that sync.
    pub fn during_log_sync(&self, interlude: Option<Interlude>) {
        self.state().during_log_sync = interlude;
    }

    /// Leaves room for so many bytes more on the disk, which the disk does not report.
    pub fn set_free_space(&self, bytes: Option<usize>) {
        self.state().free_space = bytes;
    }

    /// The next sync of the log fails: what was written to it since the last one
    /// is lost, though programs go on reading it, and no later sync tells.
    pub fn lose_log(&self) {
        self.state().loses_log = true;
    }

    /// The moments at which the power may have failed so far: before each call
    /// that changes something, and now.
    pub fn take_crashes(&self) -> Vec<Crash> {
        let mut state = self.state();
        let now = state.crash();
        state.crashes.push(now);
        std::mem::take(&mut state.crashes)
    }

    /// What programs see now, as a process finds it that comes after the death
    /// of another.
    pub fn now(&self) -> Image {
        let state = self.state();
        Image {
            database: state.now[0].clone(),
            log: Some(state.now[1].clone()),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unpoison()
}

impl State {
    fn crash(&self) -> Crash {
        Crash {
            contents: self.contents.clone(),
            acknowledged: self.promise.acknowledged,
            floor: self.promise.floor,
            ceiling: self.promise.ceiling,
            void: self.promise.void,
        }
    }

    /// Takes room for `bytes`, and tells for how many there is none.
    fn take_space(&mut self, bytes: usize) -> usize {
        let Some(free) = &mut self.free_space else {
            return 0;
        };
        let taken = bytes.min(*free);
        *free -= taken;
        bytes - taken
    }

    /// A call is about to change something.
    fn step(&mut self) {
        let crash = self.crash();
        self.crashes.push(crash);
    }

    fn change(&mut self, which: usize, change: Change) {
        self.step();
        apply(&mut self.now[which], &change);
        self.changes += 1;
        self.contents[which].pending.push((self.changes, change));
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes: new } => write_part(bytes, *offset, new),
        Change::SetLen(len) => bytes.resize(*len, 0),
        Change::Remove => bytes.clear(),
    }
}

fn write_part(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

/// How a crash chooses among the changes.
#[derive(Clone, Copy, Debug)]
enum Survivors {
    None,
    All,
    /// Those up to one, of which a part.
    First(usize),
    /// Each change by itself.
    Changes,
    /// Each sector of each change by itself.
    Sectors,
}

impl Crash {
    /// What is on the disk if the power stays and only the process dies.
    pub fn image_without_loss(&self) -> Image {
        self.image_of(Survivors::All, &mut Rng::with_seed(0))
    }

    /// What may be on the disk, as `rng` chooses.
    pub fn image(&self, rng: &mut Rng) -> Image {
        let pending = || self.contents.iter().flat_map(|content| &content.pending);
        let survivors = match rng.u8(..8) {
            0 => Survivors::None,
            1 => Survivors::All,
            2 | 3 => {
                let orders: Vec<usize> = pending().map(|(order, _)| *order).collect();
                Survivors::First(rng.choice(orders).unwrap_or(0))
            }
            4 | 5 => Survivors::Changes,
            _ => Survivors::Sectors,
        };
        self.image_of(survivors, rng)
    }

    fn image_of(&self, survivors: Survivors, rng: &mut Rng) -> Image {
        let [(database, _), (log, removed)] =
            [0, 1].map(|which| self.contents[which].after(survivors, rng));
        Image {
            database,
            log: (!removed).then_some(log),
        }
    }
}

impl Content {
    /// The bytes that are left, and whether the file is gone.
    fn after(&self, survivors: Survivors, rng: &mut Rng) -> (Vec<u8>, bool) {
        let mut bytes = (*self.durable).clone();
        let mut removed = false;
        for (order, change) in &self.pending {
            let in_parts = match survivors {
                Survivors::None | Survivors::All | Survivors::Changes => false,
                Survivors::First(last) => *order == last,
                Survivors::Sectors => true,
            };
            let lost = match survivors {
                Survivors::None => true,
                Survivors::All | Survivors::Sectors => false,
                Survivors::First(last) => *order > last,
                Survivors::Changes => rng.bool(),
            };
            match change {
                // What was written after the removal went to another file, of
                // which nobody knows if this one is still there.
                Change::Remove if lost || in_parts && rng.bool() => break,
                Change::Remove => {
                    bytes.clear();
                    removed = true;
                }
                _ if lost => {}
                Change::SetLen(_) if in_parts && rng.bool() => {}
                Change::Write { offset, bytes: new } if in_parts => {
                    removed = false;
                    write_sectors(&mut bytes, *offset, new, rng);
                }
                change => {
                    removed = false;
                    apply(&mut bytes, change);
                }
            }
        }
        (bytes, removed)
    }
}

/// Writes some of the sectors that `new` lies in.
fn write_sectors(bytes: &mut Vec<u8>, offset: usize, new: &[u8], rng: &mut Rng) {
    let mut at = offset;
    let end = offset + new.len();
    while at < end {
        let next = ((at / SECTOR + 1) * SECTOR).min(end);
        if rng.bool() {
            write_part(bytes, at, &new[at - offset..next - offset]);
        }
        at = next;
    }
}

impl File for SimulatedFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let state = lock(&self.state);
        let bytes = &state.now[self.which];
        let rest = bytes.get(index(offset)..).unwrap_or(&[]);
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_all_at(&self, buffers: &mut [IoSlice<'_>], offset: u64) -> Result<()> {
        let mut bytes: Vec<u8> = buffers.iter().flat_map(|part| part.to_vec()).collect();
        let offset = index(offset);
        let mut state = lock(&self.state);
        let growth = (offset + bytes.len()).saturating_sub(state.now[self.which].len());
        let missing = state.take_space(growth);
        bytes.truncate(bytes.len().saturating_sub(missing));
        if !bytes.is_empty() {
            let bytes = bytes.into();
            state.change(self.which, Change::Write { offset, bytes });
        }
        match missing {
            0 => Ok(()),
            _ => {
                let full = std::io::ErrorKind::StorageFull.into();
                Err(wal_core::Error::io(&self.path, "write", full))
            }
        }
    }

    fn sync(&self, _: FileSyncType) -> Result<()> {
        let mut state = lock(&self.state);
        let (changes, acknowledged) = (state.changes, state.promise.acknowledged);
        if self.which == 1
            && let Some(mut interlude) = state.during_log_sync.take()
        {
            drop(state);
            let done = interlude();
            state = lock(&self.state);
            state.during_log_sync = Some(interlude).filter(|_| !done);
        }
        state.step();
        let content = &mut state.contents[self.which];
        let in_time = |(order, _): &mut (usize, Change)| *order <= changes;
        let pending: Vec<_> = content.pending.extract_if(.., in_time).collect();
        if self.which == 1 && std::mem::take(&mut state.loses_log) {
            let lost = std::io::Error::other("the disk does not answer");
            return Err(wal_core::Error::io(&self.path, "sync", lost));
        }
        let content = &mut state.contents[self.which];
        let durable = Arc::make_mut(&mut content.durable);
        for (_, change) in &pending {
            apply(durable, change);
        }
        // Commits that were acknowledged are in the log, or were made durable
        // in the database file before they left it.
        if self.which == 1 {
            state.promise.floor = state.promise.floor.max(acknowledged);
        }
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(lock(&self.state).now[self.which].len() as u64)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        lock(&self.state).change(self.which, Change::SetLen(index(len)));
        Ok(())
    }
}

impl Storage for Disk {
    fn database(&self) -> &dyn File {
        &self.files[0]
    }

    fn log(&self) -> &dyn File {
        &self.files[1]
    }

    fn remove_log(&self) -> Result<()> {
        self.state().change(1, Change::Remove);
        Ok(())
    }

    fn sync_directory(&self) -> Result<()> {
        let mut state = self.state();
        state.step();
        let content = &mut state.contents[1];
        let is_removal = |(_, change): &(usize, Change)| matches!(change, Change::Remove);
        if let Some(last) = content.pending.iter().rposition(is_removal) {
            content.pending.drain(..=last);
            content.durable = Arc::default();
        }
        Ok(())
    }
}

/// Simulated files are small.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
