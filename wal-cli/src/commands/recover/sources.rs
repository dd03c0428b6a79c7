//! Which files are read.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use wal_core::inspect::{read_index, read_log};
use wal_core::storage::{File as _, OpenMode, OsFile, beside};
use wal_shm::inspect::{DatabaseFile, OpenFile, OpenFiles};

use super::Recover;
use crate::files::{Files, Users};
use crate::look::observe;
use crate::output::units::counted;

/// The files to read, and what is worth knowing about them.
pub(super) fn sources(recover: &Recover) -> anyhow::Result<(Files, Vec<String>)> {
    let budget: Duration = recover.budget.into();
    if let Some(pid) = recover.from_pid {
        return of_process(&recover.database, pid, budget);
    }
    let mut files = Files::at(&recover.database)?;
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
    if let Some(log) = &recover.log {
        let opened = observe(log)?;
        let opened = opened.with_context(|| format!("{}: there is no such file", log.display()))?;
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

/// The files of `database` that process `pid` has open.
fn of_process(database: &Path, pid: u32, budget: Duration) -> anyhow::Result<(Files, Vec<String>)> {
    if !Path::new("/proc").join(pid.to_string()).exists() {
        bail!("there is no process {pid} here");
    }
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
        let info = read_log(&opened)?;
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
