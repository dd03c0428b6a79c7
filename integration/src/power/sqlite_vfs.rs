//! Stock SQLite on a simulated disk: a VFS whose database and log are those of a [`Disk`], and
//! whose locks and index are memory of this process.
//!
//! # Model
//! A connection is a user, as a process is: the locks are those of SQLite's own VFS, granted to
//! files and not to processes. All other files, and those of other databases, are those of the
//! VFS that was the default before.
#![allow(unsafe_code)] // SQLite calls a VFS with raw pointers.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, Once};
use std::{fmt, ptr, slice};

use rusqlite::ffi;
use wal_core::storage::{File, FileSyncType, Storage, beside};
use wal_core::sync::Unpoison;

use super::{Disk, Interlude};

/// The name of the VFS.
pub const SIMULATED_VFS: &str = "simulated";
/// `WRITE`, by the numbers of SQLite.
const WRITE: c_int = 0;
const SLOTS: usize = 8;
const REGION_LEN: usize = 32 << 10;

/// A database of SQLite on a disk. Dropped, its name is one of the system's again.
pub struct SimulatedDatabase {
    path: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    disk: Disk,
    locks: Mutex<Locks>,
    write_releases: AtomicU64,
    after_write_release: Mutex<Option<Interlude>>,
}

#[derive(Default)]
struct Locks {
    /// Each user of the database file, with its level.
    levels: BTreeMap<u64, c_int>,
    slots: [Slot; SLOTS],
    regions: Vec<Region>,
}

/// A part of the index, which stays where it is.
struct Region(Box<[u64; REGION_LEN / 8]>);

#[derive(Default)]
struct Slot {
    exclusive: Option<u64>,
    shared: BTreeSet<u64>,
}

static DATABASES: Mutex<BTreeMap<PathBuf, Arc<Shared>>> = Mutex::new(BTreeMap::new());
static USERS: AtomicU64 = AtomicU64::new(1);

impl fmt::Debug for SimulatedDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedDatabase")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SimulatedDatabase {
    /// Puts the database `path`, a file that is there, on `disk`. The first call makes
    /// [`SIMULATED_VFS`] the default VFS.
    #[must_use]
    pub fn new(path: &Path, disk: &Disk) -> Self {
        register();
        let shared = Arc::new(Shared {
            disk: disk.clone(),
            locks: Mutex::default(),
            write_releases: AtomicU64::new(0),
            after_write_release: Mutex::default(),
        });
        let mut databases = DATABASES.lock().unpoison();
        databases.insert(path.to_owned(), shared.clone());
        SimulatedDatabase {
            path: path.to_owned(),
            shared,
        }
    }

    /// How often a connection has released `WRITE`.
    #[must_use]
    pub fn write_releases(&self) -> u64 {
        self.shared.write_releases.load(Ordering::SeqCst)
    }

    /// Drops all read locks, as a stray `close` of the index by its process does.
    pub fn lose_read_locks(&self) {
        let mut locks = self.shared.locks.lock().unpoison();
        locks.slots.iter_mut().for_each(|slot| slot.shared.clear());
    }

    /// Runs `interlude` behind the next release of `WRITE`, in the thread that releases it.
    pub fn after_write_release(&self, interlude: Interlude) {
        *self.shared.after_write_release.lock().unpoison() = Some(interlude);
    }
}

impl Drop for SimulatedDatabase {
    fn drop(&mut self) {
        DATABASES.lock().unpoison().remove(&self.path);
    }
}

/// Registers the VFS, once.
fn register() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: null asks for the default VFS.
        let default = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        BASE.store(default, Ordering::SeqCst);
        // SAFETY: it is there, and stays.
        let base = unsafe { &*default };
        let own_len = c_int::try_from(size_of::<OpenFile>()).unwrap_or(c_int::MAX);
        // The other methods do not use their first argument, or only what is copied here.
        let vfs = ffi::sqlite3_vfs {
            szOsFile: base.szOsFile.max(own_len),
            pNext: ptr::null_mut(),
            zName: c"simulated".as_ptr(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            ..*base
        };
        let vfs: &'static mut ffi::sqlite3_vfs = Box::leak(Box::new(vfs));
        // SAFETY: the VFS is whole, and stays.
        unsafe { ffi::sqlite3_vfs_register(vfs, 1) };
    });
}

/// The VFS that was the default before.
static BASE: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());

fn base() -> &'static ffi::sqlite3_vfs {
    // SAFETY: the methods are called behind `register`, and the VFS stays.
    unsafe { &*BASE.load(Ordering::SeqCst) }
}

