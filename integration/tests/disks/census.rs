//! The holders of locks are found where `stat` has another device than the system's list of
//! locks: in a subvolume of btrfs, and on an overlay whose layers are on two disks.

#![cfg(target_os = "linux")] // Where locks are listed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::disk::{FileSystem, mount_overlay, with_disk};
use integration::stamped;
use integration::stock::{StockKind, StockSqlite};
use integration::worker::{self, Settings, WATCHDOG, Worker};
use wal_shm::inspect::{Census, LockByte};

/// Each lock of two users of a database in `directory` has its holder.
fn expect_holders_in(directory: &Path, system: &str) {
    let path = directory.join("app.db");
    if !path.exists() {
        stamped::create(&path, 1024, 4, "CREATE TABLE t(n)").unwrap();
    }
    let mut ours = Worker::open(&Settings::new(&path)).unwrap();
    let mut stock = StockSqlite::spawn(StockKind::Bundled, &path, None).unwrap();
    stock.run("BEGIN; SELECT * FROM t").unwrap().unwrap();
    ours.run(worker::Command::BeginWrite).unwrap();
    let census = Census::take(&path, WATCHDOG).unwrap();
    let of = |pid| {
        let held = census.held().filter(move |lock| lock.pid == Some(pid));
        held.map(|lock| lock.byte.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of(stock.pid()), ["SHARED", "READ(0)", "DMS"], "{system}");
    assert_eq!(
        of(ours.pid()),
        ["SHARED", "WRITE", "DMS", "ATTACHED"],
        "{system}"
    );
    assert!(
        census.held().all(|lock| lock.byte != LockByte::Other),
        "{system}"
    );
    stock.close().unwrap();
    ours.run(worker::Command::Rollback).unwrap();
    ours.end().unwrap();
}

#[test]
fn holders_are_named_on_each_file_system() {
    use FileSystem::{Btrfs, Ext4, Overlay, Tmpfs};
    for system in [Tmpfs, Overlay, Ext4, Btrfs] {
        if system.need().is_met(&format!("a census on {system}")) {
            with_disk(system, 0, |disk| {
                expect_holders_in(disk, &system.to_string())
            })
            .unwrap();
        }
    }
}

#[test]
fn holders_are_named_in_a_subvolume() {
    let system = FileSystem::Btrfs;
    if !system.need().is_met("a census in a subvolume") {
        return;
    }
    let in_subvolume = |disk: &Path| {
        let subvolume = disk.join("subvolume");
        let mut command = Command::new("btrfs");
        let made = command
            .args(["subvolume", "create"])
            .arg(&subvolume)
            .output();
        assert!(made.unwrap().status.success());
        expect_holders_in(&subvolume, "a subvolume");
    };
    with_disk(system, 0, in_subvolume).unwrap();
}

/// The database is in the lower layer, and copied to the upper one when it is opened.
#[test]
fn holders_are_named_on_an_overlay_of_two_disks() {
    if !FileSystem::Overlay
        .need()
        .is_met("a census on an overlay of two disks")
    {
        return;
    }
    let lower = tempfile::tempdir().unwrap();
    stamped::create(&lower.path().join("app.db"), 1024, 4, "CREATE TABLE t(n)").unwrap();
    let on_overlay = |disk: &Path| {
        let merged: PathBuf = mount_overlay(lower.path(), disk).unwrap();
        expect_holders_in(&merged, "an overlay of two disks");
    };
    with_disk(FileSystem::Tmpfs, 0, on_overlay).unwrap();
    assert_eq!(fs::read_dir(lower.path()).unwrap().count(), 1);
}
