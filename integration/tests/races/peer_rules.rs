//! The rules for a polite peer: for each of them the tests that show that ours
//! keeps it, and those that nothing else shows.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::{Image, Ours, Scene, Start, stamp, values};
use integration::stock::{StockKind, StockSqlite};
use integration::worker::{HeldByte, Settings, Worker};
use rusqlite::types::Value;
use wal::{CheckpointMode, Error, Options, PageNo};

/// A rule, in a few words, and the tests that show it: `file::name`, the file
/// from the root of the repository.
type Rule = (u32, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const RULES: [Rule; 36] = [
    (1, "SHARED before -wal and -shm, until after them", &["integration/tests/races/peer_rules.rs::rule_01_an_idle_handle_holds_shared_and_dms_and_nothing_else", "integration/tests/races/ours_stopped/mod.rs::an_opener_or_closer_of_ours_stopped_at_any_step_takes_nothing_from_stock"]),
    (2, "DMS shared all the time, and its dance at open", &["integration/tests/races/peer_rules.rs::rule_01_an_idle_handle_holds_shared_and_dms_and_nothing_else", "wal-shm/src/first_opener.rs::the_first_resets_and_the_others_join_until_all_are_gone"]),
    (3, "nothing removed but by the last closer of all", &["integration/tests/crashes/last_closer.rs::only_the_last_process_to_close_removes_the_files"]),
    (4, "no close that drops the locks of this process", &["integration/tests/locks/own_locks.rs::a_readers_locks_survive_files_that_are_opened_and_closed"]),
    (5, "open-file-description locks, arbitrated within the process", &["wal-shm/src/lock_table/tests.rs::an_exclusive_lock_does_not_run_over_a_shared_one_of_the_same_process"]),
    (6, "no close that drops the locks of a SQLite in this process", &["integration/tests/locks/one_process/main.rs::ours_and_a_sqlite_in_the_same_process_keep_their_locks_in_every_order"]),
    (7, "nothing unlocked in a forked child", &["integration/tests/processes/forked.rs::a_childs_inherited_handles_refuse_and_leave_the_parents_locks"]),
    (8, "locks asked about, not tried", &["wal-shm/src/lock_table/tests.rs::lock_of_a_peer_is_respected_and_leaves_no_trace_in_the_table"]),
    (9, "the header: copy 48, barrier, copy 0", &["integration/tests/races/peer_rules.rs::rule_09_nobody_writes_the_lock_bytes_of_the_index", "integration/tests/races/ours_stopped/mod.rs::a_writer_of_ours_stopped_at_any_step_makes_stock_busy_or_is_not_seen"]),
    (10, "a mark is changed only with its slot held alone", &["integration/tests/locks/killed_holder.rs::a_read_mark_holds_no_checkpoint_back_once_its_reader_is_killed", "integration/tests/races/ours_stopped/mod.rs::a_checkpointer_of_ours_stopped_at_any_step_shows_stock_no_wrong_page"]),
    (11, "everything looked at again once the lock is held", &["integration/tests/races/ours_stopped/mod.rs::a_reader_of_ours_stopped_at_any_step_is_in_nobodys_way"]),
    (12, "every commit changes the header", &["integration/tests/races/peer_rules.rs::rule_12_a_commit_of_ours_empties_the_cache_of_a_stock_peer"]),
    (13, "the index grows before the commit frame is written", &["integration/tests/crashes/killed_worker/main.rs::a_commit_is_there_or_not_when_its_process_is_killed"]),
    (14, "the space of the index is really there", &["integration/tests/races/peer_rules.rs::rule_14_the_index_file_has_no_holes"]),
    (15, "page number, then hash slot, then header", &["integration/tests/crashes/killed_worker/main.rs::a_commit_is_there_or_not_when_its_process_is_killed"]),
    (16, "leftovers above the last commit are nothing", &["integration/tests/races/stock_stopped/mod.rs::a_writer_stopped_at_any_edge_makes_others_busy_or_is_not_seen"]),
    (17, "the frame checksum is that of the last frame", &["integration/tests/peers/stock_opens_ours/alternating.rs::both_sides_write_read_checkpoint_and_restart_by_turns"]),
    (18, "a log goes on in the byte order it has", &["integration/tests/races/peer_rules.rs::rule_18_a_log_of_the_other_byte_order_goes_on_in_it"]),
    (19, "a restart shuts out checkpointers and readers", &["integration/tests/races/ours_stopped/wal_reset.rs::a_writer_of_ours_does_not_restart_the_log_under_a_checkpointer_of_stock"]),
    (20, "a checkpoint compares salts under READ0", &["integration/tests/races/ours_stopped/wal_reset.rs::a_passive_checkpoint_of_ours_notices_that_stock_restarted_the_log_in_its_gap"]),
    (21, "no more pages than file and log supply", &["integration/tests/crashes/recovery/hostile_index.rs::a_size_that_log_and_database_cannot_have_is_not_checkpointed"]),
    (22, "recovery is built apart and leaves busy marks", &["integration/tests/races/stock_stopped/mod.rs::a_recovery_stopped_at_any_edge_shows_nobody_a_wrong_page", "integration/tests/crashes/recovery/damaged_index.rs::a_damaged_index_is_mended_in_place_while_a_peer_is_attached"]),
    (23, "a hot journal is refused", &["integration/tests/files/wrong_input/foreign_files.rs::a_hot_journal_is_left_to_stock_sqlite"]),
    (24, "a log counts whatever the mode in the header", &["integration/tests/races/peer_rules.rs::rule_24_a_log_counts_though_the_header_says_rollback_mode"]),
    (25, "page 1 tells the size of the database", &["integration/tests/races/peer_rules.rs::rule_25_a_commit_that_adds_a_page_tells_so_on_page_one"]),
    (26, "the page size is that of page 1", &["integration/tests/files/wrong_input/foreign_logs.rs::a_log_of_another_page_size_is_refused"]),
    (27, "a commit to a long log checkpoints it", &["integration/tests/races/peer_rules.rs::rule_27_a_commit_to_a_long_log_checkpoints_it"]),
    (28, "nobody blocks on a lock", &["integration/tests/locks/locked.rs::opening_waits_as_long_as_the_busy_timeout_and_no_longer", "integration/tests/locks/waiting_writers.rs::a_writer_that_never_gets_its_turn_is_told_busy_after_its_timeout"]),
    (29, "exclusive locks are brief", &["integration/tests/races/stock_stopped/mod.rs::a_header_half_stored_by_a_stopped_writer_is_waited_for_ten_seconds_and_no_longer"]),
    (30, "one mark for all readers of a snapshot", &["integration/tests/races/peer_rules.rs::rule_30_readers_of_one_snapshot_share_one_mark"]),
    (31, "files that were replaced are not written", &["integration/tests/races/peer_rules.rs::rule_31_a_file_that_was_removed_or_replaced_is_not_written_any_more"]),
    (32, "no index is made for a database that is owned", &["integration/tests/races/peer_rules.rs::rule_32_a_database_in_exclusive_locking_mode_is_locked_and_gets_no_index"]),
    (33, "a log without an index is recovered", &["integration/tests/races/peer_rules.rs::rule_33_an_empty_log_that_was_left_is_no_log", "integration/tests/crashes/last_closer.rs::a_log_left_behind_by_a_killed_process_is_recovered_and_then_removed"]),
    (34, "new files are like the database", &["integration/tests/files/permissions.rs::new_files_have_the_permissions_of_the_database_whatever_the_mask"]),
    (35, "the database may shrink", &["integration/tests/races/peer_rules.rs::rule_35_a_database_that_stock_shrinks_and_grows_is_read_through_a_mapping"]),
    (36, "network file systems are refused", &["wal-shm/src/file_system.rs::network_file_systems_are_named_and_local_ones_pass"]),
];

fn open(scene: &Scene) -> Ours {
    Ours::open(&scene.path).unwrap()
}

fn bundled(scene: &Scene) -> StockSqlite {
    scene.stock(StockKind::Bundled)
}

fn run(stock: &mut StockSqlite, sql: &str) {
    stock.run(sql).unwrap().unwrap();
}

#[test]
fn every_rule_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (at, (number, rule, tests)) in (1..).zip(RULES) {
        assert_eq!(number, at);
        assert!(!tests.is_empty(), "rule {number}, {rule}: no test");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap();
            let text = fs::read_to_string(root.join(file)).unwrap();
            let function = format!("fn {name}()");
            assert!(text.contains(&function), "rule {number}, {rule}: no {test}");
        }
    }
}

