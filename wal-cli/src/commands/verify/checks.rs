//! The checks of the log and the index.

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use wal_core::index::IndexHeader;
use wal_core::inspect::{
    CommittedPages, Content, DatabaseInfo, HeaderState, IndexCopy, IndexFault, IndexInfo, LogCheck,
    Watch, read_database,
};
use wal_core::storage::{File, MemoryFile, beside};
use wal_core::{Error, PageSize};

use super::{CheckReport, RecoveryFigures, VerifyReport, check_database};
use crate::files::Files;
use crate::look::observe;
use crate::output::Output;
use crate::output::units::{bytes, counted};

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It is as it should be.
    #[default]
    Ok,
    /// It is unusual, and harmless.
    Note,
    /// Data are lost, or what is read may be wrong.
    Damage,
}

/// The checks, in their order.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) list: Vec<CheckReport>,
    pub(crate) recovery: RecoveryFigures,
}

impl Checks {
    /// Checks `files` in the state that they had when `watch` began.
    pub(super) fn of(files: &Files, watch: &Watch<'_>, output: &Output) -> anyhow::Result<Self> {
        let mut checks = Checks::default();
        let info = read_database(&files.database)?;
        let log = match files.check_log(output) {
            Err(error) if is_unknown_version(&error) => {
                let advice = "use a newer version of walctl";
                checks.damage("log", format!("{error:#}"), advice);
                None
            }
            log => log?,
        };
        // Users of the index go by what it publishes; without any, the next one rebuilds it.
        let is_rebuilt = !files.index_is_in_use()?;
        let published = watch.published().filter(|_| !is_rebuilt);
        let log = log.map(|log| without_unpublished(log, published));
        checks.check_log(files, log.as_ref(), watch)?;
        checks.check_journal(&files.path);
        let frames = watch.published().map_or(0, IndexHeader::max_frame);
        let in_log = log.as_ref().map_or(0, |log| log.scan.max_frame());
        let index = files.copy_index(frames.min(in_log))?;
        checks.check_index(index.as_ref().zip(watch.index()), log.as_ref(), is_rebuilt);
        if index.is_none() && log.is_some() && files.are_in_use()? {
            let text = "there is none, and a process uses the database: it owns the whole of it \
                (`locking_mode=EXCLUSIVE`), and what it writes now is not told from damage";
            checks.note("index", text);
        }
        let no_log = MemoryFile::new(&files.path, Vec::new());
        let log_file = files.log.as_ref().map_or(&no_log as &dyn File, |log| log);
        let state = committed(&files.database, log_file, &info, log.as_ref(), published)?;
        checks.set_recovery(log.as_ref(), &info, watch.published());
        if let Some(state) = &state {
            check_database(state, files.database.len()?, &mut checks)?;
        } else {
            check_unknown(&info, &mut checks);
        }
        checks.add_recovery(watch.index());
        Ok(checks)
    }

