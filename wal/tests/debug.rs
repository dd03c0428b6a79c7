//! What `{:?}` prints fits a line of a program's own log, and holds no page.
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::fmt::Debug;
use std::time::Duration;

use tempfile::TempDir;
use wal::generic::Database;
use wal::{
    Backend, BusyHandler, Cancel, CheckpointMode, CheckpointOptions, DatabaseKind, Error, Lock,
    Options, PageNo, PageSize, VacuumOptions,
};
use wal_core::WalCoordination;
use wal_core::format::scan;
use wal_core::storage::{File, MemoryFile, OpenMode, OsFile, OsStorage, beside};
use wal_core::wait::WaitState;

/// Without the path of a database.
const MOST_BYTES: usize = 300;
/// What all pages hold; no count here is that large.
const BYTE: u8 = 250;
const PAGES: u32 = 100;

struct Sweep {
    directory: TempDir,
    too_long: Vec<String>,
}

impl Sweep {
    fn look(&mut self, name: &str, value: &dyn Debug) {
        let path = self.directory.path().display().to_string();
        let text = format!("{value:?}").replace(&path, "");
        let holds_pages = holds_pages(&text);
        if text.len() > MOST_BYTES || text.contains('\n') || holds_pages {
            let start: String = text.chars().take(200).collect();
            let line = format!(
                "{name}: {} bytes, pages: {holds_pages}: {start}",
                text.len()
            );
            self.too_long.push(line);
        }
    }

    fn finish(self) {
        assert!(self.too_long.is_empty(), "{}", self.too_long.join("\n"));
    }
}

/// True if `text` has the bytes of a page or a frame header. A checksum may have the byte twice in
/// a row, those have it more often.
fn holds_pages(text: &str) -> bool {
    text.contains(&format!("{BYTE}, ").repeat(8))
}

fn sweep() -> Sweep {
    Sweep {
        directory: tempfile::tempdir().unwrap(),
        too_long: Vec::new(),
    }
}

fn fill<B: Backend>(database: &Database<B>) {
    let added = database.write(|tx| {
        tx.set_page_count(PAGES)?;
        for number in 2..=PAGES {
            tx.page_mut(PageNo::new(number)?)?.fill(BYTE);
        }
        Ok::<_, Error>(())
    });
    added.unwrap();
}

fn sweep_handles<B: Backend>(sweep: &mut Sweep, database: &Database<B>) {
    fill(database);
    sweep.look("Database", database);
    let read = database.begin_read().unwrap();
    sweep.look("ReadTx", &read);
    sweep.look("Snapshot", read.snapshot());
    sweep.look("SavedSnapshot", &read.snapshot().save());
    let page = PageNo::new(2).unwrap();
    sweep.look("PageRef", &read.page(page).unwrap());
    sweep.look("FrameNo", &read.find_frame(page).unwrap());
    let refused = database.write(|_tx| Ok::<_, Error>(read.try_clone()?.upgrade().unwrap_err()));
    sweep.look("UpgradeRefused", &refused.unwrap());
    let held = read.hold(Duration::from_secs(60)).unwrap();
    sweep.look("HeldSnapshot", &held);
    drop(held);

    let mut write = database.begin_write().unwrap();
    sweep.look("WriteTx", &write);
    sweep.look("Savepoint", &write.savepoint());
    for number in 2..=PAGES {
        write
            .page_mut(PageNo::new(number).unwrap())
            .unwrap()
            .fill(BYTE);
    }
    sweep.look("WriteTx with pages", &write);
    sweep.look("PageRef of a WriteTx", &write.page(page).unwrap());
    write.spill().unwrap();
    sweep.look("WriteTx in the log", &write);
    drop(write);
}

fn sweep_log<B: Backend>(sweep: &mut Sweep, database: &Database<B>) {
    let mut tail = database.tail().unwrap();
    sweep.look("Tail", &tail);
    let position = tail.position();
    sweep.look("TailPosition", &position);
    fill(database);
    let resumed = database.resume_tail(position).unwrap();
    sweep.look("ResumedTail", &resumed);
    drop(resumed);
    let mut frames = tail.advance().unwrap();
    sweep.look("TailFrames", &frames);
    let frame = frames.next().unwrap().unwrap();
    sweep.look("RawFrame", &frame);
    drop(frame);
    drop(tail);

    let mut apply = database.begin_apply().unwrap();
    let next = apply.position().frame + 1;
    let gap = apply.apply(
        wal::FrameNo::new(next + 9).unwrap(),
        &[BYTE; 24],
        &[BYTE; 4096],
    );
    sweep.look("Error", &gap.unwrap_err());
    sweep.look("ApplyTx", &apply);
    drop(apply);

    let report = database.checkpoint(CheckpointMode::Full).unwrap();
    sweep.look("CheckpointReport", &report);
    sweep.look("HeldBack", &report.held_back_by);
    sweep.look(
        "BackfillProof",
        &database.prove_backfill().unwrap().unwrap(),
    );
    let vacuum = VacuumOptions::new();
    sweep.look("VacuumOptions", &vacuum);
    for vacuum in [vacuum.clone(), vacuum.exclusive()] {
        let mut debugs = Vec::new();
        let report = database.vacuum(&vacuum, |old, new| {
            debugs.push(format!("{old:?}"));
            new.push(&old.page(PageNo::ONE)?)?;
            new.push(&[BYTE; 4096])?;
            debugs.push(format!("{new:?}"));
            Ok(())
        });
        sweep.look("VacuumReport", &report.unwrap());
        for text in debugs {
            assert!(text.len() < 2 * MOST_BYTES && !holds_pages(&text), "{text}");
        }
    }
}

