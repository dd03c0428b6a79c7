//! Read transactions.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | what the readers of one attachment share |
//! | `begin` | a read transaction, whose begin is checked again under its lock |
//! | `header` | loads the header, and rebuilds it when its writer died |
//! | `marks` | which slot a reader takes, and with which mark |
//! | `raise` | moves a read transaction to the newest state within its slot |
//! | `pages` | what has pages |
//! | `kept` | what a lock keeps of the two files; reads pages there |
//! | `find_frame` | which private map of pages to frames a transaction uses, and who extends it |
//! | `database_size` | when the length of the database file is looked at again |
//! | `hold` | a snapshot that is held for a bounded time |
//! | `open_snapshot` | a snapshot as a value, opened again while the log has it |
//! | `change` | waits until the database has changed |
//! | `snapshot` | snapshots as values |
//! | `taken_map` | the private map that a transaction uses |
//! | `page_ref` | a page, as it is handed out |

pub(in crate::protocol) mod begin;
mod change;
mod database_size;
mod find_frame;
pub(in crate::protocol) mod header;
pub(in crate::protocol) mod hold;
pub(in crate::protocol) mod kept;
mod marks;
mod open_snapshot;
pub(in crate::protocol) mod page_ref;
pub(in crate::protocol) mod pages;
pub(in crate::protocol) mod raise;
pub(in crate::protocol) mod snapshot;
pub(in crate::protocol) mod state;
mod taken_map;
