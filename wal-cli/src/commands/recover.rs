//! `walctl recover`
//!
//! # Which database is read
//! A database that no process uses is read as it lies there. One that is in use is refused:
//! `walctl backup` copies it in one snapshot. With `--from-pid` the files are those that the
//! process has open, and what is read is one committed state of them, or the command fails
//! (`wal_core::inspect::Watch`).

use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use wal_core::format::DatabaseHeader;
use wal_core::inspect::{CommittedPages, LogCheck, PageSource, Watch, read_database, read_index};
use wal_core::protocol::refuse_leftovers;
use wal_core::storage::{File, FileSyncType, MemoryFile, NewFile, OpenMode, OsFile, beside};
use wal_core::{PageNo, PageSize};
use wal_shm::inspect::{DatabaseFile, OpenFile, OpenFiles};

use super::verify::{CheckReport, Checks, State, check_database, pages_in_file};
use crate::exit::Exit;
use crate::files::{Files, Users};
use crate::interrupt::{self, Interrupt};
use crate::look::observe;
use crate::output::units::{bytes, counted};
use crate::output::{Output, Report, STRONG, WARN, escape, paint};

/// How often the files of a process are read again because it changed them.
const ATTEMPTS: u32 = 5;
/// The bytes that one write takes.
const RUN_LEN: usize = 1 << 20;

/// Copies the newest committed state out of damaged files, which it leaves as they are.
///
/// It lays the valid prefix of the log over the database file, as a recovery by SQLite does, and
/// writes that to a new file, which has no log. The new file appears under its name when it is
/// whole and durable. What was dropped is reported, and the new file is checked as by `walctl
/// verify`; it exits with 5 if that finds damage.
///
/// A database that is in use is refused: use `walctl backup`. A log that was removed while a
/// process still has it open is lost when that process ends: take it with `--from-pid` before.
#[derive(Args)]
#[command(after_help = "Examples:
  walctl recover app.db --to new.db
  walctl recover app.db --log copy-of-app.db-wal --to new.db
  walctl recover app.db --from-pid 4711 --to new.db   the files that process 4711 has open
  sqlite3 new.db 'PRAGMA integrity_check'             what to run afterwards")]
pub(crate) struct Recover {
    /// The database. With --from-pid it may have been removed.
    database: PathBuf,
    /// The file to write, which does not exist.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The log, if it is not the one beside the database.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Takes the database and the log from the files that this process has open.
    #[arg(long, value_name = "PID", conflicts_with = "log")]
    from_pid: Option<u32>,
    /// How long to search for the processes that use the database.
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    budget: humantime::Duration,
}

/// What was recovered.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RecoverReport {
    /// The database file that was read.
    database: String,
    /// The log that was read; null if there is none.
    log: Option<String>,
    /// The new file.
    to: String,
    /// Its length in bytes.
    bytes: u64,
    /// Its pages.
    pages: u32,
    /// Those of them that are from the log.
    pages_from_log: u32,
    /// The pages that neither file has: zeros, or left out at the end.
    missing_pages: u32,
    /// The frames of the log that were taken.
    frames: u32,
    /// The transactions in them.
    commits: u64,
    /// The frames behind those, which were dropped: leftovers, or lost with what follows.
    dropped_frames: u64,
    /// The commits of this generation of the log among the dropped frames.
    lost_commits: u64,
    /// What was wrong with the files or is worth knowing, a sentence each.
    notes: Vec<String>,
    /// Whether the checks of the new file found no damage.
    is_consistent: bool,
    /// The checks of the new file.
    checks: Vec<CheckReport>,
}

