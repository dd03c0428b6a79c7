//! The figures of a database at one moment, for `info`, `top` and `metrics`.
//!
//! They are looked up one after the other while the database is in use, so two of them may be
//! of different commits. Each is what a user of the database saw at some time of the look.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::Serialize;
use wal::{CheckpointMode, LockKind, PageSize, Salts};
use wal_core::inspect::{Content, HeaderState, IndexInfo, forecast, recovery_time};
use wal_core::{LockMode, ReadSlot};
use wal_shm::inspect::{Census, DatabaseFile, LockByte, ProcessInfo, SlotInfo};

use crate::look::Look;
use crate::output::units;

/// The figures of a database at one moment.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Figures {
    /// The path of the database, without symbolic links.
    pub(crate) path: String,
    /// When the look began, RFC 3339.
    pub(crate) time: String,
    /// The database file.
    pub(crate) database: DatabaseFigures,
    /// The log; null if there is none.
    pub(crate) log: Option<LogFigures>,
    /// The state of the wal-index: `valid`, `missing`, `never written`, `being published`,
    /// `damaged`, or `unknown version`.
    pub(crate) index: &'static str,
    /// The five read slots; empty if the index is missing.
    pub(crate) slots: Vec<SlotFigures>,
    /// What a checkpoint of each mode that waits for no lock would do now; empty if the
    /// index is not valid.
    pub(crate) checkpoints: Vec<CheckpointFigures>,
    /// The processes that hold locks on the files.
    pub(crate) processes: Vec<ProcessFigures>,
    /// The files that are there.
    pub(crate) files: Vec<FileFigures>,
    /// What could not be seen, a sentence each; empty if nothing is missing.
    pub(crate) unseen: Vec<String>,
}

/// What the database file is.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct DatabaseFigures {
    /// `sqlite`, `page store`, `damaged page store`, `newer page store`, `empty` or `other`.
    pub(crate) kind: &'static str,
    /// `wal` or `rollback`, by the header in the file; null if it is no SQLite database.
    pub(crate) journal_mode: Option<&'static str>,
    /// The size of a page in bytes; null if the file does not name it.
    pub(crate) page_size: Option<u32>,
    /// The pages of the newest committed state, as `PRAGMA page_count` gives them.
    pub(crate) pages: Option<u64>,
    /// The length of the file in bytes.
    pub(crate) bytes: u64,
}

/// What is in the log.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct LogFigures {
    /// The length of the file in bytes.
    pub(crate) bytes: u64,
    /// The committed frames of the present generation.
    pub(crate) frames: u32,
    /// Those of them that are in the database file.
    pub(crate) backfilled: u32,
    /// The frames that the file has room for; those behind the committed ones are leftovers.
    pub(crate) frames_on_disk: u64,
    /// The generation of the log, by its salts in hexadecimal digits.
    pub(crate) generation: Option<String>,
    /// The checkpoint sequence number of the header of the log.
    pub(crate) checkpoint_sequence: Option<u32>,
    /// The commits since the last recovery, from a counter of 32 bits that wraps.
    pub(crate) commits: Option<u32>,
    /// How long a recovery of the log takes on this machine, in seconds, by a sample of its
    /// start; null where it was not estimated.
    pub(crate) recovery_s: Option<f64>,
}

/// A read slot.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct SlotFigures {
    /// Its number, 0 to 4. Readers of slot 0 read the database file alone.
    pub(crate) slot: u8,
    /// The frame up to which its readers read the log; null if it has no mark.
    pub(crate) frame: Option<u32>,
    /// `shared`, `exclusive`, or null if it is free.
    pub(crate) held: Option<&'static str>,
    /// The processes that hold it, as far as they are known.
    pub(crate) holders: Vec<u32>,
    /// Whether there are holders that are not known.
    pub(crate) has_unknown_holders: bool,
}

/// What a checkpoint would do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct CheckpointFigures {
    /// `passive`, `full`, `restart` or `truncate`.
    pub(crate) mode: &'static str,
    /// The frames that would be in the database file afterwards.
    pub(crate) backfilled: u32,
    /// The lock that keeps it from its goal; null if it would reach it.
    pub(crate) blocked_by: Option<BlockerFigures>,
}

/// What blocks a checkpoint.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct BlockerFigures {
    /// The name of the lock in SQLite.
    pub(crate) lock: String,
    /// The frame up to which its holders read the log; null if they do not read it.
    pub(crate) frame: Option<u32>,
    /// The processes that hold it, as far as they are known.
    pub(crate) holders: Vec<u32>,
}

