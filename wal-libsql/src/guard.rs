//! Entries from C, across which no panic may go.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs an entry from C, across which no panic may go; after one the answer
/// is `otherwise`.
pub(crate) fn guarded<T>(otherwise: T, entry: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(entry)).unwrap_or(otherwise)
}
