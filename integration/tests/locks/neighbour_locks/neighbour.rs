//! A stock SQLite in this process: the one that is linked in, or the system's.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::system;

/// How long a connection waits for locks.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Which SQLite is the neighbour. A process uses one of them for one database, since two
/// copies of SQLite in a process drop each other's locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bundled,
    System,
}

impl Kind {
    /// Those that this machine has.
    pub(crate) fn available() -> Vec<Self> {
        let mut kinds = vec![Kind::Bundled];
        kinds.extend(system::api().map(|_| Kind::System));
        kinds
    }

    pub(crate) fn open(self, path: &Path) -> Neighbour {
        match self {
            Kind::Bundled => {
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.busy_timeout(BUSY_TIMEOUT).unwrap();
                Neighbour::Bundled(connection)
            }
            Kind::System => {
                let timeout = i32::try_from(BUSY_TIMEOUT.as_millis()).unwrap();
                let api = system::api().unwrap();
                Neighbour::System(system::Connection::open(api, path, timeout))
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bundled => "the bundled SQLite",
            Kind::System => "the system's SQLite",
        })
    }
}

/// A connection of it; dropped, it is closed.
pub(crate) enum Neighbour {
    Bundled(rusqlite::Connection),
    System(system::Connection),
}

impl Neighbour {
    fn execute(&self, sql: &str) -> Result<(), String> {
        match self {
            Neighbour::Bundled(connection) => connection
                .execute_batch(sql)
                .map_err(|error| error.to_string()),
            Neighbour::System(connection) => connection.execute(sql),
        }
    }

    /// Runs `sql`, and runs it again while an owner has the database, for which no busy
    /// timeout helps in some states.
    pub(crate) fn run(&self, sql: &str) {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        while let Err(error) = self.execute(sql) {
            assert!(Instant::now() < deadline, "{sql}: {error}");
            std::thread::yield_now();
        }
    }
}