/// A process that holds a lock.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub(crate) struct ProcessFigures {
    /// Its number.
    pub(crate) pid: u32,
    /// Its command line; null if it has ended or is hidden.
    pub(crate) command: Option<String>,
    /// The user that it runs as, by name or number.
    pub(crate) user: Option<String>,
    /// When it started, RFC 3339: it acquired no lock before.
    pub(crate) started: Option<String>,
    /// Whether it is stopped, by SIGSTOP or a debugger: it keeps its locks.
    pub(crate) is_stopped: bool,
}

/// A file of the database.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct FileFigures {
    /// `database`, `wal`, `shm` or `coord`.
    pub(crate) file: &'static str,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// The user that owns it, by name or number.
    pub(crate) owner: String,
    /// Its permissions, as `chmod` takes them.
    pub(crate) mode: String,
    /// When it was changed last, RFC 3339. Stores to a mapped file show late or never.
    pub(crate) modified: Option<String>,
}

impl Figures {
    /// Looks at the database at `path`. The search for lock holders takes no longer than
    /// `budget`.
    pub(crate) fn of(path: &Path, budget: Duration) -> anyhow::Result<Self> {
        let time = units::time(SystemTime::now());
        // The holders first: a slot whose reader has gone since is shown as held, with the
        // mark that the reader had, and not as free with the mark of another reader.
        let census = Census::take(&crate::look::resolve(path)?, budget)?;
        let look = Look::at(path)?;
        Ok(Self::put_together(time, &look, &census))
    }

    /// The same, with an estimate of the time that a recovery takes, for which up to 8 MiB of
    /// the log are read.
    pub(crate) fn with_recovery_time(path: &Path, budget: Duration) -> anyhow::Result<Self> {
        let mut figures = Self::of(path, budget)?;
        let file = crate::look::observe(&DatabaseFile::Log.path(Path::new(&figures.path)))?;
        if let (Some(log), Some(file)) = (&mut figures.log, file) {
            let time = recovery_time(&file, log.frames)?;
            log.recovery_s = time.map(|time| time.as_secs_f64());
        }
        Ok(figures)
    }

    pub(crate) fn put_together(time: String, look: &Look, census: &Census) -> Self {
        let slots = look.index.as_ref().map(|index| census.slots(index));
        Figures {
            path: look.path.display().to_string(),
            time,
            database: database(look),
            log: log(look),
            index: index_state(look.index.as_ref()),
            slots: slots.iter().flatten().map(SlotFigures::of).collect(),
            checkpoints: checkpoints(look.index.as_ref(), census),
            processes: census.processes.values().map(ProcessFigures::of).collect(),
            files: files(&look.path),
            unseen: census.unseen.iter().map(ToString::to_string).collect(),
        }
    }

    /// The process with this number, if it holds a lock.
    pub(crate) fn process(&self, pid: u32) -> Option<&ProcessFigures> {
        self.processes.iter().find(|process| process.pid == pid)
    }
}

fn database(look: &Look) -> DatabaseFigures {
    let (kind, journal_mode) = match look.database_info.content {
        Content::Sqlite(header) if header.is_wal() => ("sqlite", Some("wal")),
        Content::Sqlite(_) => ("sqlite", Some("rollback")),
        Content::PageStore(_) => ("page store", None),
        Content::DamagedStore => ("damaged page store", None),
        Content::UnknownStoreVersion(_) => ("newer page store", None),
        Content::Empty => ("empty", None),
        _ => ("other", None),
    };
    let page_size = look.page_size();
    DatabaseFigures {
        kind,
        journal_mode,
        page_size: page_size.map(PageSize::bytes),
        pages: pages(look, page_size),
        bytes: look.database_info.len,
    }
}

/// As SQLite counts them (`pagerPagecount`): the index has the size of the newest commit, and
/// without one the length of the file counts.
fn pages(look: &Look, page_size: Option<PageSize>) -> Option<u64> {
    let by_index = look.index.as_ref().and_then(IndexInfo::valid_header);
    let by_index = by_index.map(|header| header.page_count());
    let by_log = || look.recovered.as_ref().map(|scan| scan.page_count);
    match by_index.or_else(by_log) {
        Some(pages) if pages > 0 => Some(u64::from(pages)),
        _ => Some(look.database_info.len.div_ceil(page_size?.len() as u64)),
    }
}

fn log(look: &Look) -> Option<LogFigures> {
    let (_, info) = look.log.as_ref()?;
    let header = look.index.as_ref().and_then(IndexInfo::valid_header);
    let log_header = info.valid_header();
    let salts = header.map(|header| header.salts());
    let salts = salts.or(log_header.map(|header| header.salts));
    let by_index = look.index.as_ref().filter(|_| header.is_some());
    let recovered = look.recovered.as_ref().map_or(0, |scan| scan.max_frame());
    let page_size = look.page_size();
    Some(LogFigures {
        bytes: info.len,
        frames: by_index.map_or(recovered, IndexInfo::max_frame),
        backfilled: by_index.map_or(0, IndexInfo::backfilled),
        frames_on_disk: page_size.map_or(0, |page_size| info.frames_on_disk(page_size)),
        generation: salts.map(hexadecimal),
        checkpoint_sequence: log_header.map(|header| header.sequence),
        commits: header.map(|header| header.change()),
        recovery_s: None,
    })
}

