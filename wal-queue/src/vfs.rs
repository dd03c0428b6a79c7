//! The VFS `walqueue`, a shim over the VFS that was the default before it.
//!
//! # Protocol
//! Nothing is wrapped: a file is opened by the VFS beneath, in the same `sqlite3_file`, and
//! then has a copy of its methods in which a few are replaced ([`crate::methods`]). What
//! those need to know lies behind the part of the VFS beneath. All other calls are passed on
//! with the VFS beneath as their first argument.
//!
//! There is one such VFS for each copy of SQLite in the process. It is never unregistered,
//! since files may be open by it at any time.
#![allow(unsafe_code)] // SQLite calls a VFS with raw pointers, and is called with them.
#![expect(
    clippy::disallowed_types,
    reason = "the list of shims is a static, which outlives a model"
)]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::Mutex;
use std::time::Duration;

use wal_core::fork::ProcessGeneration;
use wal_core::once_table::OnceTable;
use wal_core::sync::Unpoison;

use crate::api::Api;
use crate::ffi::{self, Connection, File, Symbol, Vfs};
use crate::main_file::MainFile;
use crate::methods::Methods;
use crate::open_files;
use crate::options::Options;
use crate::sql;
use crate::waiting;

/// The name of the VFS.
pub const VFS_NAME: &CStr = c"walqueue";

/// The shim for one SQLite.
#[repr(C)]
pub(crate) struct Shim {
    /// First, so that a pointer to it is one to the shim. SQLite changes its `next`.
    vfs: UnsafeCell<Vfs>,
    base: *mut Vfs,
    pub(crate) api: Api,
    /// The program is linked with this SQLite, which may be built without extensions.
    pub(crate) is_linked: bool,
    pub(crate) methods: Methods,
    pub(crate) options: Options,
}

// SAFETY: `vfs` is changed by SQLite alone, which links it into its list under a mutex. The
// VFS beneath is registered for good, and may be called by every thread.
unsafe impl Send for Shim {}
// SAFETY: as above.
unsafe impl Sync for Shim {}

/// The shims of this process. They stay, and keep their places. A look at them takes no lock,
/// which another thread might hold when the process is forked.
static SHIMS: OnceTable<&'static Shim> = OnceTable::new();
/// Held while a shim is registered. There is one for each generation of forks.
static REGISTERING: OnceTable<Mutex<()>> = OnceTable::new();

/// Registers the shim with the SQLite of `api`, as its default VFS, unless it is registered.
/// Returns a result code of SQLite.
///
/// # Safety
/// The functions are those of one SQLite, which stays loaded.
pub(crate) unsafe fn register(api: Api, is_linked: bool) -> c_int {
    let registering =
        REGISTERING.get_or_make(ProcessGeneration::current().number(), Mutex::default);
    let registering = registering.lock().unpoison();
    // SAFETY: null asks for the default VFS. It initializes SQLite, if need be.
    let default = unsafe { (api.vfs_find)(null()) };
    if default.is_null() {
        return ffi::ERROR;
    }
    // SAFETY: the name is a C string.
    let registered = unsafe { (api.vfs_find)(VFS_NAME.as_ptr()) };
    let is_of_api = |shim: &&'static Shim| shim.api.key() == api.key();
    let shim: &'static Shim = match shims().find(is_of_api) {
        // A SQLite that was shut down has its own VFS as the default again.
        Some(shim) if registered.is_null() || default == shim.base => shim,
        // A VFS above the shim may be the default.
        Some(_) => return ffi::OK,
        // Another copy of this library has registered its own.
        None if !registered.is_null() => return ffi::OK,
        None => {
            let shim: &'static Shim = Box::leak(Box::new(Shim::over(default, api, is_linked)));
            let count = u32::try_from(shims().count()).unwrap_or(u32::MAX);
            SHIMS.get_or_make(count, || shim)
        }
    };
    drop(registering);
    // SAFETY: the VFS is whole, and stays.
    let code = unsafe { (api.vfs_register)(shim.vfs.get(), 1) };
    match code {
        ffi::OK => sql::define_in_new_connections(&shim.api),
        code => code,
    }
}

/// The shims of this process.
pub(crate) fn shims() -> impl Iterator<Item = &'static Shim> {
    (0..).map_while(|place| SHIMS.get(place).copied())
}

impl Shim {
    fn over(base: *mut Vfs, api: Api, is_linked: bool) -> Self {
        let beneath = beneath(base);
        let state_at = usize::try_from(beneath.file_size)
            .unwrap_or(0)
            .next_multiple_of(8);
        let with_state = state_at + size_of::<*const MainFile>();
        // What a table of an older version has not is not looked at.
        let second = (beneath.version >= 2).then_some(beneath);
        let third = (beneath.version >= 3).then_some(beneath);
        Shim {
            vfs: UnsafeCell::new(Vfs {
                version: beneath.version.min(3),
                file_size: c_int::try_from(with_state).unwrap_or(c_int::MAX),
                max_path: beneath.max_path,
                next: null_mut(),
                name: VFS_NAME.as_ptr(),
                app_data: null_mut(),
                open: Some(open),
                delete: beneath.delete.map(|_| delete as _),
                access: beneath.access.map(|_| access as _),
                full_pathname: beneath.full_pathname.map(|_| full_pathname as _),
                dl_open: beneath.dl_open.map(|_| dl_open as _),
                dl_error: beneath.dl_error.map(|_| dl_error as _),
                dl_sym: beneath.dl_sym.map(|_| dl_sym as _),
                dl_close: beneath.dl_close.map(|_| dl_close as _),
                randomness: beneath.randomness.map(|_| randomness as _),
                sleep: Some(sleep),
                current_time: beneath.current_time.map(|_| current_time as _),
                last_error: beneath.last_error.map(|_| last_error as _),
                current_time_int64: second
                    .and_then(|vfs| vfs.current_time_int64)
                    .map(|_| current_time_int64 as _),
                set_system_call: third
                    .and_then(|vfs| vfs.set_system_call)
                    .map(|_| set_system_call as _),
                get_system_call: third
                    .and_then(|vfs| vfs.get_system_call)
                    .map(|_| get_system_call as _),
                next_system_call: third
                    .and_then(|vfs| vfs.next_system_call)
                    .map(|_| next_system_call as _),
            }),
            base,
            api,
            is_linked,
            methods: Methods::with_state_at(state_at),
            options: Options::of_environment(&api),
        }
    }

