//! Who holds which lock of a database, within a process and between processes.
//!
//! | file | what it shows |
//! |---|---|
//! | `census` | a look from outside names the holder of each lock |
//! | `classic_locks` | two uses in one process, one of them by classic locks |
//! | `holders` | a lock that blocks names its holder |
//! | `killed_holder` | a process that is killed holds no lock |
//! | `locked` | the in-process backend owns its database |
//! | `missing_locks` | systems without locks of open file descriptions |
//! | `open_and_close` | threads that open and close at the same time |
//! | `other_databases` | who opens or leaves a database does not block other databases |
//! | `own_locks` | what threads do beside each other costs the process no lock |

// Clippy takes the helpers of an integration test for production code.
#![allow(clippy::panic, clippy::unwrap_used)]

mod census;
mod classic_locks;
mod holders;
mod killed_holder;
mod locked;
mod missing_locks;
mod open_and_close;
mod other_databases;
mod own_locks;