/// The salts in hexadecimal digits.
pub(crate) fn hexadecimal(Salts(bytes): Salts) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn index_state(index: Option<&IndexInfo>) -> &'static str {
    match index.map(|index| index.header) {
        None => "missing",
        Some(HeaderState::Valid(_)) => "valid",
        Some(HeaderState::NeverWritten) => "never written",
        Some(HeaderState::CopiesDiffer) => "being published",
        Some(HeaderState::UnknownVersion(_)) => "unknown version",
        Some(_) => "damaged",
    }
}

impl SlotFigures {
    fn of(slot: &SlotInfo) -> Self {
        SlotFigures {
            slot: u8::try_from(slot.slot.index()).unwrap_or(u8::MAX),
            frame: slot.frame,
            held: slot.mode.map(mode_name),
            holders: slot.holders.clone(),
            has_unknown_holders: slot.has_unknown_holders,
        }
    }

    /// The name of its lock in SQLite.
    pub(crate) fn lock(&self) -> String {
        format!("READ({})", self.slot)
    }
}

/// How a lock is held.
pub(crate) fn mode_name(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Shared => "shared",
        LockMode::Exclusive => "exclusive",
    }
}

/// Whether a lock belongs to a process or to an open file description.
pub(crate) fn kind_name(kind: LockKind) -> &'static str {
    match kind {
        LockKind::OpenFileDescription => "OFD",
        _ => "POSIX",
    }
}

/// The modes with their names.
pub(crate) const MODES: [(CheckpointMode, &str); 4] = [
    (CheckpointMode::Passive, "passive"),
    (CheckpointMode::Full, "full"),
    (CheckpointMode::Restart, "restart"),
    (CheckpointMode::Truncate, "truncate"),
];

fn checkpoints(index: Option<&IndexInfo>, census: &Census) -> Vec<CheckpointFigures> {
    let held = census.held_locks();
    let all = MODES.into_iter().filter_map(|(mode, name)| {
        let forecast = forecast(index?, &held, mode)?;
        let blocked_by = forecast.blocked_by.map(|blocker| {
            let byte = LockByte::Protocol(blocker.lock);
            let mut holders: Vec<u32> = census
                .held()
                .filter(|held| held.byte == byte)
                .filter_map(|held| held.pid)
                .collect();
            holders.dedup();
            BlockerFigures {
                lock: byte.to_string(),
                frame: blocker.frame,
                holders,
            }
        });
        Some(CheckpointFigures {
            mode: name,
            backfilled: forecast.backfilled,
            blocked_by,
        })
    });
    all.collect()
}

impl ProcessFigures {
    pub(crate) fn of(process: &ProcessInfo) -> Self {
        ProcessFigures {
            pid: process.pid,
            command: process.command.clone(),
            user: process.user.map(user_name),
            started: process.started.map(units::time),
            is_stopped: process.is_stopped,
        }
    }
}

/// The name of a user, or its number where it has none.
pub(crate) fn user_name(id: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(id));
    let name = user.ok().flatten().map(|user| user.name);
    name.unwrap_or_else(|| id.to_string())
}

/// The name of a file in reports.
pub(crate) fn file_name(file: DatabaseFile) -> &'static str {
    match file {
        DatabaseFile::Database => "database",
        DatabaseFile::Log => "wal",
        DatabaseFile::Index => "shm",
        DatabaseFile::Side => "coord",
    }
}

fn files(database: &Path) -> Vec<FileFigures> {
    let mut owners = BTreeMap::new();
    let all = DatabaseFile::ALL.into_iter().filter_map(|file| {
        let metadata = fs::metadata(file.path(database)).ok()?;
        let owner = owners.entry(metadata.uid());
        Some(FileFigures {
            file: file_name(file),
            bytes: metadata.len(),
            owner: owner.or_insert_with(|| user_name(metadata.uid())).clone(),
            mode: format!("{:o}", metadata.permissions().mode() & 0o7777),
            modified: metadata.modified().ok().map(units::time),
        })
    });
    all.collect()
}

/// The slots that hold back a checkpoint: held, with a mark before `frames`.
pub(crate) fn pins(slots: &[SlotFigures], frames: u32) -> impl Iterator<Item = &SlotFigures> {
    let is_of_log = |slot: &&SlotFigures| usize::from(slot.slot) != ReadSlot::DATABASE.index();
    let held = slots
        .iter()
        .filter(is_of_log)
        .filter(|slot| slot.held.is_some());
    held.filter(move |slot| slot.frame.is_some_and(|frame| frame < frames))
}
