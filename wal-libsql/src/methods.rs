//! The methods of an open log (`libsql_wal_methods`): each turns the engine's
//! arguments into ours, and the outcome into a result code.
//!
//! The callback of an undo asks the same log for pages, so no borrow of the log
//! lasts while it is called. A busy handler may not use its connection.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_longlong, c_uchar, c_uint, c_void};
use std::slice;

use libsql_ffi as ffi;
use wal_core::protocol::CheckpointMode;
use wal_core::{PageNo, Result};

use crate::code;
use crate::handle::{self, Handle, ask, with};
use crate::log::{Checkpoint, Exclusive, Log};

/// The code of an outcome.
pub(crate) fn code_of(outcome: Result<()>) -> c_int {
    match outcome {
        Ok(()) => ffi::SQLITE_OK,
        Err(error) => code::told(&error),
    }
}

pub(crate) const METHODS: ffi::libsql_wal_methods = ffi::libsql_wal_methods {
    iVersion: 2,
    xLimit: Some(limit),
    xBeginReadTransaction: Some(begin_read),
    xEndReadTransaction: Some(end_read),
    xFindFrame: Some(find_frame),
    xReadFrame: Some(read_frame),
    xReadFrameRaw: Some(read_raw_frame),
    xDbsize: Some(page_count),
    xBeginWriteTransaction: Some(begin_write),
    xEndWriteTransaction: Some(end_write),
    xUndo: Some(undo),
    xSavepoint: Some(savepoint),
    xSavepointUndo: Some(roll_back_to),
    xFrameCount: Some(frame_count),
    xFrames: Some(frames),
    xCheckpoint: Some(checkpoint),
    xCallback: Some(last_commit),
    xExclusiveMode: Some(exclusive_mode),
    xHeapMemory: Some(heap_memory),
    // The engine is not compiled with what calls these.
    xSnapshotGet: None,
    xSnapshotOpen: None,
    xSnapshotRecover: None,
    xSnapshotCheck: None,
    xSnapshotUnlock: None,
    xFramesize: None,
    xFile: Some(file),
    xWriteLock: None,
    xDb: Some(set_connection),
    xSavepointForget: Some(forget_savepoint),
};

unsafe extern "C" fn limit(wal: *mut ffi::wal_impl, limit: c_longlong) {
    let limit = u64::try_from(limit).ok();
    // SAFETY: the engine's log.
    unsafe { ask(wal, (), |handle| handle.log.set_limit(limit)) }
}

unsafe extern "C" fn begin_read(wal: *mut ffi::wal_impl, changed: *mut c_int) -> c_int {
    let begin = |handle: &mut Handle| match handle.begin_read() {
        Ok(is_other) => {
            // SAFETY: the engine gives room for the answer.
            unsafe { changed.write(c_int::from(is_other)) };
            ffi::SQLITE_OK
        }
        Err(error) => code::told(&error),
    };
    // SAFETY: the engine's log.
    unsafe { ask(wal, ffi::SQLITE_INTERNAL, begin) }
}

unsafe extern "C" fn end_read(wal: *mut ffi::wal_impl) {
    // SAFETY: the engine's log.
    unsafe { ask(wal, (), |handle| handle.log.end_read()) }
}

unsafe extern "C" fn find_frame(
    wal: *mut ffi::wal_impl,
    page: c_uint,
    frame: *mut c_uint,
) -> c_int {
    let find = |log: &mut dyn Log| match log.find_frame(page) {
        Ok(found) => {
            // SAFETY: the engine gives room for the answer.
            unsafe { frame.write(found) };
            ffi::SQLITE_OK
        }
        Err(error) => code::told(&error),
    };
    // SAFETY: the engine's log.
    unsafe { with(wal, find) }
}

/// The bytes at `buffer`.
///
/// # Safety
/// There are `len` bytes, which nobody else uses.
unsafe fn bytes<'a>(buffer: *mut c_uchar, len: c_int) -> &'a mut [u8] {
    // SAFETY: as the caller says.
    unsafe { slice::from_raw_parts_mut(buffer, usize::try_from(len).unwrap_or(0)) }
}

unsafe extern "C" fn read_frame(
    wal: *mut ffi::wal_impl,
    frame: c_uint,
    len: c_int,
    buffer: *mut c_uchar,
) -> c_int {
    // SAFETY: the engine gives room for that much.
    let buffer = unsafe { bytes(buffer, len) };
    // SAFETY: the engine's log.
    unsafe { with(wal, |log| code_of(log.read_frame(frame, buffer))) }
}

unsafe extern "C" fn read_raw_frame(
    wal: *mut ffi::wal_impl,
    frame: c_uint,
    len: c_int,
    buffer: *mut c_uchar,
) -> c_int {
    // SAFETY: the engine gives room for that much.
    let buffer = unsafe { bytes(buffer, len) };
    let read = |log: &mut dyn Log| match log.read_raw_frame(frame, buffer) {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(error) => code::told(&error),
    };
    // SAFETY: the engine's log.
    unsafe { with(wal, read) }
}

