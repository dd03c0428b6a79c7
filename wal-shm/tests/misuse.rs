//! What safe code can call on a coordination does no harm to its other users.
// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use wal_core::storage::{OpenMode, beside};
use wal_core::{Error, WalCoordination};
use wal_shm::{ShmOptions, ShmWalCoordination};

fn open(path: &Path) -> ShmWalCoordination {
    let options = ShmOptions::default();
    let opened = ShmWalCoordination::open(path, OpenMode::Existing, options, |_| Ok(()));
    opened.unwrap().0
}

#[test]
fn index_is_removed_by_its_last_user_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pages");
    fs::write(&path, [0; 512]).unwrap();
    let (one, two) = (open(&path), open(&path));
    let refused = |user: &ShmWalCoordination| {
        matches!(user.remove(), Err(Error::Refused { .. })) && beside(&path, "-shm").exists()
    };
    assert!(refused(&one), "before it left");
    assert!(!one.detach().unwrap());
    assert!(!one.detach().unwrap(), "it left for another user");
    assert!(refused(&one), "after it left");
    assert!(two.detach().unwrap(), "it is the last one");
    two.remove().unwrap();
    assert!(!beside(&path, "-shm").exists());
}