#[test]
fn rule_01_an_idle_handle_holds_shared_and_dms_and_nothing_else() {
    const SHARED: u64 = 0x4000_0002;
    let scene = Scene::new(Start::LogLeft);
    let ours = open(&scene);
    ours.image().unwrap();
    let mut other = Worker::spawn().unwrap();
    let mut held = |suffix: &str, byte| {
        let file = if suffix.is_empty() {
            scene.path.clone()
        } else {
            scene.file(suffix)
        };
        other.probe(&file, byte).unwrap()
    };
    assert_eq!(held("", SHARED), Some(HeldByte::Shared));
    assert_eq!(held("-shm", 128), Some(HeldByte::Shared));
    for byte in 120..128 {
        assert_eq!(held("-shm", byte), None, "byte {byte}");
    }
    ours.close().unwrap();
    other.end().unwrap();
}

#[test]
fn rule_09_nobody_writes_the_lock_bytes_of_the_index() {
    let scene = Scene::new(Start::LogLeft);
    let ours = open(&scene);
    ours.image().unwrap();
    let index = scene.file("-shm");
    let index = fs::File::options()
        .read(true)
        .write(true)
        .open(index)
        .unwrap();
    let mark = [1, 2, 3, 4, 5, 6, 7, 8];
    index.write_all_at(&mark, 120).unwrap();
    for sequence in 1..4 {
        ours.commit(sequence).unwrap();
        ours.checkpoint(CheckpointMode::Passive).unwrap();
    }
    let mut bytes = [0; 8];
    index.read_exact_at(&mut bytes, 120).unwrap();
    assert_eq!(bytes, mark);
}