unsafe extern "C" fn page_count(wal: *mut ffi::wal_impl) -> c_uint {
    // SAFETY: the engine's log.
    unsafe { ask(wal, 0, |handle| handle.log.page_count()) }
}

unsafe extern "C" fn begin_write(wal: *mut ffi::wal_impl) -> c_int {
    // SAFETY: the engine's log.
    unsafe { with(wal, |log| code_of(log.begin_write())) }
}

unsafe extern "C" fn end_write(wal: *mut ffi::wal_impl) -> c_int {
    let end = |log: &mut dyn Log| {
        log.end_write();
        ffi::SQLITE_OK
    };
    // SAFETY: the engine's log.
    unsafe { with(wal, end) }
}

unsafe extern "C" fn undo(
    wal: *mut ffi::wal_impl,
    forget: Option<unsafe extern "C" fn(*mut c_void, c_uint) -> c_int>,
    context: *mut c_void,
) -> c_int {
    let mut pages = Vec::new();
    let take_back = |log: &mut dyn Log| match log.undo() {
        Ok(undone) => {
            pages = undone;
            ffi::SQLITE_OK
        }
        Err(error) => code::told(&error),
    };
    // SAFETY: the engine's log.
    let mut code = unsafe { with(wal, take_back) };
    // The callback reads pages by this log, which is not borrowed now.
    for page in pages {
        if code == ffi::SQLITE_OK
            && let Some(forget) = forget
        {
            // SAFETY: the engine's callback and its context.
            code = unsafe { forget(context, page) };
        }
    }
    code
}

unsafe extern "C" fn savepoint(wal: *mut ffi::wal_impl, words: *mut c_uint) {
    // SAFETY: the engine's log.
    let mark = unsafe { ask(wal, [0; 4], |handle| handle.log.savepoint()) };
    // SAFETY: the engine gives room for four words.
    unsafe { words.cast::<[c_uint; 4]>().write(mark) };
}

unsafe extern "C" fn roll_back_to(wal: *mut ffi::wal_impl, words: *mut c_uint) -> c_int {
    // SAFETY: the engine gives the words of `savepoint`.
    let mark = unsafe { words.cast::<[c_uint; 4]>().read() };
    // SAFETY: the engine's log.
    unsafe { with(wal, |log| code_of(log.roll_back_to(mark))) }
}

/// The words of a savepoint are all that there is of it.
unsafe extern "C" fn forget_savepoint(_wal: *mut ffi::wal_impl, _words: *mut c_uint) {}

unsafe extern "C" fn frame_count(
    wal: *mut ffi::wal_impl,
    _locked: c_int,
    frames: *mut c_uint,
) -> c_int {
    let count = |log: &mut dyn Log| match log.frame_count() {
        Ok(count) => {
            // SAFETY: the engine gives room for the answer.
            unsafe { frames.write(count) };
            ffi::SQLITE_OK
        }
        Err(error) => code::told(&error),
    };
    // SAFETY: the engine's log.
    unsafe { with(wal, count) }
}

/// The pages of the list that begins with `first`, each of `len` bytes.
///
/// # Safety
/// The list and the pages stay as they are for `'a`.
unsafe fn pages<'a>(
    first: *const ffi::libsql_pghdr,
    len: usize,
) -> Result<Vec<(PageNo, &'a [u8])>> {
    let mut pages = Vec::new();
    let mut next = first;
    // SAFETY: the engine's list, which ends with null.
    while let Some(page) = unsafe { next.as_ref() } {
        // SAFETY: the content of a page is as long as one.
        let content = unsafe { slice::from_raw_parts(page.pData.cast::<u8>(), len) };
        pages.push((PageNo::new(page.pgno)?, content));
        next = page.pDirty;
    }
    Ok(pages)
}

unsafe extern "C" fn frames(
    wal: *mut ffi::wal_impl,
    page_len: c_int,
    list: *mut ffi::libsql_pghdr,
    page_count: c_uint,
    is_commit: c_int,
    sync_flags: c_int,
    added: *mut c_int,
) -> c_int {
    let write = |log: &mut dyn Log| {
        if usize::try_from(page_len) != Ok(log.page_len()) {
            return ffi::SQLITE_CORRUPT;
        }
        log.set_sync_flags(sync_flags);
        // SAFETY: the engine's list, of pages of this size, for this call.
        let written = unsafe { pages(list, log.page_len()) }.and_then(|pages| {
            if is_commit != 0 {
                log.commit(&pages, page_count)
            } else {
                log.write(&pages).map(|()| 0)
            }
        });
        match written {
            Ok(frames) => {
                // SAFETY: null, or room for the answer.
                if let Some(added) = unsafe { added.as_mut() } {
                    *added = c_int::try_from(frames).unwrap_or(c_int::MAX);
                }
                ffi::SQLITE_OK
            }
            Err(error) => code::told(&error),
        }
    };
    // SAFETY: the engine's log.
    unsafe { with(wal, write) }
}

