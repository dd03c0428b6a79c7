//! Any bytes as a database file.
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use wal_core::storage::MemoryFile;
use wal_core::protocol::{Expected, inspect, inspect_immutable};

fuzz_target!(|bytes: &[u8]| {
    let file = MemoryFile::new("/nowhere/fuzzed", bytes.to_vec());
    let _ = inspect_immutable(&file, Expected::default());
    let Ok(config) = inspect(&file, Expected::default()) else {
        return;
    };
    let files = common::Files::new(bytes.to_vec(), Vec::new());
    common::use_it(&common::open(&files, config));
});