/// The database of which `name` is the file (0) or the log (1).
fn find(name: *const c_char) -> Option<(Arc<Shared>, usize)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the name of a file is a C string.
    let name = Path::new(unsafe { CStr::from_ptr(name) }.to_str().ok()?);
    let databases = DATABASES.lock().unpoison();
    databases.iter().find_map(|(path, shared)| {
        let which = [path.clone(), beside(path, "-wal")]
            .iter()
            .position(|path| path == name)?;
        Some((shared.clone(), which))
    })
}

/// An open file, in memory of SQLite.
#[repr(C)]
struct OpenFile {
    methods: *const ffi::sqlite3_io_methods,
    user: *mut User,
}

struct User {
    shared: Arc<Shared>,
    which: usize,
    number: u64,
}

impl User {
    fn file(&self) -> &dyn File {
        match self.which {
            0 => self.shared.disk.database(),
            _ => self.shared.disk.log(),
        }
    }

    fn lock(&self, level: c_int) -> c_int {
        let mut locks = self.shared.locks.lock().unpoison();
        let mut others = locks
            .levels
            .iter()
            .filter(|(user, _)| **user != self.number);
        let bar = match level {
            ffi::SQLITE_LOCK_SHARED => ffi::SQLITE_LOCK_PENDING,
            ffi::SQLITE_LOCK_RESERVED => ffi::SQLITE_LOCK_RESERVED,
            _ => ffi::SQLITE_LOCK_SHARED,
        };
        if others.any(|(_, other)| *other >= bar) {
            return ffi::SQLITE_BUSY;
        }
        let own = locks.levels.entry(self.number).or_default();
        *own = level.max(*own);
        ffi::SQLITE_OK
    }

    fn unlock(&self, level: c_int) {
        let mut locks = self.shared.locks.lock().unpoison();
        match level {
            ffi::SQLITE_LOCK_NONE => drop(locks.levels.remove(&self.number)),
            _ => drop(locks.levels.insert(self.number, level)),
        }
    }

    fn lock_slots(&self, first: c_int, count: c_int, flags: c_int) -> c_int {
        let number = self.number;
        let (Ok(from), Ok(count)) = (usize::try_from(first), usize::try_from(count)) else {
            return ffi::SQLITE_ERROR;
        };
        let mut locks = self.shared.locks.lock().unpoison();
        let slots = &mut locks.slots[from..from + count];
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            for slot in slots {
                slot.exclusive.take_if(|owner| *owner == number);
                slot.shared.remove(&number);
            }
            drop(locks);
            if first == WRITE && flags & ffi::SQLITE_SHM_EXCLUSIVE != 0 {
                self.write_released();
            }
            return ffi::SQLITE_OK;
        }
        let is_shared = flags & ffi::SQLITE_SHM_SHARED != 0;
        let bars = |slot: &Slot| {
            let by_others = slot.shared.iter().any(|user| *user != number);
            slot.exclusive.is_some_and(|owner| owner != number) || !is_shared && by_others
        };
        if slots.iter().any(bars) {
            return ffi::SQLITE_BUSY;
        }
        for slot in slots {
            match is_shared {
                true => drop(slot.shared.insert(number)),
                false => slot.exclusive = Some(number),
            }
        }
        ffi::SQLITE_OK
    }

    fn write_released(&self) {
        self.shared.write_releases.fetch_add(1, Ordering::SeqCst);
        let interlude = self.shared.after_write_release.lock().unpoison().take();
        if let Some(mut interlude) = interlude {
            interlude();
        }
    }

    /// Where region `index` is; null if it is not there, and is not to be made.
    fn region(&self, index: usize, extend: bool) -> *mut c_void {
        let mut locks = self.shared.locks.lock().unpoison();
        while extend && locks.regions.len() <= index {
            locks.regions.push(Region(Box::new([0; REGION_LEN / 8])));
        }
        let region = locks.regions.get_mut(index);
        region.map_or(ptr::null_mut(), |region| region.0.as_mut_ptr().cast())
    }

    fn unmap(&self) {
        let mut locks = self.shared.locks.lock().unpoison();
        for slot in &mut locks.slots {
            slot.exclusive.take_if(|owner| *owner == self.number);
            slot.shared.remove(&self.number);
        }
    }
}

fn code(result: wal_core::Result<()>, failed: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(_) => failed,
    }
}

