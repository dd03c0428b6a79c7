//! Any bytes as the log of a database.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use wal_core::PageSize;
use wal_core::format::LogScan;
use wal_core::storage::MemoryFile;
use wal_core::protocol::{DatabaseKind, WalConfig};

fuzz_target!(|bytes: &[u8]| {
    let log = MemoryFile::new("fuzzed-wal", bytes.to_vec());
    let Ok(scan) = wal_core::format::scan(&log) else {
        return;
    };
    let check = wal_core::inspect::check_log(&log, |_, _| ()).ok().flatten();
    let of = |scan: &LogScan| (scan.max_frame(), scan.checksum, scan.uncommitted);
    assert_eq!(scan.as_ref().map(of), check.as_ref().map(|check| of(&check.scan)));
    let page_size = scan.map_or(PageSize::DEFAULT, |scan| scan.header.page_size);
    let files = common::Files::new(vec![0; 3 * page_size.len()], bytes.to_vec());
    let config = WalConfig::new(DatabaseKind::RawPages, page_size);
    common::use_it(&common::open(&files, config));
});
