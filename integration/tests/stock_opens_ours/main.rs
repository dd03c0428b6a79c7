//! What the library writes, stock SQLite of every kind that this machine has
//! opens, finds sound, and reads as it was meant.

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod alternating;
mod copies;
mod ours;
mod raw_pages;
mod spilled;
