//! integration

/// The bank of the demo: accounts in a SQLite database that both sides change.
pub mod bank;
