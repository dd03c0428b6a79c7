//! The number, command and user of a process, and whether it is stopped.

use std::os::unix::fs::MetadataExt;
use std::{fs, io};

/// A process, as `/proc` shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ProcessInfo {
    /// Its number.
    pub pid: u32,
    /// Its arguments, with blanks between them; in square brackets its short name, where it
    /// has none. `None` if it has ended, or is hidden. The process decides what it is: escape
    /// it before it goes to a terminal.
    pub command: Option<String>,
    /// The user that it runs as.
    pub user: Option<u32>,
    /// Whether it is stopped, by `SIGSTOP` or a debugger: it keeps its locks.
    pub is_stopped: bool,
}

impl ProcessInfo {
    pub(super) fn of(pid: u32) -> Self {
        let (name, state) = name_and_state(pid).unzip();
        ProcessInfo {
            pid,
            command: command_line(pid).or_else(|| name.map(|name| format!("[{name}]"))),
            user: fs::metadata(format!("/proc/{pid}")).ok().map(|of| of.uid()),
            is_stopped: matches!(state, Some('T' | 't')),
        }
    }
}

fn command_line(pid: u32) -> Option<String> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&arguments);
    let line = arguments.trim_end_matches('\0').replace('\0', " ");
    (!line.is_empty()).then_some(line)
}

/// Fields 2 and 3 of its `stat`. The name is in parentheses, and may hold anything.
fn name_and_state(pid: u32) -> Option<(String, char)> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (before, behind) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    Some((name.to_owned(), behind.trim_start().chars().next()?))
}

/// The processes that `/proc` shows: this process, then those of its user, then all other
/// processes.
pub(super) fn all() -> io::Result<Vec<u32>> {
    let own_user = nix::unistd::geteuid().as_raw();
    let own = std::process::id();
    let entries = fs::read_dir("/proc")?.flatten();
    let mut processes: Vec<(bool, bool, u32)> = entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let is_foreign = entry.metadata().map_or(true, |of| of.uid() != own_user);
            Some((pid != own, is_foreign, pid))
        })
        .collect();
    processes.sort_unstable();
    Ok(processes.into_iter().map(|(.., pid)| pid).collect())
}
