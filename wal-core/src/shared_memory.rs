//! Which types memory can be seen as that several processes map.
//!
//! Other processes store to such memory at any time, and what lies in a file may be
//! anything. So the types in it consist of atomic integers and of nothing else, which is
//! checked for each field by [`shared_memory!`](crate::shared_memory!).
#![allow(unsafe_code)] // The traits are promises about the layout of types.
#![expect(
    clippy::disallowed_types,
    reason = "the layout of mapped memory is that of the standard library's atomics"
)]

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// A type that memory which other processes store to can be seen as.
///
/// It is implemented by [`shared_memory!`](crate::shared_memory!), which cannot take a
/// type with a field that is none:
///
/// ```compile_fail,E0277
/// struct Wrong {
///     name: &'static str,
/// }
/// wal_core::shared_memory!(Wrong { name });
/// ```
///
/// # Safety
/// The type consists of atomic integers, and of arrays and structs of such. So any bytes
/// are a value of it, it has no address in it, and it is changed through atomics only.
pub unsafe trait SharedMemory: Sync {}

/// A type that memory can be seen as which this process may only load from.
///
/// # Safety
/// Through a shared reference nothing is stored to the type, and it is loaded from by
/// relaxed loads of 32 bits at most: other atomic accesses to read-only memory are
/// undefined (`std::sync::atomic`, "Atomic accesses to read-only memory").
pub unsafe trait LoadOnlyMemory: SharedMemory {}

/// A `T` of this process alone, with the bytes that `bytes` begin with; `None` if they are too
/// few. It is for a look at memory that this process does not map.
#[cfg(not(loom))]
pub fn copy_of<T: SharedMemory>(bytes: &[u8]) -> Option<Box<T>> {
    let bytes = bytes.get(..size_of::<T>())?;
    let mut copy = Box::<T>::new_uninit();
    // SAFETY: both are as long as a `T`, and the box was just allocated.
    unsafe {
        copy.as_mut_ptr()
            .cast::<u8>()
            .copy_from(bytes.as_ptr(), bytes.len())
    };
    // SAFETY: all bytes were written, and any bytes are a `T` (`SharedMemory`).
    Some(unsafe { copy.assume_init() })
}

/// Loom's atomics are not the bytes of a file.
#[cfg(loom)]
pub fn copy_of<T: SharedMemory>(_bytes: &[u8]) -> Option<Box<T>> {
    None
}

// SAFETY: an atomic integer.
unsafe impl SharedMemory for AtomicU8 {}
// SAFETY: an atomic integer.
unsafe impl SharedMemory for AtomicU16 {}
// SAFETY: an atomic integer.
unsafe impl SharedMemory for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl SharedMemory for AtomicU64 {}
// SAFETY: an array of what consists of atomic integers does so, too.
unsafe impl<T: SharedMemory, const N: usize> SharedMemory for [T; N] {}

/// Loom's atomics are not the integers alone, and are never mapped: a backend refuses to
/// map anything under loom.
#[cfg(loom)]
mod under_loom {
    use super::SharedMemory;
    use crate::sync::{AtomicU16, AtomicU32, AtomicU64};

    // SAFETY: nothing is mapped under loom.
    unsafe impl SharedMemory for AtomicU16 {}
    // SAFETY: nothing is mapped under loom.
    unsafe impl SharedMemory for AtomicU32 {}
    // SAFETY: nothing is mapped under loom.
    unsafe impl SharedMemory for AtomicU64 {}
}

/// Implements [`SharedMemory`](crate::shared_memory::SharedMemory) for a struct all of
/// whose fields implement it.
#[macro_export]
macro_rules! shared_memory {
    ($type:ident { $($field:tt),+ $(,)? }) => {
        // SAFETY: each field is shared memory, as `each_field` checks: a struct pattern
        // names all fields or does not compile.
        #[allow(unsafe_code)]
        unsafe impl $crate::shared_memory::SharedMemory for $type {}

        const _: () = {
            fn is_shared<T: $crate::shared_memory::SharedMemory>(_: &T) {}
            #[allow(dead_code)]
            fn each_field(value: &$type) {
                let $type { $($field: _),+ } = value;
                $(is_shared(&value.$field);)+
            }
        };
    };
}
