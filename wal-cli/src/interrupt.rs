//! Ctrl-C, SIGTERM and SIGHUP, for commands that have to leave something in order.
//!
//! A command that does not call [`catch`] is ended by the signal. All locks of a process go
//! with it, so such a command leaves nothing held.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use wal::Cancel;
use wal_core::background;

/// The state of the process; signals have one for all.
static CAUGHT: OnceLock<Caught> = OnceLock::new();

struct Caught {
    /// The number of the last signal, 0 if there was none.
    signal: Arc<AtomicUsize>,
    /// Becomes readable at a signal.
    pipe: UnixStream,
}

/// The signals that ask this command to end.
#[derive(Clone, Copy)]
pub(crate) struct Interrupt(&'static Caught);

impl Interrupt {
    /// True once the command was asked to end.
    pub(crate) fn is_set(self) -> bool {
        self.0.signal.load(Ordering::Relaxed) != 0
    }

    /// A descriptor that is readable once the command was asked to end, for `poll`. It is not
    /// to be read.
    pub(crate) fn descriptor(self) -> BorrowedFd<'static> {
        self.0.pipe.as_fd()
    }
}

/// From now on a signal sets [`Interrupt::is_set`]. A second one ends the process.
pub(crate) fn catch() -> anyhow::Result<Interrupt> {
    if let Some(caught) = CAUGHT.get() {
        return Ok(Interrupt(caught));
    }
    let caught = register().context("cannot catch signals")?;
    Ok(Interrupt(CAUGHT.get_or_init(|| caught)))
}

/// Catches signals as [`catch`] does; the switch is turned on at the first one.
pub(crate) fn cancel() -> anyhow::Result<Cancel> {
    let interrupt = catch()?;
    let cancel = Cancel::new();
    let switch = cancel.clone();
    // It ends with the process.
    let watch = move || {
        let mut signals = [PollFd::new(interrupt.descriptor(), PollFlags::POLLIN)];
        while !interrupt.is_set() {
            // An error is EINTR, by a signal that another thread handles.
            let _ = poll(&mut signals, PollTimeout::NONE);
        }
        switch.cancel();
    };
    background::spawn("walctl-signals", watch).context("cannot start a thread")?;
    Ok(cancel)
}

/// The signal that asked the command to end, if it was caught.
pub(crate) fn signal() -> Option<u8> {
    let signal = CAUGHT.get()?.signal.load(Ordering::Relaxed);
    u8::try_from(signal).ok().filter(|signal| *signal != 0)
}

fn register() -> io::Result<Caught> {
    let (pipe, write_end) = UnixStream::pair()?;
    let signal = Arc::new(AtomicUsize::new(0));
    let again = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for number in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the first signal finds `again` false, the second one true.
        signal_hook::flag::register_conditional_default(number, again.clone())?;
        signal_hook::flag::register(number, again.clone())?;
        let value = usize::try_from(number).unwrap_or(0);
        signal_hook::flag::register_usize(number, signal.clone(), value)?;
        signal_hook::low_level::pipe::register(number, write_end.try_clone()?)?;
    }
    Ok(Caught { signal, pipe })
}