    /// True if the application has interrupted `connection`. A SQLite before 3.41 does not tell.
    pub(crate) fn is_interrupted(&self, connection: *mut Connection) -> bool {
        let Some(is_interrupted) = self.api.is_interrupted else {
            return false;
        };
        // SAFETY: the connection is open.
        (unsafe { is_interrupted(connection) }) != 0
    }

    /// Sleeps by the VFS beneath, for `micros`.
    fn sleep(&self, micros: c_int) -> c_int {
        let Some(sleep) = beneath(self.base).sleep else {
            std::thread::sleep(Duration::from_micros(u64::try_from(micros).unwrap_or(0)));
            return micros;
        };
        // SAFETY: it is a method of that VFS.
        unsafe { sleep(self.base, micros) }
    }
}

fn beneath(base: *mut Vfs) -> &'static Vfs {
    // SAFETY: a registered VFS stays, and its members but `next`, which is not used here, are
    // constant.
    unsafe { &*base }
}

/// The shim that `vfs` is the first member of.
fn shim_of(vfs: *mut Vfs) -> &'static Shim {
    // SAFETY: the methods below are those of shims alone, and a shim that was registered stays.
    unsafe { &*vfs.cast::<Shim>() }
}

/// Opens a file by the VFS beneath. A database file whose VFS has shared memory has some of
/// its methods replaced, and so has a log whose connection shares its syncs.
unsafe extern "C" fn open(
    vfs: *mut Vfs,
    name: *const c_char,
    file: *mut File,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let shim = shim_of(vfs);
    waiting::forget_wish();
    let Some(open) = beneath(shim.base).open else {
        return ffi::ERROR;
    };
    // SAFETY: the caller passes the arguments of this method, and a file that has room for
    // that of the VFS beneath.
    let code = unsafe { open(shim.base, name, file, flags, out_flags) };
    if flags & ffi::OPEN_SUPER_JOURNAL != 0 {
        open_files::opened_super_journal();
    }
    if code == ffi::OK && flags & (ffi::OPEN_MAIN_DB | ffi::OPEN_WAL) != 0 && !name.is_null() {
        // SAFETY: the name of such a file is a C string.
        let name = unsafe { CStr::from_ptr(name) };
        // A file that may not be written is opened for reading, which is said there.
        // SAFETY: the caller passes a place for it, or null.
        let opened = unsafe { out_flags.as_ref() }.map_or(flags, |opened| flags | opened);
        let replace = || match flags & ffi::OPEN_MAIN_DB {
            // SAFETY: the VFS beneath has opened the file just now.
            0 => unsafe { shim.methods.replace_of_log(shim, file, name) },
            // SAFETY: as above.
            _ => unsafe { shim.methods.replace(shim, file, name, opened) },
        };
        // A file whose methods are not replaced is one without a queue.
        let _without_queue = catch_unwind(AssertUnwindSafe(replace));
    }
    code
}

/// Sleeps. A busy handler of SQLite sleeps by this while another connection has `WRITE`.
unsafe extern "C" fn sleep(vfs: *mut Vfs, micros: c_int) -> c_int {
    let shim = shim_of(vfs);
    let queued = catch_unwind(|| waiting::sleep(micros)).unwrap_or(None);
    let rest = queued.unwrap_or(micros);
    if rest > 0 {
        shim.sleep(rest);
    }
    micros
}

/// Defines a method that calls that of the VFS beneath.
macro_rules! pass_on {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty = $default:expr)?;)*) => {$(
        unsafe extern "C" fn $name(vfs: *mut Vfs, $($argument: $type),*) $(-> $result)? {
            let base = shim_of(vfs).base;
            match beneath(base).$name {
                // SAFETY: the caller passes the arguments of this method.
                Some(method) => unsafe { method(base, $($argument),*) },
                None => { $($default)? }
            }
        }
    )*};
}

pass_on! {
    delete(name: *const c_char, sync: c_int) -> c_int = ffi::ERROR;
    access(name: *const c_char, flags: c_int, out: *mut c_int) -> c_int = ffi::ERROR;
    full_pathname(name: *const c_char, len: c_int, out: *mut c_char) -> c_int = ffi::ERROR;
    dl_open(name: *const c_char) -> *mut c_void = null_mut();
    dl_error(len: c_int, out: *mut c_char);
    dl_sym(library: *mut c_void, name: *const c_char) -> Option<Symbol> = None;
    dl_close(library: *mut c_void);
    randomness(len: c_int, out: *mut c_char) -> c_int = 0;
    current_time(out: *mut f64) -> c_int = ffi::ERROR;
    last_error(len: c_int, out: *mut c_char) -> c_int = 0;
    current_time_int64(out: *mut i64) -> c_int = ffi::ERROR;
    set_system_call(name: *const c_char, call: Option<Symbol>) -> c_int = ffi::ERROR;
    get_system_call(name: *const c_char) -> Option<Symbol> = None;
    next_system_call(name: *const c_char) -> *const c_char = null();
}
