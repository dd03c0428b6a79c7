//! Processes in namespaces of their own, as in a container.

use std::path::Path;
use std::process::Command;

use crate::needs::Need;

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

    /// The need of a test that starts a process in it.
    #[must_use]
    pub fn need(self) -> Need {
        Need::Namespaces(self.namespaces())
    }

    /// With `--kill-child` the program ends with the process that waits for it.
    fn namespaces(self) -> &'static [&'static str] {
        match self {
            Container::Processes => &["--pid", "--fork", "--kill-child", "--mount-proc"],
            Container::ProcessesBesideProc => &["--pid", "--fork", "--kill-child"],
            Container::Mounts => &["--mount"],
            Container::Users => &["--user", "--map-root-user"],
            Container::ClocksAhead | Container::ClocksBehind => {
                &["--time", "--fork", "--kill-child"]
            }
        }
    }

    /// A command that runs `program` in it.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new("unshare");
        command.args(self.namespaces());
        let shift = match self {
            Container::ClocksAhead => Some(A_DAY.to_string()),
            Container::ClocksBehind => Some(format!("-{}", uptime_in_seconds())),
            _ => None,
        };
        for clock in shift.iter().flat_map(|shift| {
            let option = |clock| format!("--{clock}={shift}");
            ["monotonic", "boottime"].map(option)
        }) {
            command.arg(clock);
        }
        command.arg("--").arg(program);
        command
    }
}

/// In seconds.
const A_DAY: u32 = 86_400;

/// Whole seconds since the system was started.
fn uptime_in_seconds() -> u64 {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    let now = nix::time::clock_gettime(clock);
    now.map_or(0, |now| u64::try_from(now.tv_sec()).unwrap_or(0))
}
