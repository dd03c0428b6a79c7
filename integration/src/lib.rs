//! integration

/// The bank of the demo: accounts in a SQLite database that both sides change.
pub mod bank;

/// Stock SQLite as a live peer, and the means to stop it at its file calls.
pub mod stock;
