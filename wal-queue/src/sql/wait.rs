//! `wal_wait(ms)` and `wal_wait(ms, version)`: waits for a commit of any process.
//!
//! The result is the version of the database: a number that changes with each commit. The wait
//! ends when the version is not the given one, or not that of the call, or when the time is
//! over. A commit of this library, or through this extension, ends it at once; a commit of a
//! stock connection without the extension ends it within some milliseconds.
//!
//! ```sql
//! SELECT wal_wait(0);                 -- the version now: 38654705731
//! SELECT wal_wait(5000, 38654705731); -- the next version, within five seconds
//! ```
//!
//! No lock and no snapshot is held: call it outside of a transaction, and read afterwards. As
//! SQLite does, it keeps the connection to itself: other threads that use the same connection
//! wait. `sqlite3_interrupt` ends a wait within some milliseconds where SQLite 3.41 or later has
//! loaded the library.
#![allow(unsafe_code)] // SQLite calls functions with raw pointers.

use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use wal_core::wait::POLL_INTERVAL;

use super::main_file;
use crate::ffi::{self, Connection, Context, ScalarFunction, Value};
use crate::main_file::MainFile;
use crate::vfs::{Shim, shims};

const NAME: &CStr = c"wal_wait";
/// A wait that nothing ends, ends after this time.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The function of each SQLite in this process. A call does not say which SQLite it comes from,
/// so each has a function of its own. A SQLite that is not among the first four has none.
const OF_SHIM: [ScalarFunction; 4] = [wait::<0>, wait::<1>, wait::<2>, wait::<3>];

pub(super) fn define(shim: &'static Shim, connection: *mut Connection) {
    let at = shims().position(|other| std::ptr::eq(other, shim));
    let Some(function) = at.and_then(|at| OF_SHIM.get(at)) else {
        return;
    };
    for arguments in [1, 2] {
        // SAFETY: the function has the type that SQLite calls, and stays.
        let _without_the_function = unsafe {
            (shim.api.create_function)(
                connection,
                NAME.as_ptr(),
                arguments,
                ffi::UTF8 | ffi::DIRECTONLY,
                null_mut(),
                Some(*function),
                None,
                None,
                None,
            )
        };
    }
}

unsafe extern "C" fn wait<const SHIM: usize>(
    context: *mut Context,
    count: c_int,
    arguments: *mut *mut Value,
) {
    let answer = || {
        let Some(shim) = shims().nth(SHIM) else {
            return;
        };
        let argument = |at: usize| {
            // SAFETY: SQLite passes as many arguments as it says.
            let place = unsafe { arguments.add(at) };
            // SAFETY: as above.
            let value = unsafe { *place };
            // SAFETY: it is an argument of the call.
            unsafe { (shim.api.value_int64)(value) }
        };
        let version = (count > 1).then(|| argument(1));
        // SAFETY: the context is that of the call.
        let connection = unsafe { (shim.api.context_db_handle)(context) };
        match main_file(shim, connection) {
            Ok(main) => {
                let version = wait_for_change(shim, connection, &main, argument(0), version);
                // SAFETY: the context is that of the call.
                unsafe { (shim.api.result_int64)(context, version) };
            }
            Err(reason) => {
                let text = format!("wal_wait: {reason}");
                let len = c_int::try_from(text.len()).unwrap_or(0);
                // SAFETY: as above; the text is as long as that, and is copied.
                unsafe { (shim.api.result_error)(context, text.as_ptr().cast(), len) };
            }
        }
    };
    // A function that has given no result gives null.
    let _null = catch_unwind(AssertUnwindSafe(answer));
}

/// Waits until the version of the database is not `version`, for `millis` at most. Returns the
/// version then.
fn wait_for_change(
    shim: &Shim,
    connection: *mut Connection,
    main: &MainFile,
    millis: i64,
    version: Option<i64>,
) -> i64 {
    let first = version.unwrap_or_else(|| main.version());
    let timeout = Duration::from_millis(u64::try_from(millis).unwrap_or(0)).min(LONGEST);
    let deadline = Instant::now() + timeout;
    loop {
        let until = deadline.min(Instant::now() + POLL_INTERVAL);
        let seen = main.queue().map(|queue| queue.prepare_wait_for_commit());
        let version = main.version();
        let is_over = Instant::now() >= deadline || shim.is_interrupted(connection);
        if version != first || is_over {
            return version;
        }
        match (main.queue(), seen.flatten()) {
            (Some(queue), Some(seen)) => queue.wait_for_commit(seen, until),
            _ => std::thread::sleep(until.saturating_duration_since(Instant::now())),
        }
    }
}
