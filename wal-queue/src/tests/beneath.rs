//! A VFS beneath, of which there is only the lock `WRITE` of one database.
#![allow(unsafe_code)] // It stands for a VFS, which is called with raw pointers.

use std::ffi::{c_char, c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

use tempfile::TempDir;
use wal_core::index::{BLOCK_LEN, WritableBlock};
use wal_core::storage::HeldPath;

use crate::base_file::BaseFile;
use crate::ffi::{self, Connection, File, IoMethods};
use crate::main_file::MainFile;
use crate::options::Options;
use crate::queue::Queue;

/// A database, whose side file is in a folder.
pub(super) struct Database {
    folder: TempDir,
    /// The connection that has `WRITE`, by its address; 0 for none.
    owner: AtomicUsize,
    /// How often `WRITE` was tried.
    tries: AtomicUsize,
    /// How many lock calls are in progress, and whether two ever were.
    in_progress: AtomicUsize,
    overlapped: AtomicUsize,
    /// The last timeout that the VFS beneath was told.
    timeout: AtomicI32,
}

/// A connection, as SQLite has it open: a file of the VFS beneath.
#[repr(C)]
struct OpenFile {
    base: File,
    database: Arc<Database>,
}

/// A connection.
pub(super) struct Opened {
    pub(super) main: Arc<MainFile>,
    file: *mut OpenFile,
    index: Box<WritableBlock>,
}

impl Database {
    pub(super) fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("db"), b"").unwrap();
        Arc::new(Database {
            folder,
            owner: AtomicUsize::new(0),
            tries: AtomicUsize::new(0),
            in_progress: AtomicUsize::new(0),
            overlapped: AtomicUsize::new(0),
            timeout: AtomicI32::new(0),
        })
    }

    pub(super) fn tries(&self) -> usize {
        self.tries.load(Ordering::SeqCst)
    }

    /// True if two lock calls were in progress at the same time.
    pub(super) fn has_overlapped(&self) -> bool {
        self.overlapped.load(Ordering::SeqCst) != 0
    }

    pub(super) fn timeout(&self) -> c_int {
        self.timeout.load(Ordering::SeqCst)
    }

    /// A peer that is not in the queue acquires `WRITE`.
    pub(super) fn peer_locks(&self) {
        assert_eq!(self.owner.swap(usize::MAX, Ordering::SeqCst), 0);
    }

    pub(super) fn peer_unlocks(&self) {
        assert_eq!(self.owner.swap(0, Ordering::SeqCst), usize::MAX);
    }

    pub(super) fn has_owner(&self) -> bool {
        self.owner.load(Ordering::SeqCst) != 0
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Queue::of(HeldPath::of(&self.path()).unwrap()).unwrap()
    }

    pub(super) fn path(&self) -> std::path::PathBuf {
        Path::join(self.folder.path(), "db")
    }

    /// A connection that has mapped the wal-index.
    pub(super) fn open(self: &Arc<Self>) -> Opened {
        self.open_with(Options::default())
    }

    /// The same with a read transaction that asks for `WRITE`.
    pub(super) fn open_reading(self: &Arc<Self>) -> Opened {
        unsafe extern "C" fn reads(_connection: *mut Connection, _name: *const c_char) -> c_int {
            ffi::TXN_READ
        }
        self.open_for_connection(Options {
            txn_state: Some(reads),
            ..Options::default()
        })
    }

    /// The same in a transaction that reserves `WRITE` after a refusal.
    pub(super) fn open_reserving(self: &Arc<Self>) -> Opened {
        unsafe extern "C" fn autocommit(_connection: *mut Connection) -> c_int {
            0
        }
        self.open_for_connection(Options {
            reserve: Some(autocommit),
            ..Options::default()
        })
    }

    fn open_for_connection(self: &Arc<Self>, options: Options) -> Opened {
        let opened = self.open_with(options);
        // No function uses the connection.
        let connection = Box::leak(Box::new(std::ptr::dangling_mut::<Connection>()));
        opened.main.owner().set_place(connection);
        opened
    }

    pub(super) fn open_with(self: &Arc<Self>, options: Options) -> Opened {
        let file = Box::into_raw(Box::new(OpenFile {
            base: File { methods: &METHODS },
            database: self.clone(),
        }));
        // SAFETY: the file is freed after the last call, in `drop`.
        let base = unsafe { BaseFile::new(file.cast(), &METHODS) };
        let main = MainFile::new(base, &self.path(), true, options);
        let mut index = WritableBlock::zeroed();
        let mut place: *mut c_void = std::ptr::from_mut(&mut *index).cast();
        let len = c_int::try_from(BLOCK_LEN).unwrap();
        main.mapped(0, len, ffi::OK, &raw mut place);
        Opened { main, file, index }
    }
}

