//! Any bytes over the `-shm` file of a database that is in use. What is read
//! then may be wrong, as with stock SQLite, but every call ends, with an answer
//! or an error.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wal::{CheckpointMode, DatabaseKind, Options, PageNo, PageSize, Synchronous};

#[derive(Arbitrary, Debug)]
struct Patches {
    /// Offset in the file, and what is written there.
    patches: Vec<(u16, Vec<u8>)>,
    /// The two copies of the header are left alone, so that the rest is used.
    spares_header: bool,
}

fuzz_target!(|input: Patches| {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("pages");
    let options = Options::new()
        .kind(DatabaseKind::RawPages)
        .page_size(PageSize::MIN)
        .synchronous(Synchronous::Off)
        .auto_checkpoint(0)
        .busy_timeout(Duration::ZERO);
    let database = options.open(&path).expect("it is opened");
    for byte in 0..6 {
        let mut write = database.begin_write().expect("it begins");
        write.allocate().expect("it is added");
        write.page_mut(PageNo::ONE).expect("it is there")[0] = byte;
        write.commit().expect("it is committed");
    }
    let shm = File::options().write(true).open(directory.path().join("pages-shm"));
    let shm = shm.expect("the index is there");
    for (offset, bytes) in &input.patches {
        let offset = u64::from(*offset) % 32768;
        let from = if input.spares_header { 96 } else { 0 };
        let len = bytes.len().min((32768 - offset.max(from)) as usize);
        let _ = shm.write_all_at(&bytes[..len], offset.max(from));
    }
    if let Ok(read) = database.begin_read() {
        for number in 1..=read.page_count().min(50) {
            let _ = PageNo::new(number).and_then(|page| read.page(page).map(drop));
        }
    }
    if let Ok(mut write) = database.begin_write() {
        let written = write.page_mut(PageNo::ONE).map(|page| page[0] = 9);
        let _ = written.and_then(|()| write.commit());
    }
    let _ = database.checkpoint(CheckpointMode::Passive);
    let _ = database.checkpoint(CheckpointMode::Truncate);
    let _ = database.begin_read().map(drop);
    let _ = database.close();
});
