//! Locks of the protocol: how one is acquired, waited for, kept and released.
//!
//! | file | what it does |
//! |---|---|
//! | `guard` | holds a lock, and releases it exactly once |
//! | `busy` | waits for a lock, until a deadline or a handler ends that |
//! | `queued_write` | acquires WRITE in the order of the writer queue |
//! | `queued_try` | the same for an engine, which waits in one call and tries in another |
//! | `write_note` | notes which thread began a write transaction |
//! | `own_write` | finds that a thread waits for its own write transaction |
//! | `delayed_release` | which read locks are kept for the next reader, and how a checkpoint reclaims them |
//! | `pause` | how long an operation pauses before it tries again |

pub(in crate::protocol) mod busy;
pub(in crate::protocol) mod delayed_release;
pub(in crate::protocol) mod guard;
mod own_write;
pub(in crate::protocol) mod pause;
pub(in crate::protocol) mod queued_try;
pub(in crate::protocol) mod queued_write;
pub(in crate::protocol) mod write_note;