impl Recover {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        if self.to.symlink_metadata().is_ok() {
            bail!(
                "{}: it exists; choose a name for a new file",
                self.to.display()
            );
        }
        refuse_leftovers(&self.to)?;
        let interrupt = interrupt::catch()?;
        let report = self.recover(output, interrupt)?;
        let is_consistent = report.is_consistent;
        output.print(&report)?;
        Ok(if is_consistent {
            Exit::Done
        } else {
            Exit::Damage
        })
    }

    fn recover(&self, output: &Output, interrupt: Interrupt) -> anyhow::Result<RecoverReport> {
        for _ in 0..ATTEMPTS {
            let (files, notes) = self.sources()?;
            let watch = files.watch()?;
            let job = Job {
                recover: self,
                files: &files,
                output,
                interrupt,
            };
            let (mut new, mut report) = job.copy(&watch)?;
            if !watch.holds()? {
                continue;
            }
            report.notes.extend(notes);
            new.close();
            new.name_new(&self.to)?;
            return Ok(report);
        }
        let error = wal::Error::Protocol {
            path: self.database.clone(),
            attempts: ATTEMPTS,
        };
        let text = format!(
            "{}: it changed during each attempt; stop its writers (`kill -STOP`) and try again",
            self.database.display()
        );
        Err(anyhow::Error::from(error).context(text))
    }

    /// The files to read, and what is worth knowing about them.
    fn sources(&self) -> anyhow::Result<(Files, Vec<String>)> {
        let budget: Duration = self.budget.into();
        if let Some(pid) = self.from_pid {
            return of_process(&self.database, pid, budget);
        }
        let mut files = Files::at(&self.database)?;
        refuse_journal(&files.path)?;
        let users = Users::of(&files.path, budget)?;
        if files.are_in_use()? || !users.pids.is_empty() {
            let path = files.path.clone();
            let who = match &users.pids[..] {
                [] => "a process that is not known".to_owned(),
                pids => format!(
                    "process {}",
                    pids.iter()
                        .map(u32::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            let error = wal::Error::Locked { path: path.clone() };
            let text = format!(
                "{}: it is in use by {who}: copy it with `walctl backup`, take the files that a \
                 process has open with `--from-pid`, or end its users",
                path.display()
            );
            return Err(anyhow::Error::from(error).context(text));
        }
        let mut notes: Vec<String> = users
            .unseen
            .iter()
            .map(|of| format!("not seen: {of}"))
            .collect();
        if let Some(log) = &self.log {
            let opened = observe(log)?;
            let opened =
                opened.with_context(|| format!("{}: there is no such file", log.display()))?;
            files.log = Some(opened);
            // It is of another log.
            files.index = None;
        } else if let (None, Some(index)) = (&files.log, &files.index)
            && let Some(info) = read_index(index)?
            && info.max_frame() > info.backfilled()
        {
            let frames = counted(info.max_frame() - info.backfilled(), "frame");
            notes.push(format!(
                "the log is gone, with {frames} that the index publishes"
            ));
        }
        Ok((files, notes))
    }
}

/// The files of `database` that process `pid` has open.
fn of_process(database: &Path, pid: u32, budget: Duration) -> anyhow::Result<(Files, Vec<String>)> {
    let open = OpenFiles::of_process(database, pid, budget)?;
    let shown = database.display();
    if let (true, Some(unseen)) = (open.files.is_empty(), open.unseen.first()) {
        bail!("{shown}: process {pid} cannot be looked into: {unseen}");
    }
    let of_kind = |kind| open.files.iter().filter(move |file| file.file == kind);
    let open_link = |file: &OpenFile| {
        let opened = OsFile::open(&file.link(), OpenMode::ObservedByLink);
        opened.with_context(|| {
            format!(
                "{shown}: process {pid} has closed its {}",
                file.file.suffix()
            )
        })
    };
    // What was removed is nowhere else.
    let removed_first = |kind| {
        let mut files: Vec<&OpenFile> = of_kind(kind).collect();
        files.sort_by_key(|file| file.is_current);
        files
    };
    let index = removed_first(DatabaseFile::Index)
        .first()
        .map(|file| open_link(file));
    let index = index.transpose()?;
    let published = index
        .as_ref()
        .map(|index| read_index(index))
        .transpose()?
        .flatten();
    let salts = published
        .as_ref()
        .and_then(|info| Some(info.valid_header()?.salts()));
    let mut notes = Vec::new();
    let mut log = None;
    let logs = removed_first(DatabaseFile::Log);
    for file in &logs {
        let opened = open_link(file)?;
        let info = wal_core::inspect::read_log(&opened)?;
        let is_published = info.valid_header().map(|header| header.salts) == salts;
        if log.is_none() || (is_published && salts.is_some()) {
            log = Some((opened, *file));
            if is_published {
                break;
            }
        }
    }
    if logs.len() > 1 {
        notes.push(format!(
            "process {pid} has {} logs of this name open",
            logs.len()
        ));
    }
    if let Some((_, file)) = &log {
        let state = if file.is_current {
            "lies beside the database"
        } else {
            "was removed or replaced"
        };
        notes.push(format!("the log that process {pid} has open {state}"));
    }
    let of_process = removed_first(DatabaseFile::Database)
        .first()
        .map(|file| open_link(file));
    let opened = match of_process {
        Some(opened) => opened?,
        None => {
            let opened = observe(database)?;
            opened.with_context(|| format!("{shown}: process {pid} does not have it open"))?
        }
    };
    if log.is_none() {
        bail!("{shown}: process {pid} has no log of it open");
    }
    let files = Files {
        path: database.to_owned(),
        database: opened,
        log: log.map(|(log, _)| log),
        index,
    };
    Ok((files, notes))
}

/// A rollback journal has pages that the database file lacks.
fn refuse_journal(database: &Path) -> anyhow::Result<()> {
    let path = beside(database, "-journal");
    let mut byte = [0];
    let has_work = match observe(&path)? {
        Some(journal) => journal.read_at(&mut byte, 0)? == 1 && byte[0] != 0,
        None => false,
    };
    match has_work {
        true => Err(wal::Error::HotJournal { path }.into()),
        false => Ok(()),
    }
}

/// A recovery of `files`.
struct Job<'a> {
    recover: &'a Recover,
    files: &'a Files,
    output: &'a Output,
    interrupt: Interrupt,
}

impl Job<'_> {
    /// Writes the state to a new file, which has no name yet, and checks that.
    fn copy(&self, watch: &Watch<'_>) -> anyhow::Result<(NewFile, RecoverReport)> {
        let files = self.files;
        let check = files.check_log(self.output)?;
        // A process that uses the files goes by its index, and may be writing behind it.
        let published = watch.published().filter(|header| {
            let of_log = check.as_ref().is_some_and(|check| {
                let scan = &check.scan;
                header.salts() == scan.header.salts && header.max_frame() <= scan.max_frame()
            });
            self.recover.from_pid.is_some() && of_log
        });
        let mut notes = notes_of(check.as_ref(), files, published.is_some())?;
        let in_log = check.as_ref().map_or(0, |check| check.scan.max_frame());
        let frames = published.map_or(in_log, |header| header.max_frame());
        let no_log = MemoryFile::new(&files.path, Vec::new());
        let log = files.log.as_ref().map_or(&no_log as &dyn File, |log| log);
        let pages = self.state(log, check.as_ref(), frames, &mut notes)?;
        let (wanted, available) = (pages.page_count(), pages.available()?);
        let pages = pages.with_page_count(available);
        let new = NewFile::beside(&self.recover.to, Some(&files.database))?;
        let mut copied = self.write(&pages, new.file()?)?;
        copied.missing += wanted - available;
        let mut checks = Checks::default();
        let len = new.file()?.len()?;
        let alone = CommittedPages::new(
            new.file()?,
            &no_log,
            pages.page_size(),
            pages.page_count(),
            &[],
        );
        check_database(&alone, len, &mut checks)?;
        if copied.missing > 0 {
            let missing = counted(copied.missing, "page");
            notes.push(format!("{missing} of the database: in neither file"));
        }
        let is_consistent = checks.state() != State::Damage && copied.missing == 0;
        let commits = check.as_ref().map_or(0, |check| {
            check
                .commits
                .iter()
                .filter(|commit| commit.frame <= frames)
                .count() as u64
        });
        let left = check.as_ref().map(|check| &check.leftovers);
        // A process that writes behind the published frames loses nothing.
        let lost = left
            .filter(|_| published.is_none())
            .map_or(0, |left| left.lost_commits);
        let scanned = check.as_ref().map_or(0, |check| {
            u64::from(check.scan.max_frame() - frames) + u64::from(check.scan.uncommitted)
        });
        let report = RecoverReport {
            database: files.database.path().display().to_string(),
            log: files
                .log
                .as_ref()
                .map(|log| log.path().display().to_string()),
            to: self.recover.to.display().to_string(),
            bytes: len,
            pages: pages.page_count(),
            pages_from_log: copied.from_log,
            missing_pages: copied.missing,
            frames,
            commits,
            dropped_frames: scanned + left.map_or(0, |left| left.frames),
            lost_commits: lost,
            notes,
            is_consistent,
            checks: checks.list,
        };
        Ok((new, report))
    }

    /// The state after the first `frames` frames of the log.
    fn state<'p>(
        &'p self,
        log: &'p dyn File,
        check: Option<&LogCheck>,
        frames: u32,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<CommittedPages<'p>> {
        let database: &dyn File = &self.files.database;
        let info = read_database(database)?;
        let by_file = info.page_size();
        let commit = check.and_then(|check| Some((check, check.commit_at(frames)?)));
        let Some((check, commit)) = commit else {
            let known = by_file.zip(pages_in_file(&info));
            let (size, count) = known.with_context(|| {
                let path = self.files.path.display();
                format!(
                    "{path}: its first page is damaged and the log has no commit, so nothing \
                     tells its page size; restore a backup"
                )
            })?;
            return Ok(CommittedPages::new(database, log, size, count, &[]));
        };
        let size = check.scan.header.page_size;
        let in_log = &check.scan.pages[..frames as usize];
        let pages = CommittedPages::new(database, log, size, commit.page_count, in_log);
        if by_file.is_some_and(|by_file| by_file != size) {
            self.check_page_size(&pages, size, notes)?;
        } else if by_file.is_none() && info.len > 0 {
            notes.push("page 1 of the database file is damaged".to_owned());
        }
        Ok(pages)
    }

    /// The page 1 in the database file names another page size than the log: it is damaged, if
    /// the log has a page 1 of its own page size; else the log is that of another database.
    fn check_page_size(
        &self,
        pages: &CommittedPages<'_>,
        size: PageSize,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let mut page_one = vec![0; size.len()];
        let source = pages.read(PageNo::ONE, &mut page_one)?;
        let header = DatabaseHeader::decode(&page_one);
        let is_sound = header.is_some_and(|header| header.page_size().ok() == Some(size));
        if matches!(source, PageSource::Log(_)) && is_sound {
            notes.push("page 1 of the database file names another page size".to_owned());
            return Ok(());
        }
        bail!(
            "{}: its page size is not {size}, as in the log: the log is that of another \
             database; name the right one with --log, or restore a backup",
            self.files.path.display()
        )
    }

    /// Writes all pages to `new`, durably.
    fn write(&self, pages: &CommittedPages<'_>, new: &OsFile) -> anyhow::Result<Copied> {
        let size = pages.page_size();
        let total = pages.page_count();
        let len = u64::from(total) * u64::from(size.bytes());
        if new.free_space().is_some_and(|free| free < len) {
            let to = self.recover.to.display();
            bail!("{to}: its file system has no room for {}", bytes(len));
        }
        new.set_len(len)?;
        let mut progress = self.output.progress("writing the new file", len);
        let mut copied = Copied::default();
        let mut run = vec![0; RUN_LEN];
        let mut next = 1;
        while next <= total {
            if self.interrupt.is_set() {
                bail!("interrupted; no file is left");
            }
            let first = PageNo::new(next)?;
            let (mut used, mut is_hole) = (0, true);
            for page in run.chunks_exact_mut(size.len()) {
                if next > total {
                    break;
                }
                let number = PageNo::new(next)?;
                let source = pages.read(number, page)?;
                is_hole &= source == PageSource::Missing;
                copied.add(number, size, source);
                used += page.len();
                next += 1;
            }
            if !is_hole {
                new.write_all_at(&mut [IoSlice::new(&run[..used])], first.offset(size))?;
            }
            progress.set(first.offset(size) + used as u64, len);
        }
        new.sync(FileSyncType::Full)?;
        Ok(copied)
    }
}