    pub(crate) fn ok(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, State::Ok, text.into(), None);
    }

    pub(crate) fn note(&mut self, check: &'static str, text: impl Into<String>) {
        self.add(check, State::Note, text.into(), None);
    }

    pub(crate) fn damage(&mut self, check: &'static str, text: impl Into<String>, advice: &str) {
        self.add(check, State::Damage, text.into(), Some(advice.to_owned()));
    }

    fn add(&mut self, check: &'static str, state: State, text: String, advice: Option<String>) {
        self.list.push(CheckReport {
            check,
            state,
            text,
            advice,
        });
    }

    /// The worst of their states.
    pub(crate) fn state(&self) -> State {
        let states = self.list.iter().map(|check| check.state);
        states.max().unwrap_or_default()
    }

    pub(super) fn report(self, path: &Path) -> VerifyReport {
        VerifyReport {
            path: path.display().to_string(),
            state: self.state(),
            checks: self.list,
            recovery: self.recovery,
        }
    }

    fn check_log(
        &mut self,
        files: &Files,
        log: Option<&LogCheck>,
        watch: &Watch<'_>,
    ) -> anyhow::Result<()> {
        let Some(file) = &files.log else {
            self.ok("log", "there is none: all commits are in the database file");
            return Ok(());
        };
        let len = file.len()?;
        let Some(log) = log else {
            if self.list.is_empty() {
                self.check_bad_header(len, watch.published());
            }
            return Ok(());
        };
        let frames = counted(log.scan.max_frame(), "frame");
        let commits = counted(log.commits.len() as u64, "commit");
        let sound = match log.scan.max_frame() {
            0 => "no commit is in it".to_owned(),
            _ => format!("{frames} with {commits}; each checksum is right"),
        };
        match (log.fault, log.loses_commits()) {
            (Some((frame, fault)), true) => {
                let lost = counted(log.leftovers.lost_commits, "commit");
                let text = format!("frame {frame}: {fault}; a recovery drops {lost} behind it");
                let advice = "copy all files before the database is opened again; `walctl \
                    recover` gives the state before the damage, a backup may have more";
                self.damage("log", text, advice);
            }
            _ => self.ok("log", sound),
        }
        if let Some(frame) = log.first_frame_beyond_size() {
            let text = format!(
                "frame {frame} holds a page beyond the end of the database: a large transaction \
                 that made the database shorter leaves that"
            );
            self.note("log", text);
        }
        self.check_leftovers(log);
        Ok(())
    }

    /// A log without a valid header, which is `len` bytes long.
    fn check_bad_header(&mut self, len: u64, published: Option<&IndexHeader>) {
        let frames = published.map_or(0, IndexHeader::max_frame);
        if len <= 32 && frames == 0 {
            self.ok("log", "it is empty");
            return;
        }
        let text = format!(
            "its header is damaged: a recovery takes it for empty, and ignores all of its {}",
            bytes(len)
        );
        let advice = match frames {
            0 => "if the database lacks commits, restore a backup",
            _ => "do not end the processes that use it: copy the database with `walctl backup`",
        };
        self.damage("log", text, advice);
    }

    /// A rollback journal whose header is not cleared is rolled back by the next user.
    fn check_journal(&mut self, database: &Path) {
        let journal = beside(database, "-journal");
        let first_byte = observe(&journal).ok().flatten().and_then(|journal| {
            let mut byte = [0];
            journal
                .read_at(&mut byte, 0)
                .ok()
                .filter(|read| *read == 1)?;
            Some(byte[0])
        });
        if first_byte.is_some_and(|byte| byte != 0) {
            let text = format!(
                "{} has unfinished work: stock SQLite rolls it back when it opens the database",
                journal.display()
            );
            self.note("journal", text);
        }
    }

    fn check_leftovers(&mut self, log: &LogCheck) {
        let left = &log.leftovers;
        let mut parts = Vec::new();
        if log.scan.uncommitted > 0 {
            let frames = counted(log.scan.uncommitted, "frame");
            parts.push(format!("{frames} of a transaction without a commit"));
        }
        for generation in &left.generations {
            let frames = counted(generation.frames, "frame");
            parts.push(match generation.restarts {
                Some(1) => format!("{frames} of the generation before"),
                Some(restarts) => format!("{frames} of {restarts} generations ago"),
                None => format!("{frames} of another generation"),
            });
        }
        let others: u64 = left.generations.iter().map(|of| of.frames).sum();
        let here = left.frames.saturating_sub(others);
        if here > 0 && left.lost_commits == 0 {
            let frames = counted(here, "frame");
            parts.push(format!("{frames} being written"));
        }
        if left.trailing_bytes > 0 {
            parts.push(format!("{} bytes of a frame", left.trailing_bytes));
        }
        match parts.is_empty() {
            true => self.ok("leftovers", "there are none"),
            false => {
                let all = parts.join(", ");
                self.ok(
                    "leftovers",
                    format!("{all}: harmless, the next commits replace them"),
                );
            }
        }
    }

    fn check_index(
        &mut self,
        index: Option<(&IndexCopy, &IndexInfo)>,
        log: Option<&LogCheck>,
        is_rebuilt: bool,
    ) {
        let Some((index, info)) = index else {
            self.ok(
                "index",
                "there is none: the next user builds it from the log",
            );
            return;
        };
        let rebuilds = "the next user rebuilds it from the log";
        match info.header {
            HeaderState::Valid(header) => {
                let is_moved = info.backfilled() == info.max_frame();
                self.check_valid_index(index, &header, log, (is_rebuilt, is_moved));
            }
            HeaderState::NeverWritten => self.ok("index", format!("it is empty: {rebuilds}")),
            HeaderState::CopiesDiffer => {
                let text = "the copies of its header differ: its writer died between them";
                self.note("index", format!("{text}; {rebuilds}"));
            }
            HeaderState::Damaged if is_rebuilt => {
                let text = "the checksum of its header is wrong";
                self.note("index", format!("{text}; {rebuilds}"));
            }
            HeaderState::UnknownVersion(version) => {
                let text = format!("its version {version} is not known");
                self.damage("index", text, "use a newer version of walctl");
            }
            _ => {
                let text = format!("the checksum of its header is wrong; {rebuilds}");
                let advice = "find out which program wrote to -shm: `walctl doctor`";
                self.damage("index", text, advice);
            }
        }
    }

    fn check_valid_index(
        &mut self,
        index: &IndexCopy,
        header: &IndexHeader,
        log: Option<&LogCheck>,
        (is_rebuilt, is_moved): (bool, bool),
    ) {
        let frames = header.max_frame();
        if frames == 0 {
            let text = "both copies of its header are sound; all commits are in the database file";
            self.ok("index", text);
            return;
        }
        let Some(log) = log else {
            let text = format!(
                "it publishes {}, and there is no log that has them",
                counted(frames, "frame")
            );
            match is_rebuilt && is_moved {
                true => self.note("index", format!("{text}; they are in the database file")),
                false => {
                    let advice = "find a process that has the log open (`walctl doctor`), and \
                        take it from there: `walctl recover --from-pid`";
                    self.damage("index", text, advice);
                }
            }
            return;
        };
        let faults = index.compare(header, log);
        let Some(first) = faults.first.first() else {
            let frames = counted(frames, "frame");
            let text = format!("both copies of its header are sound; readers find {frames}");
            self.ok("index", text);
            return;
        };
        let more = match faults.count - 1 {
            0 => String::new(),
            more => format!(" (and {})", counted(more, "more fault")),
        };
        let text = format!("{first}{more}");
        match first {
            IndexFault::Generation { .. } if is_rebuilt => {
                self.note(
                    "index",
                    format!("{text}; no process uses it, so the next user rebuilds it"),
                );
            }
            IndexFault::CommitLost { .. } | IndexFault::OtherCommit { .. } => {
                let advice = "copy all files before the database is opened again; then see what \
                    `walctl recover` gives";
                self.damage("index", text, advice);
            }
            _ if is_rebuilt => {
                self.note(
                    "index",
                    format!("{text}; no process uses it, so the next user rebuilds it"),
                );
            }
            _ => {
                let advice = "end all processes that use the database: the next user rebuilds \
                    the index from the log";
                self.damage("index", text, advice);
            }
        }
    }

    fn set_recovery(
        &mut self,
        log: Option<&LogCheck>,
        info: &DatabaseInfo,
        published: Option<&IndexHeader>,
    ) {
        let in_file = pages_in_file(info);
        self.recovery.pages = in_file;
        if let Some(log) = log {
            let scan = &log.scan;
            self.recovery = RecoveryFigures {
                frames: scan.max_frame(),
                commits: log.commits.len() as u64,
                pages: match scan.max_frame() {
                    0 => in_file,
                    _ => Some(scan.page_count),
                },
                generation: Some(format!("{:?}", scan.header.salts)),
                dropped_frames: log.leftovers.frames + u64::from(scan.uncommitted),
                lost_commits: log.leftovers.lost_commits,
                equals_index: None,
            };
        }
        self.recovery.equals_index = published.map(|header| equals(header, log));
    }

    fn add_recovery(&mut self, index: Option<&IndexInfo>) {
        let text = self.recovery.text();
        let frames = self.recovery.frames;
        let Some(index) = index.filter(|index| index.max_frame() > frames) else {
            return self.ok("recovery", text);
        };
        let text = format!("{text} ({})", counted(index.max_frame(), "frame"));
        match (frames, index.backfilled() == index.max_frame()) {
            (0, true) => {
                let text = format!("{text}; all of them are in the database file");
                self.ok("recovery", text);
            }
            (_, true) => {
                let text = format!(
                    "{text}; all of them are in the database file, over which it lays older pages"
                );
                let advice = "do not open the database: `walctl recover` gives the newest state";
                self.damage("recovery", text, advice);
            }
            (_, false) => {
                let advice = "the commits that are missing are lost unless a process still has \
                    their log open";
                self.damage("recovery", text, advice);
            }
        }
    }
}

