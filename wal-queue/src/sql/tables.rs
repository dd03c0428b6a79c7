//! The tables `wal_queue`, `wal_info` and `wal_locks`.
//!
//! ```sql
//! SELECT * FROM wal_queue; -- the writers that wait, the first one first
//! ```

use std::ffi::c_int;

use super::table::{self, Definition};
use crate::ffi::{self, Connection};
use crate::vfs::Shim;

static TABLES: [Definition; 0] = [];

pub(super) fn define(shim: &'static Shim, connection: *mut Connection) -> c_int {
    for definition in &TABLES {
        let code = table::define(shim, connection, definition);
        if code != ffi::OK {
            return code;
        }
    }
    ffi::OK
}
