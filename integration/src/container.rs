//! Processes in namespaces of their own, as in a container.

use std::path::Path;
use std::process::{Command, Stdio};

/// What a process has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// Process numbers, with a `/proc` that has these.
    Processes,
    /// Process numbers, beside a `/proc` that has those of the outside.
    ProcessesBesideProc,
    /// Mounts.
    Mounts,
    /// Users: its root is the outer user.
    Users,
    /// Clocks, of which the monotonic ones are a day ahead.
    ClocksAhead,
    /// Clocks, of which the monotonic ones are behind: they began when it was started.
    ClocksBehind,
}

impl Container {
    /// All of them.
    pub const ALL: [Container; 6] = [
        Container::Processes,
        Container::ProcessesBesideProc,
        Container::Mounts,
        Container::Users,
        Container::ClocksAhead,
        Container::ClocksBehind,
    ];

    /// A command that runs `program` in it.
    #[must_use]
    pub fn command(self, program: &Path) -> Command {
        // With `--kill-child` the program ends with the process that waits for it.
        let behind = format!("-{}", uptime_in_seconds());
        let arguments: &[&str] = match self {
            Container::Processes => &["--pid", "--fork", "--kill-child", "--mount-proc"],
            Container::ProcessesBesideProc => &["--pid", "--fork", "--kill-child"],
            Container::Mounts => &["--mount"],
            Container::Users => &["--user", "--map-root-user"],
            Container::ClocksAhead => &[
                "--time",
                "--fork",
                "--kill-child",
                "--monotonic=86400",
                "--boottime=86400",
            ],
            Container::ClocksBehind => &[
                "--time",
                "--fork",
                "--kill-child",
                "--monotonic",
                &behind,
                "--boottime",
                &behind,
            ],
        };
        let mut command = Command::new("unshare");
        command.args(arguments).arg("--").arg(program);
        command
    }

    /// True if the system makes it.
    #[must_use]
    pub fn is_available(self) -> bool {
        let mut command = self.command(Path::new("true"));
        let output = command.stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    }
}

/// Whole seconds since the system was started.
fn uptime_in_seconds() -> u64 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let now = nix::time::clock_gettime(clock);
    now.map_or(0, |now| u64::try_from(now.tv_sec()).unwrap_or(0))
}