/// The check of a log that is in use. What lies behind the published frames is being written, and
/// was read at different moments: it is neither damaged nor lost.
fn without_unpublished(mut log: LogCheck, published: Option<&IndexHeader>) -> LogCheck {
    let is_published = published.is_some_and(|header| {
        let is_of_log = header.salts() == log.scan.header.salts;
        is_of_log && header.max_frame() <= log.scan.max_frame() || header.max_frame() == 0
    });
    if is_published {
        log.leftovers.lost_commits = 0;
    }
    log
}

/// Whether a recovery gives the state that `header` publishes, or a later one.
fn equals(header: &IndexHeader, log: Option<&LogCheck>) -> bool {
    match (header.max_frame(), log) {
        // All frames of the older generation are in the database file.
        (0, _) => true,
        (_, None) => false,
        (frames, Some(log)) => {
            let commit = log.commit_at(frames);
            header.salts() == log.scan.header.salts
                && commit.is_some_and(|commit| commit.checksum == header.frame_checksum())
        }
    }
}

/// The size of the database by its file.
pub(crate) fn pages_in_file(info: &DatabaseInfo) -> Option<u32> {
    let by_header = match &info.content {
        Content::Sqlite(header) => header.page_count,
        _ => None,
    };
    let page_size = u64::from(info.page_size()?.bytes());
    by_header.or_else(|| u32::try_from(info.len / page_size).ok())
}

