//! Opens and closes logs for the engine (`libsql_wal_manager`).
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_longlong, c_uchar};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use libsql_ffi as ffi;
#[cfg(feature = "shm")]
use wal_core::Error;
use wal_core::Result;
use wal_core::protocol::{DatabaseKind, Wal, WalConfig};
use wal_core::storage::{ByteLocks, Claim, LockKind};
use wal_core::sync::Unpoison;
use wal_inproc::InProcessWalCoordination;

use crate::engine_file::EngineFile;
use crate::engine_log::{self, Request};
use crate::guard::guarded;
use crate::log::{BackendLog, Log};
use crate::methods::{self, METHODS};
use crate::options::{BackendKind, WalOptions};
use crate::storage::EngineStorage;
use crate::{code, handle, place};

impl WalOptions {
    /// The manager to give to `libsql_open_v3`. It owns nothing, so it can be
    /// given to any number of calls. `sqlite3_initialize` has to be called
    /// before.
    pub fn manager(self) -> ffi::libsql_wal_manager {
        ffi::libsql_wal_manager {
            // So the engine asks for a file system that has `-shm` for its own
            // log, which is one with the locks that others look at.
            bUsesShm: 1,
            xOpen: Some(open),
            xClose: Some(close),
            xLogDestroy: Some(log_destroy),
            xLogExists: Some(log_exists),
            xDestroy: Some(destroy),
            pData: std::ptr::from_ref(self.for_ever()).cast_mut().cast(),
        }
    }

    /// These options in memory that is never freed: one copy of each that the
    /// program uses. The engine destroys a manager twice if it cannot get a
    /// mutex, and not at all if it cannot get memory, so its data has no owner.
    fn for_ever(self) -> &'static WalOptions {
        static USED: Mutex<Vec<&'static WalOptions>> = Mutex::new(Vec::new());
        let mut used = USED.lock().unpoison();
        match used.iter().find(|options| ***options == self) {
            Some(options) => options,
            None => {
                let options: &'static WalOptions = Box::leak(Box::new(self));
                used.push(options);
                options
            }
        }
    }
}

unsafe extern "C" fn open(
    data: *mut ffi::wal_manager_impl,
    vfs: *mut ffi::sqlite3_vfs,
    file: *mut ffi::sqlite3_file,
    no_shm: c_int,
    limit: c_longlong,
    name: *const c_char,
    out: *mut ffi::libsql_wal,
) -> c_int {
    let request = Request {
        vfs,
        file,
        no_shm: no_shm != 0,
        limit,
        name,
        out,
    };
    guarded(ffi::SQLITE_INTERNAL, || {
        // SAFETY: the engine gives back what `manager` made.
        let options: &'static WalOptions = unsafe { &*data.cast::<WalOptions>() };
        let (Some(vfs), Some(file), false) = (
            NonNull::new(request.vfs),
            NonNull::new(request.file),
            name.is_null(),
        ) else {
            return ffi::SQLITE_MISUSE;
        };
        // SAFETY: the engine's name of the file ends with a zero.
        let name = unsafe { CStr::from_ptr(name) };
        let path = Path::new(OsStr::from_bytes(name.to_bytes()));
        // SAFETY: the engine closes the log before the file, and calls from
        // one thread at a time.
        let file = unsafe { EngineFile::new(file, path.to_owned()) };
        // SAFETY: the VFS has opened the file.
        match unsafe { place::is_beside(vfs, &file, options) } {
            Ok(true) => open_ours(options, &file, request),
            // SAFETY: the engine's arguments.
            Ok(false) => unsafe { open_engine_log(options, &file, request) },
            Err(error) => code::told(&error),
        }
    })
}