/// The user of `file`, which this VFS has opened.
fn user_of<'f>(file: *mut ffi::sqlite3_file) -> &'f User {
    // SAFETY: `open` has stored the pointer.
    let user = unsafe { (*file.cast::<OpenFile>()).user };
    // SAFETY: SQLite calls nothing behind `close`.
    unsafe { &*user }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some((shared, which)) = find(name) else {
        return match base().xOpen {
            // SAFETY: the base gets the arguments of this call.
            Some(open) => unsafe { open(vfs, name, file, flags, out_flags) },
            None => ffi::SQLITE_ERROR,
        };
    };
    let number = USERS.fetch_add(1, Ordering::Relaxed);
    let user = Box::into_raw(Box::new(User {
        shared,
        which,
        number,
    }));
    let opened = OpenFile {
        methods: &raw const METHODS,
        user,
    };
    // SAFETY: the file has room for this.
    unsafe { file.cast::<OpenFile>().write(opened) };
    if !out_flags.is_null() {
        // SAFETY: the caller wants to know the flags.
        unsafe { *out_flags = flags };
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    match find(name) {
        Some((shared, 1)) => {
            let removed = shared.disk.remove_log().and_then(|()| match sync {
                0 => Ok(()),
                _ => shared.disk.sync_directory(),
            });
            code(removed, ffi::SQLITE_IOERR_DELETE)
        }
        Some(_) => ffi::SQLITE_ERROR,
        None => match base().xDelete {
            // SAFETY: as in `open`.
            Some(delete) => unsafe { delete(vfs, name, sync) },
            None => ffi::SQLITE_ERROR,
        },
    }
}

unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let Some((shared, which)) = find(name) else {
        return match base().xAccess {
            // SAFETY: as in `open`.
            Some(access) => unsafe { access(vfs, name, flags, out) },
            None => ffi::SQLITE_ERROR,
        };
    };
    let is_there = which == 0 || shared.disk.log().len().is_ok_and(|len| len > 0);
    // SAFETY: the caller wants to know.
    unsafe { *out = c_int::from(is_there) };
    ffi::SQLITE_OK
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let user = user_of(file);
    user.unlock(ffi::SQLITE_LOCK_NONE);
    // SAFETY: as in `user_of`.
    let user = unsafe { (*file.cast::<OpenFile>()).user };
    // SAFETY: the pointer is that of a box, and this call takes it.
    drop(unsafe { Box::from_raw(user) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    len: c_int,
    offset: i64,
) -> c_int {
    let len = usize::try_from(len).unwrap_or(0);
    // SAFETY: SQLite passes a buffer of that length.
    let buffer = unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
    match user_of(file).file().read_at(buffer, offset.cast_unsigned()) {
        Ok(read) if read == len => ffi::SQLITE_OK,
        Ok(read) => {
            buffer[read..].fill(0);
            ffi::SQLITE_IOERR_SHORT_READ
        }
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    len: c_int,
    offset: i64,
) -> c_int {
    let len = usize::try_from(len).unwrap_or(0);
    // SAFETY: SQLite passes so many bytes.
    let bytes = unsafe { slice::from_raw_parts(bytes.cast::<u8>(), len) };
    let file = user_of(file).file();
    let written = file.write_all_at(&mut [IoSlice::new(bytes)], offset.cast_unsigned());
    code(written, ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    let cut = user_of(file).file().set_len(len.cast_unsigned());
    code(cut, ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    let synced = user_of(file).file().sync(FileSyncType::Data);
    code(synced, ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    let Ok(len) = user_of(file).file().len() else {
        return ffi::SQLITE_IOERR_FSTAT;
    };
    // SAFETY: the caller wants to know.
    unsafe { *out = len.cast_signed() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    user_of(file).lock(level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    user_of(file).unlock(level);
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    let locks = user_of(file).shared.locks.lock().unpoison();
    let is_reserved = |level: &c_int| *level >= ffi::SQLITE_LOCK_RESERVED;
    // SAFETY: the caller wants to know.
    unsafe { *out = c_int::from(locks.levels.values().any(is_reserved)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    512
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    _len: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let index = usize::try_from(region).unwrap_or(0);
    // SAFETY: the caller wants to know.
    unsafe { *out = user_of(file).region(index, extend != 0) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    user_of(file).lock_slots(first, count, flags)
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {
    fence(Ordering::SeqCst);
}

/// The regions stay: their users may be many, and the disk is given up as a whole.
unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    let user = user_of(file);
    user.unmap();
    if delete != 0 {
        // The last user forgets what the index has.
        for region in &mut user.shared.locks.lock().unpoison().regions {
            region.0.fill(0);
        }
    }
    ffi::SQLITE_OK
}