#[test]
fn rule_12_a_commit_of_ours_empties_the_cache_of_a_stock_peer() {
    for kind in StockKind::available() {
        let scene = Scene::new(Start::LogLeft);
        let ours = open(&scene);
        let mut stock = scene.stock(kind);
        let mut seen: Vec<Value> = Vec::new();
        for sequence in 1..5 {
            ours.commit(sequence).unwrap();
            let rows = stock.run("SELECT a FROM b").unwrap().unwrap();
            let blob = rows.value().unwrap().clone();
            assert!(!seen.contains(&blob), "{kind} still sees an old commit");
            seen.push(blob);
            if sequence == 2 {
                ours.checkpoint(CheckpointMode::Passive).unwrap();
            }
        }
        scene.expect_sound(stock, ours);
    }
}

#[test]
fn rule_14_the_index_file_has_no_holes() {
    let scene = Scene::new(Start::LogLeft);
    let ours = open(&scene);
    ours.commit(1).unwrap();
    let index = fs::metadata(scene.file("-shm")).unwrap();
    assert!(index.len() >= 32768);
    assert!(index.blocks() * 512 >= index.len(), "{index:?}");
}

#[test]
fn rule_18_a_log_of_the_other_byte_order_goes_on_in_it() {
    let scene = Scene::new(Start::LogLeft);
    let log = scene.file("-wal");
    fs::write(&log, in_other_byte_order(&fs::read(&log).unwrap())).unwrap();
    let magic = fs::read(&log).unwrap()[..4].to_vec();
    let ours = open(&scene);
    ours.commit(1).unwrap();
    assert_eq!(fs::read(&log).unwrap()[..4], magic);
    let mut stock = bundled(&scene);
    assert_eq!(values(&mut stock).unwrap(), 2);
    run(&mut stock, "UPDATE t SET n=n+1");
    // What the checksums chain is seen by a recovery.
    let copy = Scene::new(Start::Closed);
    fs::copy(&scene.path, &copy.path).unwrap();
    fs::copy(&log, copy.file("-wal")).unwrap();
    for (scene, stock, ours) in [(&scene, stock, ours), (&copy, bundled(&copy), open(&copy))] {
        let (count, image) = scene.expect_sound(stock, ours);
        assert_eq!((count, image.sequence()), (3, 1));
    }
}

/// The same log with checksums over words of the other byte order.
fn in_other_byte_order(log: &[u8]) -> Vec<u8> {
    let big = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let little = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    let magic = big(&log[..4]) ^ 1;
    let word = |bytes: &[u8]| {
        if magic & 1 == 1 {
            big(bytes)
        } else {
            little(bytes)
        }
    };
    let sum = |from: (u32, u32), bytes: &[u8]| {
        bytes.chunks(8).fold(from, |(s1, s2), pair| {
            let s1 = s1.wrapping_add(word(&pair[..4])).wrapping_add(s2);
            (s1, s2.wrapping_add(word(&pair[4..])).wrapping_add(s1))
        })
    };
    let bytes = |(s1, s2): (u32, u32)| [s1.to_be_bytes(), s2.to_be_bytes()].concat();
    let mut other = log.to_vec();
    other[..4].copy_from_slice(&magic.to_be_bytes());
    let mut running = sum((0, 0), &other[..24]);
    other[24..32].copy_from_slice(&bytes(running));
    for frame in other[32..].chunks_exact_mut(24 + 512) {
        running = sum(running, &frame[..8]);
        running = sum(running, &frame[24..]);
        frame[16..24].copy_from_slice(&bytes(running));
    }
    other
}

