//! The number, command and user of a process, and whether it is stopped.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};
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
    /// Whether it sleeps in the system and cannot be interrupted (state `D`): mostly it waits
    /// for a disk.
    pub is_uninterruptible: bool,
    /// The process that started it, or took it over.
    pub parent: Option<u32>,
    /// Whether it is in another namespace of process numbers, as those of containers are.
    pub is_in_container: bool,
    /// When it started: it acquired no lock before. To a hundredth of a second, and wrong by as
    /// much as the clock of the system was set since.
    pub started: Option<SystemTime>,
}

impl ProcessInfo {
    /// Describes the process with the number `pid`, as far as `/proc` shows it.
    ///
    /// ```
    /// use wal_shm::inspect::ProcessInfo;
    ///
    /// let this = ProcessInfo::of(std::process::id());
    /// assert!(!this.is_stopped);
    /// ```
    pub fn of(pid: u32) -> Self {
        let stat = Stat::of(pid);
        let name = stat.as_ref().map(|stat| &stat.name);
        ProcessInfo {
            pid,
            command: command_line(pid).or_else(|| name.map(|name| format!("[{name}]"))),
            user: fs::metadata(format!("/proc/{pid}")).ok().map(|of| of.uid()),
            is_stopped: matches!(stat.as_ref().map(|stat| stat.state), Some('T' | 't')),
            is_uninterruptible: stat.as_ref().is_some_and(|stat| stat.state == 'D'),
            parent: stat.as_ref().and_then(|stat| stat.parent),
            is_in_container: is_in_other_namespace(pid),
            started: stat.as_ref().and_then(Stat::started),
        }
    }
}

/// False also where one of the namespaces may not be seen.
fn is_in_other_namespace(pid: u32) -> bool {
    let number = |process: &str| {
        let namespace = fs::metadata(format!("/proc/{process}/ns/pid"));
        namespace.ok().map(|namespace| namespace.ino())
    };
    match (number(&pid.to_string()), number("self")) {
        (Some(there), Some(here)) => there != here,
        _ => false,
    }
}

fn command_line(pid: u32) -> Option<String> {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&arguments);
    let line = arguments.trim_end_matches('\0').replace('\0', " ");
    (!line.is_empty()).then_some(line)
}

/// Fields of `/proc/<pid>/stat`.
struct Stat {
    /// Field 2, which is in parentheses and may hold anything.
    name: String,
    /// Field 3.
    state: char,
    /// Field 4.
    parent: Option<u32>,
    /// Field 22: how long after the boot it started, in ticks of the clock.
    ticks: Option<u64>,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        let (before, behind) = stat.rsplit_once(')')?;
        let (_, name) = before.split_once('(')?;
        let mut behind = behind.split_ascii_whitespace();
        Some(Stat {
            name: name.to_owned(),
            state: behind.next()?.chars().next()?,
            parent: behind.next().and_then(|parent| parent.parse().ok()),
            ticks: behind.nth(17).and_then(|ticks| ticks.parse().ok()),
        })
    }

    fn started(&self) -> Option<SystemTime> {
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
        let milliseconds = self.ticks? * 1000 / u64::try_from(per_second).ok()?.max(1);
        Some(boot()? + Duration::from_millis(milliseconds))
    }
}

/// When the system started.
fn boot() -> Option<SystemTime> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let mut lines = stat.lines();
    let seconds = lines.find_map(|line| line.strip_prefix("btime "))?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.trim().parse().ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_started_a_moment_ago() {
        let now = SystemTime::now();
        let process = ProcessInfo::of(std::process::id());
        let age = process.started.map(|started| now.duration_since(started));
        let Some(Ok(age)) = age else {
            unreachable!("{process:?} has no start before now")
        };
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert!(!process.is_stopped && !process.is_in_container);
        assert_eq!(process.parent, Some(std::os::unix::process::parent_id()));
    }
}
