//! A database that writers in the queue share.

use std::path::PathBuf;

use integration::queue::{self, Language, Order, Outcome};
use integration::stock::{StockKind, StockSqlite};
use rusqlite::Connection;
use tempfile::TempDir;
use wal_core::storage::beside;

pub(crate) struct Scene {
    pub(crate) directory: TempDir,
    pub(crate) database: PathBuf,
}

impl Scene {
    /// A database with a row for each of `writers`.
    pub(crate) fn new(writers: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("app.db");
        queue::create(&database, writers).unwrap();
        Scene {
            directory,
            database,
        }
    }

    /// A process with a connection in the queue, which has no busy timeout.
    pub(crate) fn stock(&self, kind: StockKind) -> StockSqlite {
        StockSqlite::spawn_with(kind, &self.database, &queue::library().unwrap()).unwrap()
    }

    /// As [`Scene::stock`], with `variable` set to 1.
    pub(crate) fn stock_with(&self, kind: StockKind, variable: &str) -> StockSqlite {
        let library = queue::library().unwrap();
        let variables = [(variable, "1")];
        StockSqlite::spawn_with_variables(kind, &self.database, &library, &variables).unwrap()
    }

    /// The order of the writer of `row`.
    pub(crate) fn order(&self, row: u32, seconds: f64) -> Order {
        Order::new(&self.database, row, seconds).unwrap()
    }

    /// Runs a writer in each of `languages` for `seconds`, and checks what they leave.
    pub(crate) fn run(
        &self,
        languages: &[Language],
        seconds: f64,
        change: impl Fn(&mut Order),
    ) -> Vec<Outcome> {
        let order = |(&language, row)| {
            let mut order = self.order(row, seconds);
            change(&mut order);
            (language, order)
        };
        let writers: Vec<_> = languages.iter().zip(1..).map(order).collect();
        let outcomes = queue::run(&writers).unwrap();
        let counts = self.counts();
        let mut pages = 0;
        for ((outcome, count), &language) in outcomes.iter().zip(&counts).zip(languages) {
            match language {
                Language::Pages => pages += outcome.commits,
                _ => assert_eq!(outcome.commits, *count, "{language:?} lost commits"),
            }
        }
        assert_eq!(self.user_version(), pages, "page transactions are lost");
        outcomes
    }

    /// What the rows count, in a database that is whole.
    pub(crate) fn counts(&self) -> Vec<u64> {
        let connection = Connection::open(&self.database).unwrap();
        let check = "PRAGMA integrity_check";
        let verdict: String = connection.query_row(check, [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        let mut counts = connection.prepare("SELECT n FROM t ORDER BY id").unwrap();
        let counts = counts.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        counts
            .map(|count| count.unwrap().try_into().unwrap())
            .collect()
    }

    /// How many page transactions there were.
    fn user_version(&self) -> u64 {
        let connection = Connection::open(&self.database).unwrap();
        let version = connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0));
        version.unwrap().try_into().unwrap()
    }

    /// The side file of the queue.
    pub(crate) fn side_file(&self) -> PathBuf {
        beside(&self.database, "-coord")
    }
}

/// How often writers gave up.
pub(crate) fn locked(outcomes: &[Outcome]) -> u64 {
    outcomes.iter().map(|outcome| outcome.locked).sum()
}
