//! What a file is taken for, and what is refused untouched.
//!
//! | file | what it shows |
//! |---|---|
//! | `every_fixture` | every fixture, read in every way |
//! | `file_kinds` | a file is what it is, or what the caller says |
//! | `read_only` | databases that may not be written |
//! | `wrong_input` | what is no database, or none that can be opened |

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::panic, clippy::unwrap_used)]

mod every_fixture;
mod file_kinds;
mod read_only;
mod wrong_input;