/// A callback of the engine that says whether to try again, and the connection that
/// waits.
#[derive(Clone, Copy)]
struct Busy {
    again: unsafe extern "C" fn(*mut c_void) -> c_int,
    context: *mut c_void,
    db: *mut ffi::sqlite3,
}

// SAFETY: it is called only on the thread of the call that it came with.
unsafe impl Send for Busy {}
// SAFETY: as above.
unsafe impl Sync for Busy {}

impl Busy {
    /// A connection that is interrupted waits no longer.
    fn ask(&self) -> bool {
        // SAFETY: the engine's connection, which is open.
        let interrupted = unsafe { ffi::sqlite3_is_interrupted(self.db) } != 0;
        // SAFETY: the engine's callback and its context, within its call.
        !interrupted && unsafe { (self.again)(self.context) != 0 }
    }
}

unsafe extern "C" fn checkpoint(
    wal: *mut ffi::wal_impl,
    db: *mut ffi::sqlite3,
    mode: c_int,
    busy: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    busy_context: *mut c_void,
    sync_flags: c_int,
    _len: c_int,
    _buffer: *mut c_uchar,
    log_frames: *mut c_int,
    backfilled: *mut c_int,
    each_page: Option<
        unsafe extern "C" fn(*mut c_void, c_int, *const c_uchar, c_int, c_int, c_int) -> c_int,
    >,
    _each_page_context: *mut c_void,
) -> c_int {
    let mode = match mode {
        ffi::SQLITE_CHECKPOINT_PASSIVE => CheckpointMode::Passive,
        ffi::SQLITE_CHECKPOINT_FULL => CheckpointMode::Full,
        ffi::SQLITE_CHECKPOINT_RESTART => CheckpointMode::Restart,
        ffi::SQLITE_CHECKPOINT_TRUNCATE => CheckpointMode::Truncate,
        _ => return ffi::SQLITE_MISUSE,
    };
    if each_page.is_some() {
        // Only wrappers of other logs give one.
        return ffi::SQLITE_MISUSE;
    }
    let again = busy.map(|again| {
        let busy = Busy {
            again,
            context: busy_context,
            db,
        };
        Box::new(move || busy.ask()) as Box<dyn Fn() -> bool + Send + Sync>
    });
    let run = |handle: &mut Handle| {
        // SAFETY: the engine's connection, which is open.
        let run = unsafe { handle.checkpoint(db, Checkpoint { mode, again }, sync_flags) };
        let (report, is_held_back) = match run {
            Ok(run) => run,
            Err(error) => return code::told(&error),
        };
        for (room, count) in [
            (log_frames, report.log_frames),
            (backfilled, report.backfilled),
        ] {
            // SAFETY: null, or room for the answer.
            if let Some(room) = unsafe { room.as_mut() } {
                *room = c_int::try_from(count).unwrap_or(c_int::MAX);
            }
        }
        match is_held_back && mode != CheckpointMode::Passive {
            true => ffi::SQLITE_BUSY,
            false => ffi::SQLITE_OK,
        }
    };
    // SAFETY: the engine's log.
    unsafe { ask(wal, ffi::SQLITE_INTERNAL, run) }
}

unsafe extern "C" fn last_commit(wal: *mut ffi::wal_impl) -> c_int {
    // SAFETY: the engine's log.
    let frames = unsafe { ask(wal, 0, |handle| handle.log.last_commit()) };
    c_int::try_from(frames).unwrap_or(c_int::MAX)
}

unsafe extern "C" fn exclusive_mode(wal: *mut ffi::wal_impl, operation: c_int) -> c_int {
    let change = match operation {
        0 => Exclusive::Leave,
        1.. => Exclusive::Enter,
        _ => Exclusive::MayEnter,
    };
    // SAFETY: the engine's log.
    c_int::from(unsafe { ask(wal, false, |handle| handle.log.exclusive(change)) })
}

unsafe extern "C" fn heap_memory(wal: *mut ffi::wal_impl) -> c_int {
    // SAFETY: the engine's log.
    c_int::from(unsafe { ask(wal, false, |handle| handle.log.is_on_heap()) })
}

unsafe extern "C" fn file(wal: *mut ffi::wal_impl) -> *mut ffi::sqlite3_file {
    // SAFETY: the engine's log.
    unsafe { handle::file(wal) }
}

/// The connection is told with each call that needs it.
unsafe extern "C" fn set_connection(_wal: *mut ffi::wal_impl, _db: *mut ffi::sqlite3) {}