/// Where the pages of the new file are from.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    from_log: u32,
    missing: u32,
}

impl Copied {
    fn add(&mut self, page: PageNo, size: PageSize, source: PageSource) {
        match source {
            PageSource::Log(_) => self.from_log += 1,
            // That of the lock bytes holds no data.
            PageSource::Missing if page != size.lock_byte_page() => self.missing += 1,
            _ => {}
        }
    }
}

/// What is wrong with the log.
fn notes_of(
    check: Option<&LogCheck>,
    files: &Files,
    is_in_use: bool,
) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    let Some(check) = check else {
        let len = files.log.as_ref().map(|log| log.len()).transpose()?;
        if let Some(len) = len.filter(|len| *len > 32) {
            let len = bytes(len);
            notes.push(format!(
                "the header of the log is damaged, so its {len} were not read"
            ));
        }
        return Ok(notes);
    };
    if let (Some((frame, fault)), true) = (check.fault, check.loses_commits() && !is_in_use) {
        let lost = counted(check.leftovers.lost_commits, "commit");
        notes.push(format!(
            "frame {frame} of the log: {fault}; {lost} behind it cannot be used"
        ));
    }
    if let Some(index) = &files.index
        && let Some(info) = read_index(index)?
        && let Some(header) = info.valid_header()
        && header.salts() == check.scan.header.salts
        && header.max_frame() > check.scan.max_frame()
    {
        let (published, found) = (header.max_frame(), check.scan.max_frame());
        let published = counted(published, "frame");
        notes.push(format!(
            "the index publishes {published}, of which the log has {found}"
        ));
    }
    Ok(notes)
}

impl Report for RecoverReport {
    const KIND: &'static str = "recover";

    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let to = paint(STRONG, escape(&self.to));
        let (pages, size) = (counted(self.pages, "page"), bytes(self.bytes));
        writeln!(out, "{to}: {pages}, {size}")?;
        let database = escape(&self.database);
        match &self.log {
            Some(log) => {
                let frames = counted(self.frames, "frame");
                let commits = counted(self.commits, "commit");
                let log = escape(log);
                writeln!(
                    out,
                    "  from   {database} and {frames} with {commits} of {log}"
                )?;
            }
            None => writeln!(out, "  from   {database}, which has no log")?,
        }
        if self.dropped_frames > 0 {
            let dropped = counted(self.dropped_frames, "frame");
            let lost = match self.lost_commits {
                0 => "no commit is in them".to_owned(),
                lost => paint(WARN, format!("{} lost", counted(lost, "commit"))),
            };
            writeln!(out, "  left   {dropped} behind those: {lost}")?;
        }
        for note in &self.notes {
            writeln!(out, "  {} {}", paint(WARN, "note  "), escape(note))?;
        }
        for check in &self.checks {
            check.write(out)?;
        }
        Ok(())
    }
}
