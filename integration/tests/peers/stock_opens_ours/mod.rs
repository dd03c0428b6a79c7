//! What the library writes, stock SQLite of every kind that this machine has
//! opens, finds sound, and reads as it was meant.

mod alternating;
mod copies;
mod ours;
mod raw_pages;
mod spilled;
