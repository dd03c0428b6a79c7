//! What the demo and the tests of stock SQLite beside this library share: a bank
//! whose rows both sides change.

pub mod bank;
