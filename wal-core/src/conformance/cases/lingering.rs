//! Readers of a busy process, which leave their slots to each other.

use std::thread;
use std::time::{Duration, Instant};

use super::super::Backend;
use super::super::scene::{BOUND, Scene, versions};
use crate::coordination::ReadSlot;

/// A mark is moved a moment after it was set, not for each commit; a checkpoint
/// spares the reader meanwhile, and goes on once it is moved.
pub(crate) fn a_reader_beside_a_writer_reads_at_a_mark_of_a_moment_ago<B: Backend>() {
    let scene = Scene::<B>::new(2);
    let (writer, reader) = (scene.user(), scene.user_that_lingers());
    let slot = ReadSlot::MARKED[0];
    writer.commit(&[1, 2], 1);
    let begun = Instant::now();
    let mut version = 1;
    // Whoever loses its processor at the wrong moment finds the mark too old.
    loop {
        assert!(begun.elapsed() < BOUND, "each reader has moved the mark");
        drop(reader.read());
        version += 1;
        writer.commit(&[1], version);
        let tx = reader.read();
        assert_eq!(versions::<B>(&tx), [version, 1]);
        if reader.mark(slot) < tx.snapshot().max_frame() {
            assert_eq!(tx.snapshot().slot(), Some(slot));
            let report = writer.checkpoint();
            assert!(report.backfilled <= reader.mark(slot), "{report:?}");
            writer.commit(&[1, 2], version + 1);
            assert_eq!(versions::<B>(&tx), [version, 1]);
            break;
        }
    }
    thread::sleep(Duration::from_millis(3));
    let tx = reader.read();
    assert_eq!(versions::<B>(&tx), [version + 1, version + 1]);
    let slot = tx.snapshot().slot().expect("a slot");
    assert_eq!(reader.mark(slot), tx.snapshot().max_frame());
    writer.checkpoint_all();
}