/// The state that users of the database see: what `published` says, or a recovery gives. `None`
/// if no file names the page size.
fn committed<'a>(
    database: &'a dyn File,
    log_file: &'a dyn File,
    info: &DatabaseInfo,
    log: Option<&LogCheck>,
    published: Option<&IndexHeader>,
) -> anyhow::Result<Option<CommittedPages<'a>>> {
    let frames = match (published, log) {
        (Some(header), Some(_)) if header.max_frame() == 0 => 0,
        (Some(header), Some(log)) if header.salts() == log.scan.header.salts => {
            header.max_frame().min(log.scan.max_frame())
        }
        (_, log) => log.map_or(0, |log| log.scan.max_frame()),
    };
    let by_log = log.filter(|_| frames > 0);
    let by_log = by_log.and_then(|log| Some((log, log.commit_at(frames)?)));
    let state: Option<(PageSize, u32, &[u32])> = match by_log {
        Some((log, commit)) => {
            let pages = &log.scan.pages[..frames as usize];
            Some((log.scan.header.page_size, commit.page_count, pages))
        }
        None => info
            .page_size()
            .zip(pages_in_file(info))
            .map(|(size, count)| (size, count, &[][..])),
    };
    Ok(state.map(|(page_size, page_count, frames)| {
        CommittedPages::new(database, log_file, page_size, page_count, frames)
    }))
}

/// A database whose page size is not known.
fn check_unknown(info: &DatabaseInfo, checks: &mut Checks) {
    let advice = "restore a backup; of an encrypted database only its own program can tell";
    match &info.content {
        Content::Empty => checks.ok("page 1", "the database is empty"),
        Content::UnknownStoreVersion(version) => {
            let text = format!("it is of a page store of version {version}, which is not known");
            checks.damage("page 1", text, "use a newer version of walctl");
        }
        Content::DamagedStore => checks.damage("page 1", "it is a damaged page store", advice),
        _ => {
            let text = "it is neither of a SQLite database nor of a page store";
            checks.damage("page 1", text, advice);
        }
    }
}

fn is_unknown_version(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<Error>(),
        Some(Error::CannotOpen { .. })
    )
}