/// # Safety
/// The arguments are those with which the engine opens the log of `file`.
unsafe fn open_engine_log(options: &WalOptions, file: &EngineFile, request: Request) -> c_int {
    engine_log::note(file);
    match options.backend {
        #[cfg(feature = "inproc")]
        // SAFETY: as the caller says.
        BackendKind::InProcess => unsafe { engine_log::open_alone(request, file) },
        // SAFETY: as the caller says.
        #[cfg(feature = "shm")]
        BackendKind::Shared => unsafe { engine_log::open(request) },
    }
}

fn open_ours(options: &'static WalOptions, file: &Arc<EngineFile>, request: Request) -> c_int {
    let no_shm = request.no_shm;
    let limit = u64::try_from(request.limit).ok();
    let open = move |file: &Arc<EngineFile>| {
        let log = open_log(options, file, no_shm, limit)?;
        // What was opened by its name may be another file's, if this one was replaced
        // since it was looked for.
        file.check_in_place().map(|()| log)
    };
    match handle::open(file.clone(), Box::new(open)) {
        Ok(log) => {
            let wal = ffi::libsql_wal {
                methods: METHODS,
                pData: log,
            };
            // SAFETY: the engine gives room for the log.
            unsafe { request.out.write(wal) };
            ffi::SQLITE_OK
        }
        Err(error) => {
            #[cfg(feature = "inproc")]
            if options.backend == BackendKind::InProcess && !no_shm {
                // It may have come as far as PENDING.
                file.lock_shared_only();
            }
            code::told(&error)
        }
    }
}

/// The log of `file`, for the first time or in the place of one that is open: locks on
/// the file are taken, and stay if this fails.
fn open_log(
    options: &WalOptions,
    file: &Arc<EngineFile>,
    no_shm: bool,
    limit: Option<u64>,
) -> Result<Box<dyn Log>> {
    match options.backend {
        // The engine holds EXCLUSIVE already.
        _ if no_shm => open_on_heap(file, limit),
        #[cfg(feature = "shm")]
        BackendKind::Shared => open_shared(options, file, limit),
        #[cfg(feature = "inproc")]
        BackendKind::InProcess => {
            file.lock_exclusive()?;
            open_on_heap(file, limit)
        }
    }
}

fn config(storage: &EngineStorage, limit: Option<u64>) -> Result<WalConfig> {
    // The pages are the engine's, page 1 too: nothing is stamped on it.
    let mut config = WalConfig::new(DatabaseKind::RawPages, storage.page_size()?);
    config.log_size_limit = limit;
    // The engine checkpoints, without waiting for readers.
    config.auto_actions.checkpoint = 0;
    Ok(config)
}

fn open_on_heap(file: &Arc<EngineFile>, limit: Option<u64>) -> Result<Box<dyn Log>> {
    let path = wal_core::storage::File::path(&**file);
    // The system keeps the engine's locks apart from all but classic ones of this process.
    let locks = ByteLocks::new(LockKind::OpenFileDescription);
    let claim = Claim::acquire(file.held_path()?, file.id()?, locks)?;
    // Copied: the engine's EXCLUSIVE is a classic lock, which anything in this process that
    // closes the file drops.
    let storage = EngineStorage::open(file.clone(), false)?;
    let config = config(&storage, limit)?;
    let coordination = InProcessWalCoordination::of_engine(path, claim);
    let wal = Wal::new(coordination, Box::new(storage), config);
    Ok(Box::new(BackendLog::new(wal, file.clone(), true)))
}