impl Opened {
    pub(super) fn acquire_write(&self) -> c_int {
        self.main.shm_lock(0, 1, ffi::SHM_LOCK | ffi::SHM_EXCLUSIVE)
    }

    pub(super) fn release_write(&self) -> c_int {
        self.main
            .shm_lock(0, 1, ffi::SHM_UNLOCK | ffi::SHM_EXCLUSIVE)
    }

    /// Publishes a commit: the change counter of the header is another one.
    pub(super) fn publish(&self) {
        // The words of a block are atomics of 32 bits.
        let words = std::ptr::from_ref(&*self.index).cast::<[AtomicU32; 3]>();
        // SAFETY: a block is longer than that, and the change counter is the third word.
        let [.., change] = unsafe { &*words };
        change.fetch_add(1, Ordering::SeqCst);
    }

    /// Begins to read, with `READ(0)`.
    pub(super) fn read(&self) -> c_int {
        self.main.shm_lock(3, 1, ffi::SHM_LOCK | ffi::SHM_SHARED)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.main.close();
        // SAFETY: `open` has made it, and a closed file is not called.
        drop(unsafe { Box::from_raw(self.file) });
    }
}

/// The database of `file`.
fn database_of<'f>(file: *mut File) -> &'f Database {
    // SAFETY: the methods are called for files of `open`.
    unsafe { &(*file.cast::<OpenFile>()).database }
}

unsafe extern "C" fn shm_lock(file: *mut File, first: c_int, _count: c_int, flags: c_int) -> c_int {
    let database = database_of(file);
    if database.in_progress.fetch_add(1, Ordering::SeqCst) != 0 {
        database.overlapped.store(1, Ordering::SeqCst);
    }
    // Another thread gets a chance to come between.
    std::thread::yield_now();
    let code = match first {
        0 => lock_write(database, file as usize, flags),
        _ => ffi::OK,
    };
    database.in_progress.fetch_sub(1, Ordering::SeqCst);
    code
}

fn lock_write(database: &Database, own: usize, flags: c_int) -> c_int {
    let owner = &database.owner;
    let (from, to) = match flags & ffi::SHM_LOCK != 0 {
        true => (0, own),
        false => (own, 0),
    };
    if to == own {
        database.tries.fetch_add(1, Ordering::SeqCst);
    }
    match owner.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => ffi::OK,
        // As SQLite does, it grants a lock again.
        Err(current) if current == own || to == 0 => ffi::OK,
        Err(_) => ffi::BUSY,
    }
}

unsafe extern "C" fn file_control(
    file: *mut File,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    if operation == ffi::FCNTL_LOCK_TIMEOUT {
        // SAFETY: the argument of this operation is a pointer to an integer.
        let millis = unsafe { &mut *argument.cast::<c_int>() };
        *millis = database_of(file).timeout.swap(*millis, Ordering::SeqCst);
    }
    ffi::OK
}

unsafe extern "C" fn nothing(_file: *mut File) -> c_int {
    ffi::OK
}

unsafe extern "C" fn read(_file: *mut File, _to: *mut c_void, _len: c_int, _at: i64) -> c_int {
    ffi::OK
}

unsafe extern "C" fn write(_file: *mut File, _from: *const c_void, _len: c_int, _at: i64) -> c_int {
    ffi::OK
}

unsafe extern "C" fn truncate(_file: *mut File, _len: i64) -> c_int {
    ffi::OK
}

unsafe extern "C" fn file_size(_file: *mut File, _len: *mut i64) -> c_int {
    ffi::OK
}

unsafe extern "C" fn with_flags(_file: *mut File, _flags: c_int) -> c_int {
    ffi::OK
}

unsafe extern "C" fn is_reserved(_file: *mut File, _out: *mut c_int) -> c_int {
    ffi::OK
}

unsafe extern "C" fn shm_map(
    _file: *mut File,
    _region: c_int,
    _len: c_int,
    _extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: the caller passes a place for it.
    unsafe { *out = null_mut() };
    ffi::OK
}

static METHODS: IoMethods = IoMethods {
    version: 2,
    close: nothing,
    read,
    write,
    truncate,
    sync: with_flags,
    file_size,
    lock: with_flags,
    unlock: with_flags,
    check_reserved_lock: is_reserved,
    file_control,
    sector_size: nothing,
    device_characteristics: nothing,
    shm_map: Some(shm_map),
    shm_lock: Some(shm_lock),
    shm_barrier: None,
    shm_unmap: Some(with_flags),
    fetch: None,
    unfetch: None,
};
