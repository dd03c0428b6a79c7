//! The thread that runs the automatic checkpoints of a database, so that no
//! commit pays for one.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use wal_core::background;
use wal_core::fork::ProcessGeneration;
use wal_core::protocol::Wal;
use wal_core::{Error, Result, WalCoordination};

/// Ends its thread when it is dropped.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    /// `None` once the thread is told to end.
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    process: ProcessGeneration,
}

impl Checkpointer {
    /// Starts the thread for `wal`, which it keeps open until it ends.
    pub(crate) fn start<C: WalCoordination>(wal: &Arc<Wal<C>>) -> Result<Self> {
        // One wake-up is kept while the thread is at work: a commit that
        // comes meanwhile is looked at afterwards.
        let (wake, woken) = sync_channel(1);
        let process = ProcessGeneration::current();
        let path = wal.path().to_owned();
        let wal = wal.clone();
        let thread = background::spawn("wal-checkpoint", move || run(&wal, &woken))
            .map_err(|e| Error::io(&path, "start a thread", e))?;
        Ok(Checkpointer {
            wake: Some(wake),
            thread: Some(thread),
            process,
        })
    }

    /// Asks for a checkpoint. Never waits.
    pub(crate) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // A full channel has the wake-up that it needs.
            let _ = wake.try_send(());
        }
    }
}

fn run<C: WalCoordination>(wal: &Arc<Wal<C>>, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        // It is done for later commits; a failed sync shows itself at the
        // next write.
        let _ = wal.checkpoint_automatically();
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.wake.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // In a forked child the thread does not exist, and would be waited for
        // for ever.
        if self.process.is_over() {
            std::mem::forget(thread);
        } else {
            let _ = thread.join();
        }
    }
}