#[test]
fn rule_24_a_log_counts_though_the_header_says_rollback_mode() {
    let scene = Scene::new(Start::LogLeft);
    let file = fs::File::options().write(true).open(&scene.path).unwrap();
    file.write_all_at(&[1, 1], 18).unwrap();
    let ours = open(&scene);
    ours.commit(1).unwrap();
    let mut stock = bundled(&scene);
    assert_eq!(values(&mut stock).unwrap(), 2);
}

#[test]
fn rule_25_a_commit_that_adds_a_page_tells_so_on_page_one() {
    let scene = Scene::new(Start::LogLeft);
    let ours = open(&scene);
    let mut write = ours.database().begin_write().unwrap();
    let added = write.allocate().unwrap();
    write.commit().unwrap();
    let read = ours.database().begin_read().unwrap();
    let page_one = read.page(PageNo::ONE).unwrap();
    assert_eq!(page_one[28..32], added.get().to_be_bytes());
    assert_eq!(page_one[24..28], page_one[92..96]);
    let rows = bundled(&scene).run("PRAGMA page_count").unwrap().unwrap();
    assert_eq!(rows.integer().unwrap(), i64::from(added.get()));
}

#[test]
fn rule_27_a_commit_to_a_long_log_checkpoints_it() {
    let scene = Scene::new(Start::Closed);
    let database = Options::new().open(&scene.path).unwrap();
    let backfilled = || {
        let index = fs::read(scene.file("-shm")).unwrap();
        u32::from_ne_bytes(index[96..100].try_into().unwrap())
    };
    let pages = Image::stamped_pages();
    for sequence in 1..=1000 / u64::from(pages.end - pages.start) {
        assert_eq!(backfilled_or_none(&scene, backfilled), 0);
        let mut write = database.begin_write().unwrap();
        for page in pages.clone() {
            let page_mut = write.page_mut(PageNo::new(page).unwrap()).unwrap();
            stamp(sequence).write(page, page_mut);
        }
        write.commit().unwrap();
    }
    assert_eq!(backfilled(), 1000, "stock SQLite checkpoints there, too");
}

/// Nothing is backfilled before there is an index.
fn backfilled_or_none(scene: &Scene, backfilled: impl Fn() -> u32) -> u32 {
    let len = fs::metadata(scene.file("-shm")).map_or(0, |index| index.len());
    if len < 100 { 0 } else { backfilled() }
}

#[test]
fn rule_30_readers_of_one_snapshot_share_one_mark() {
    let scene = Scene::new(Start::LogLeft);
    let ours = open(&scene);
    let reads: Vec<_> = (0..20)
        .map(|_| ours.database().begin_read().unwrap())
        .collect();
    let slot = reads[0].snapshot().slot().unwrap();
    assert!(
        reads
            .iter()
            .all(|read| read.snapshot().slot().unwrap() == slot)
    );
    let mut other = Worker::spawn().unwrap();
    let held: Vec<u64> = (123..128)
        .filter(|&byte| other.probe(&scene.file("-shm"), byte).unwrap().is_some())
        .collect();
    assert_eq!(held, [123 + slot.index() as u64]);
}

#[test]
fn rule_31_a_file_that_was_removed_or_replaced_is_not_written_any_more() {
    // How often the library looks.
    const NOTICED: Duration = Duration::from_millis(100);
    for suffix in ["", "-wal", "-shm"] {
        for replaced in [false, true] {
            let scene = Scene::new(Start::LogLeft);
            let ours = open(&scene);
            ours.commit(1).unwrap();
            let path = if suffix.is_empty() {
                scene.path.clone()
            } else {
                scene.file(suffix)
            };
            let content = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            if replaced {
                fs::write(&path, &content).unwrap();
            }
            let since = Instant::now();
            let refused = loop {
                // Of a commit that begins later, however long it takes.
                let must_notice = since.elapsed() > NOTICED;
                match ours.commit(2) {
                    Ok(_) => assert!(!must_notice, "`{suffix}`: not noticed"),
                    Err(error) => break error,
                }
            };
            assert!(
                matches!(refused, Error::Replaced { .. }),
                "{suffix}: {refused}"
            );
            // Once refused, always refused.
            assert!(matches!(ours.commit(3), Err(Error::Replaced { .. })));
        }
    }
}

