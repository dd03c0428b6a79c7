//! What the number of a process means here.
//!
//! Processes of several containers can use one database. Each namespace of process numbers
//! has its own, so a number says nothing outside of its namespace. When a process started is
//! told by the clocks of the process that asks, which may be those of another namespace too.
//!
//! `/proc` may be absent, hide the processes of other users (`hidepid`), or show the numbers
//! of an outer namespace. Only what it shows for certain is used.

/// The namespaces of a process, by the inodes that the system gives them; 0 for unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Namespaces {
    /// That of process numbers.
    pub(crate) numbers: u32,
    /// That of clocks.
    pub(crate) clocks: u32,
}

/// What is known of a process that is found by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Process {
    /// It is there.
    Running,
    /// It has ended.
    Gone,
    /// It is in another container, or hidden.
    Unknown,
}

impl Namespaces {
    /// Those of this process.
    #[cfg(target_os = "linux")]
    pub(crate) fn here() -> Self {
        use std::os::unix::fs::MetadataExt;
        let inode = |name| {
            let there = std::fs::metadata(format!("/proc/self/ns/{name}"));
            there.map_or(0, |there| u32::try_from(there.ino()).unwrap_or(0))
        };
        Namespaces {
            numbers: inode("pid"),
            clocks: inode("time"),
        }
    }

    /// There is one of each.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn here() -> Self {
        Namespaces {
            numbers: 1,
            clocks: 1,
        }
    }

    /// When this process started, in a unit of the system; 0 for unknown.
    pub(crate) fn start_of_this_process(self) -> u32 {
        start_time("self").unwrap_or(0)
    }

    /// What is known of the process `pid` in the namespaces `of`, which started at `start`.
    pub(crate) fn look_at(self, pid: u32, start: u32, of: Namespaces) -> Process {
        if self.numbers == 0 || self.numbers != of.numbers {
            return Process::Unknown;
        }
        if !is_there(pid) {
            return Process::Gone;
        }
        if !shows_own_numbers() {
            return Process::Unknown;
        }
        match start_time(&pid.to_string()) {
            None => Process::Unknown,
            Some(began) if self.clocks == of.clocks && began != start => Process::Gone,
            Some(_) => Process::Running,
        }
    }
}

/// True if there is a process of that number in the namespace of this one.
fn is_there(pid: u32) -> bool {
    let number = i32::try_from(pid).ok().filter(|number| *number > 0);
    let signalled = number.map(|number| {
        let pid = nix::unistd::Pid::from_raw(number);
        nix::sys::signal::kill(pid, None)
    });
    // Any other error says that it may not be signalled.
    !matches!(signalled, None | Some(Err(nix::errno::Errno::ESRCH)))
}

/// True if `/proc` has the numbers of the namespace of this process.
#[cfg(target_os = "linux")]
fn shows_own_numbers() -> bool {
    let own = std::fs::read_link("/proc/self");
    own.is_ok_and(|own| own.as_os_str() == std::process::id().to_string().as_str())
}

#[cfg(not(target_os = "linux"))]
fn shows_own_numbers() -> bool {
    true
}

/// When a process started: field 22 of its `stat` in `/proc`, behind the name, which may hold
/// anything. The low bits tell processes of one number apart well enough.
#[cfg(target_os = "linux")]
fn start_time(process: &str) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, behind_name) = stat.rsplit_once(')')?;
    let ticks: u64 = behind_name.split_whitespace().nth(19)?.parse().ok()?;
    u32::try_from(ticks & 0xffff_ffff).ok()
}

/// The system does not tell.
#[cfg(not(target_os = "linux"))]
fn start_time(_process: &str) -> Option<u32> {
    Some(0)
}