fn sweep_attachments<B: Backend>(sweep: &mut Sweep, name: &str) {
    let path = sweep.directory.path().join(name);
    let options = Options::new()
        .kind(DatabaseKind::RawPages)
        .auto_checkpoint(0);
    let database = Database::<B>::open_with(&path, &options).unwrap();
    sweep_handles(sweep, &database);
    sweep_log(sweep, &database);
    database.close().unwrap();
    let attachment = B::attach(&path, &options).unwrap();
    sweep.look("Attachment", &attachment);
}

#[cfg(feature = "shm")]
#[test]
fn debug_of_shared_databases_is_one_short_line() {
    let mut sweep = sweep();
    sweep_attachments::<wal_shm::ShmWalCoordination>(&mut sweep, "shared");
    sweep.finish();
}

#[cfg(feature = "inproc")]
#[test]
fn debug_of_databases_in_process_is_one_short_line() {
    let mut sweep = sweep();
    sweep_attachments::<wal_inproc::InProcessWalCoordination>(&mut sweep, "in-process");
    sweep.finish();
}

fn open_core<C: WalCoordination + Debug>(sweep: &mut Sweep, coordination: C) {
    use wal_core::protocol::{DatabaseKind, Wal, WalConfig};

    sweep.look("coordination", &coordination);
    let path = sweep.directory.path().join("core");
    let file = OsFile::open(&path, OpenMode::Create)
        .unwrap()
        .with_mapping(true);
    let database = std::sync::Arc::new(file);
    sweep.look("OsFile", &database);
    let storage = OsStorage::open(database, true).unwrap();
    sweep.look("OsStorage", &storage);
    let config = WalConfig::new(DatabaseKind::RawPages, PageSize::DEFAULT);
    sweep.look("WalConfig", &config);
    let wal = Wal::new(coordination, Box::new(storage), config);
    sweep.look("Wal", &wal);
    let lock = || {
        wal.try_begin_vacuum_checkpoint_lock(Duration::ZERO)
            .unwrap()
    };
    sweep.look("VacuumCheckpointLock", &lock());
    sweep.look("VacuumLockGuard", &lock().exclude_all().unwrap());
    let mut vacuum = lock().begin_vacuum_blocking_tx().unwrap();
    sweep.look("VacuumTx", &vacuum);
    let page = vacuum.tx().allocate().unwrap();
    vacuum.tx().page_mut(page).unwrap().fill(BYTE);
    sweep.look("VacuumTx", &vacuum);
    drop(vacuum.commit().unwrap());
    let log = OsFile::open(&beside(&path, "-wal"), OpenMode::Existing).unwrap();
    sweep.look("OsFile of the log", &log);
    sweep.look("LogScan", &scan(&log).unwrap());
}

#[cfg(feature = "inproc")]
#[test]
fn debug_of_core_types_is_one_short_line() {
    let mut sweep = sweep();
    let path = sweep.directory.path().join("core");
    let coordination = wal_inproc::InProcessWalCoordination::in_memory(&path);
    open_core(&mut sweep, coordination);
    let memory = MemoryFile::new(&path, vec![BYTE; 100_000]);
    sweep.look("MemoryFile", &memory);
    assert_eq!(memory.len().unwrap(), 100_000);
    sweep.look("WaitState", &WaitState::default());
    sweep.look("WriterQueue", WaitState::default().writer_queue());
    sweep.look("SyncedLog", WaitState::default().synced());
    let lock = wal_inproc::slot_lock::SlotLock::with_stripes(16, u32::MAX);
    sweep.look("SlotLock", &lock);
    sweep.look("InProcessOptions", &wal_inproc::InProcessOptions::default());
    sweep.finish();
}

#[cfg(feature = "shm")]
#[test]
fn debug_of_options_and_shared_memory_is_one_short_line() {
    use wal_shm::{ShmOptions, ShmWalCoordination};

    let mut sweep = sweep();
    let path = sweep.directory.path().join("core");
    let open = ShmWalCoordination::open(&path, OpenMode::Create, ShmOptions::default(), |_| Ok(()));
    open_core(&mut sweep, open.unwrap().0);
    sweep.look("ShmOptions", &ShmOptions::default());
    let options = Options::new().read_only(true).max_log_frames(12_345);
    sweep.look("Options", &options);
    let text = format!("{options:?}");
    assert!(
        text.contains("read_only: true, ..") && text.contains("12345"),
        "{text}"
    );
    let busy = BusyHandler::ask(|_, _| false).cancelled_by(&Cancel::new());
    sweep.look("BusyHandler", &busy);
    let checkpoint = CheckpointOptions::new(CheckpointMode::Full).busy(busy);
    sweep.look("CheckpointOptions", &checkpoint);
    sweep.look("Lock", &Lock::ReadMarks);
    sweep.finish();
}