#[test]
fn rule_32_a_database_in_exclusive_locking_mode_is_locked_and_gets_no_index() {
    for kind in StockKind::available() {
        let scene = Scene::new(Start::LogLeft);
        let mut stock = scene.stock(kind);
        run(
            &mut stock,
            "PRAGMA locking_mode=EXCLUSIVE; UPDATE t SET n=n+1",
        );
        let refused = Ours::open(&scene.path).unwrap_err();
        assert!(matches!(refused, Error::Locked { .. }), "{refused}");
        assert!(!scene.file("-shm").exists(), "an index was made");
        stock.kill().unwrap();
        let ours = open(&scene);
        let (count, _) = scene.expect_sound(scene.stock(kind), ours);
        assert_eq!(count, 3);
    }
}

#[test]
fn rule_32_a_peer_that_turns_exclusive_later_locks_ours_out_until_it_lets_go() {
    for kind in StockKind::available() {
        let scene = Scene::new(Start::LogLeft);
        let mut stock = scene.stock(kind);
        assert_eq!(values(&mut stock).unwrap(), 2);
        run(
            &mut stock,
            "PRAGMA locking_mode=EXCLUSIVE; UPDATE t SET n=n+1",
        );
        let refused = Ours::open(&scene.path)
            .and_then(|ours| ours.commit(1))
            .unwrap_err();
        assert!(refused.is_busy(), "{refused}");
        run(&mut stock, "PRAGMA locking_mode=NORMAL; UPDATE t SET n=n+1");
        let ours = open(&scene);
        ours.commit(1).unwrap();
        let (count, image) = scene.expect_sound(stock, ours);
        assert_eq!((count, image.sequence()), (4, 1));
    }
}

#[test]
fn rule_33_an_empty_log_that_was_left_is_no_log() {
    let scene = Scene::new(Start::Closed);
    fs::write(scene.file("-wal"), []).unwrap();
    let ours = open(&scene);
    ours.commit(1).unwrap();
    let (count, image) = scene.expect_sound(bundled(&scene), ours);
    assert_eq!((count, image.sequence()), (0, 1));
}

/// `journal_size_limit` cuts the log at the first commit of a generation.
#[test]
fn rule_33_a_log_that_a_peer_cuts_to_its_limit_goes_on() {
    for kind in StockKind::available() {
        let scene = Scene::new(Start::LogLeft);
        let ours = open(&scene);
        let mut stock = scene.stock(kind);
        run(&mut stock, "PRAGMA journal_size_limit=0");
        for round in 1..4 {
            for _ in 0..4 {
                ours.commit(round).unwrap();
            }
            ours.checkpoint(CheckpointMode::Passive).unwrap();
            let long = fs::metadata(scene.file("-wal")).unwrap().len();
            run(&mut stock, "UPDATE t SET n=n+1");
            let short = fs::metadata(scene.file("-wal")).unwrap().len();
            assert!(short < long, "the log was not cut");
            assert_eq!(ours.image().unwrap().sequence(), round);
        }
        let (count, image) = scene.expect_sound(stock, ours);
        assert_eq!((count, image.sequence()), (5, 3));
    }
}

#[test]
fn rule_35_a_database_that_stock_shrinks_and_grows_is_read_through_a_mapping() {
    for kind in StockKind::available() {
        let scene = Scene::new(Start::Closed);
        let mut stock = scene.stock(kind);
        run(&mut stock, "PRAGMA auto_vacuum=FULL; VACUUM");
        let ours = open(&scene);
        for round in 1..4 {
            run(&mut stock, "INSERT INTO u VALUES(zeroblob(200000))");
            run(&mut stock, "PRAGMA wal_checkpoint(TRUNCATE)");
            let large = ours.image().unwrap().len();
            run(&mut stock, "DELETE FROM u; UPDATE t SET n=n+1");
            let truncated = stock.run("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
            assert_eq!(truncated.unwrap().0[0][0], Value::Integer(0));
            let length = fs::metadata(&scene.path).unwrap().len();
            let small = ours.image().unwrap().len();
            assert!(small < large, "round {round}: the database did not shrink");
            assert_eq!(length, 512 * small as u64);
        }
        let (count, _) = scene.expect_sound(stock, ours);
        assert_eq!(count, 3);
    }
}

/// Ours under classic locks keeps the same two locks, so that the table above
/// holds for both kinds.
#[test]
fn rule_02_classic_locks_are_those_that_stock_knows() {
    let scene = Scene::new(Start::LogLeft);
    let mut settings = Settings::new(&scene.path);
    settings.classic_locks = true;
    let mut ours = Worker::open(&settings).unwrap();
    ours.commit(Image::stamped_pages(), stamp(1)).unwrap();
    let mut stock = bundled(&scene);
    assert_eq!(values(&mut stock).unwrap(), 2);
    stock.close().unwrap();
    assert!(scene.file("-wal").exists(), "the log was taken from ours");
    ours.end().unwrap();
    assert!(!scene.file("-wal").exists());
}
