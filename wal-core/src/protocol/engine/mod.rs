//! Write transactions of an engine that keeps its pages itself.
//!
//! | file | what it does |
//! |---|---|
//! | `frames` | writes an engine's pages to the log, and commits them |
//! | `frames_mark` | how far an engine's frames are rolled back |

pub(in crate::protocol) mod frames;
pub(in crate::protocol) mod frames_mark;
