//! The numbers by which a thread and its process are known in shared memory.
//!
//! The number of a process means a process within its namespace only, so the name of a process
//! has both. It is for people: the process may have ended since, and its number may be that of
//! another one.

use crate::sync::AtomicU32;
#[cfg(not(loom))]
use crate::sync::Ordering;

/// A process, as it names itself to observers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProcessName {
    pid: u32,
    /// The inode of the namespace of process numbers; 0 for unknown.
    namespace: u32,
}

#[cfg(not(loom))]
impl ProcessName {
    /// The name of this process.
    pub(super) fn current() -> Self {
        of_this_thread().process
    }

    /// The number of the process, if it has one in the namespace of this process: one of
    /// another container is not named.
    pub fn pid(self) -> Option<u32> {
        let is_here = self.namespace != 0 && self.namespace == Self::current().namespace;
        (self.pid != 0 && is_here).then_some(self.pid)
    }
}

/// The words of a name; zeros name no process. They are stored one after the other, so an
/// observer may see a mixture of two names.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct NamedProcess {
    pid: AtomicU32,
    namespace: AtomicU32,
}

crate::shared_memory!(NamedProcess { pid, namespace });

#[cfg(not(loom))]
impl NamedProcess {
    pub(super) fn store(&self, name: ProcessName) {
        self.pid.store(name.pid, Ordering::Relaxed);
        self.namespace.store(name.namespace, Ordering::Relaxed);
    }

    pub(super) fn load(&self) -> ProcessName {
        ProcessName {
            pid: self.pid.load(Ordering::Relaxed),
            namespace: self.namespace.load(Ordering::Relaxed),
        }
    }
}

/// What is known of a thread, drawn once.
#[cfg(not(loom))]
#[derive(Clone, Copy)]
struct Identity {
    thread: u32,
    process: ProcessName,
}

#[cfg(not(loom))]
fn of_this_thread() -> Identity {
    use std::cell::Cell;

    use crate::fork::ProcessGeneration;
    use crate::types::Salts;

    thread_local! {
        static KNOWN: Cell<Option<(ProcessGeneration, Identity)>> = const { Cell::new(None) };
    }
    let generation = ProcessGeneration::current();
    if let Some((known_in, identity)) = KNOWN.get()
        && known_in == generation
    {
        return identity;
    }
    // Drawn again in a forked child, which has time slices of its own.
    let Salts([a, b, c, d, ..]) = Salts::random();
    let identity = Identity {
        thread: u32::from_ne_bytes([a, b, c, d]) | 1,
        process: ProcessName {
            pid: std::process::id(),
            namespace: namespace_of_this_process(),
        },
    };
    KNOWN.set(Some((generation, identity)));
    identity
}

/// Returns a number for this thread, which no other thread of any process is likely to have.
#[cfg(not(loom))]
pub fn thread_number() -> u32 {
    of_this_thread().thread
}

/// Returns the number of a thread in a model: all are on one thread of the system, and have
/// the same numbers in each execution.
#[cfg(loom)]
pub fn thread_number() -> u32 {
    u32::try_from(crate::stripes::number_of_thread()).map_or(1, |number| number << 1 | 1)
}

/// The namespace of the number of this process, which never changes; 0 if `/proc` is absent.
#[cfg(all(target_os = "linux", not(loom)))]
fn namespace_of_this_process() -> u32 {
    use std::os::unix::fs::MetadataExt;
    let found = std::fs::metadata("/proc/self/ns/pid");
    found.map_or(0, |found| u32::try_from(found.ino()).unwrap_or(0))
}

/// There is one for all processes.
#[cfg(all(not(target_os = "linux"), not(loom)))]
fn namespace_of_this_process() -> u32 {
    1
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn process_of_this_namespace_alone_is_named() {
        let here = ProcessName::current();
        assert_eq!(here.pid(), Some(std::process::id()));
        let elsewhere = ProcessName {
            namespace: here.namespace + 1,
            ..here
        };
        assert_eq!(elsewhere.pid(), None);
        assert_eq!(ProcessName::default().pid(), None);
    }
}
