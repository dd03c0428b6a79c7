//! What is no database, or none that can be opened: each its own error, which
//! names the file and says what to do, and nothing is touched.

mod access;
mod foreign_files;
mod foreign_logs;
mod links;
mod refusal;
