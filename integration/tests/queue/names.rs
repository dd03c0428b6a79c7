//! Databases that are reached by other names, by parameters of a URI and by other VFSs: SQLite
//! answers in the queue as it does without it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use integration::queue;
use integration::stock::{StockKind, StockSqlite};

use crate::scene::Scene;

/// Statements that reach the database `app.db` in the folder `{}` in another way, or change what
/// it is. Each begins where the one before it ended.
const STATEMENTS: [&str; 22] = [
    "ATTACH 'file:{}/link.db' AS x; UPDATE x.t SET n = n + 1; SELECT n FROM x.t",
    "DETACH x",
    "ATTACH 'file:{}/app.db?mode=ro' AS x; SELECT n FROM x.t",
    "UPDATE x.t SET n = n + 1",
    "DETACH x",
    "ATTACH 'file:{}/app.db?nolock=1' AS x; SELECT n FROM x.t",
    "ATTACH 'file:{}/app.db?vfs=unix' AS y; UPDATE y.t SET n = n + 1; SELECT n FROM y.t",
    "DETACH y",
    "ATTACH 'file:{}/app.db?vfs=unix-none' AS z; SELECT n FROM z.t",
    "ATTACH 'file:{}/app.db?vfs=unix-dotfile' AS z2; SELECT n FROM z2.t",
    "ATTACH 'file:{}/closed.db?immutable=1' AS i; SELECT n FROM i.t",
    "UPDATE i.t SET n = n + 1",
    "DETACH i",
    "ATTACH 'file:{}/{long}/app.db' AS l; CREATE TABLE l.t(n)",
    "ATTACH 'file:{}/{deep}/app.db' AS d; PRAGMA d.journal_mode=WAL",
    "CREATE TABLE d.t(n); INSERT INTO d.t VALUES(1); SELECT n FROM d.t",
    "DETACH d",
    "VACUUM INTO 'file:{}/copy.db'; ATTACH 'file:{}/copy.db' AS c; SELECT n FROM c.t",
    "DETACH c",
    "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)",
    "UPDATE t SET n = n + 1; SELECT n FROM t",
    "PRAGMA integrity_check",
];

/// Longer than a path of SQLite, 512 bytes.
const LONG: usize = 5;
/// A little shorter than that.
const DEEP: usize = 4;

fn folders(count: usize) -> String {
    vec!["f".repeat(100); count].join("/")
}

/// What `kind` answers to the statements, and which files it leaves.
fn answers(kind: StockKind, extension: Option<&Path>) -> Vec<String> {
    let scene = Scene::new(1);
    let folder = scene.directory.path();
    symlink(&scene.database, folder.join("link.db")).unwrap();
    fs::copy(&scene.database, folder.join("closed.db")).unwrap();
    for count in [LONG, DEEP] {
        fs::create_dir_all(folder.join(folders(count))).unwrap();
    }
    let mut peer = match extension {
        Some(extension) => StockSqlite::spawn_with(kind, &scene.database, extension),
        None => StockSqlite::spawn(kind, &scene.database, None),
    }
    .unwrap();
    let text = folder.to_str().unwrap();
    let run = |statement: &&str| {
        let sql = statement.replace("{long}", &folders(LONG));
        let sql = sql.replace("{deep}", &folders(DEEP)).replace("{}", text);
        let answer = format!("{statement}: {:?}", peer.run(&sql).unwrap());
        answer.replace(text, "{}")
    };
    let mut answers: Vec<String> = STATEMENTS.iter().map(run).collect();
    peer.close().unwrap();
    let mut files: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    answers.push(format!("{files:?}"));
    answers
}

#[test]
fn other_names_and_parameters_answer_as_without_the_queue() {
    let library = queue::library().unwrap();
    for kind in StockKind::available() {
        let without = answers(kind, None);
        let with = answers(kind, Some(&library));
        for (with, without) in with.iter().zip(&without) {
            assert_eq!(with, without, "{kind}");
        }
        let was_reached = without.iter().filter(|answer| answer.contains("Ok("));
        assert!(was_reached.count() >= STATEMENTS.len() / 2, "{without:#?}");
    }
}