#[cfg(feature = "shm")]
fn open_shared(
    options: &WalOptions,
    file: &Arc<EngineFile>,
    limit: Option<u64>,
) -> Result<Box<dyn Log>> {
    use wal_shm::{Access, ShmOptions, ShmWalCoordination};

    use crate::engine_file::Owner;

    let path = wal_core::storage::File::path(&**file);
    let mut shm = ShmOptions::default();
    shm.allow_network_file_system = options.network;
    shm.close_descriptors = options.close_descriptors;
    shm.lock_kind = options.lock_kind;
    shm.read_lock_delay = options.read_lock_delay.unwrap_or(shm.read_lock_delay);
    shm.mapped = options.mapped;
    let attach = |shm| ShmWalCoordination::attach(path, shm, Owner(file.clone()));
    let writable = attach(shm).and_then(|coordination| {
        let storage = EngineStorage::open(file.clone(), coordination.maps())?;
        Ok((coordination, storage))
    });
    let (coordination, storage, read_only) = match writable {
        Err(error) if may_not_write(&error) => {
            shm.access = Access::ReadOnly;
            let coordination = attach(shm)?;
            let storage = EngineStorage::read_only(file.clone(), coordination.maps())?;
            (coordination, storage, true)
        }
        opened => {
            let (coordination, storage) = opened?;
            (coordination, storage, false)
        }
    };
    let mut config = config(&storage, limit)?;
    config.read_only = read_only;
    let wal = match coordination.maps() {
        // SAFETY: the log is beside the database whose locks the coordination takes, on a
        // file system that keeps them, and the database file is not mapped. The locks on
        // `-shm`, which keep the log, are ours, and do not get lost. That no program
        // writes the log without them is what `WalOptions::mapped` assumes.
        true => unsafe { Wal::new_mapped(coordination, Box::new(storage), config) },
        false => Wal::new(coordination, Box::new(storage), config),
    };
    Ok(Box::new(BackendLog::new(wal, file.clone(), false)))
}

#[cfg(feature = "shm")]
fn may_not_write(error: &Error) -> bool {
    use std::io::ErrorKind;
    matches!(error, Error::Io { operation: "open", source, .. } if matches!(
        source.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    ))
}

/// Without a buffer (`zBuf`) the log is to be left as it is.
unsafe extern "C" fn close(
    _data: *mut ffi::wal_manager_impl,
    wal: *mut ffi::wal_impl,
    db: *mut ffi::sqlite3,
    sync_flags: c_int,
    len: c_int,
    buffer: *mut c_uchar,
) -> c_int {
    guarded(ffi::SQLITE_INTERNAL, || {
        // SAFETY: the log is open.
        if !unsafe { handle::is_ours(wal) } {
            // SAFETY: the engine's arguments.
            return unsafe { engine_log::close(wal, db, sync_flags, len, buffer) };
        }
        // SAFETY: it was made by `open`, and this is the last call for it.
        let closed = unsafe { handle::close(wal, sync_flags, !buffer.is_null()) };
        methods::code_of(closed)
    })
}

/// The name of the log that belongs to the database called `name`.
///
/// # Safety
/// `name` is a name that the engine gave.
unsafe fn log_name(name: *const c_char) -> *const c_char {
    // SAFETY: as the caller says.
    unsafe { ffi::sqlite3_filename_wal(name) }
}

unsafe extern "C" fn log_exists(
    _data: *mut ffi::wal_manager_impl,
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    exists: *mut c_int,
) -> c_int {
    // SAFETY: the engine's name.
    let name = unsafe { log_name(name) };
    // SAFETY: the engine's file system, which has this method.
    let access = unsafe { (*vfs).xAccess };
    match access {
        // SAFETY: the arguments are those that the method asks for.
        Some(access) => unsafe { access(vfs, name, ffi::SQLITE_ACCESS_EXISTS, exists) },
        None => ffi::SQLITE_MISUSE,
    }
}

unsafe extern "C" fn log_destroy(
    _data: *mut ffi::wal_manager_impl,
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
) -> c_int {
    // SAFETY: the engine's name.
    let name = unsafe { log_name(name) };
    // SAFETY: the engine's file system, which has this method.
    let delete = unsafe { (*vfs).xDelete };
    match delete {
        // SAFETY: the arguments are those that the method asks for.
        Some(delete) => unsafe { delete(vfs, name, 0) },
        None => ffi::SQLITE_MISUSE,
    }
}

/// Called once, twice or never: see `WalOptions::for_ever`.
unsafe extern "C" fn destroy(_data: *mut ffi::wal_manager_impl) {}
