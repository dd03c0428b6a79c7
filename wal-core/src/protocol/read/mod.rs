//! Read transactions.
//!
//! | file | what it does |
//! |---|---|
//! | `state` | what the readers of one attachment share |
//! | `begin` | begins a read transaction, which is checked again under its lock |
//! | `header` | loads the header, and rebuilds it when its writer died |
//! | `marks` | which slot a reader takes, and with which mark |
//! | `raise` | moves a read transaction to the newest state within its slot |
//! | `page`, `pages` | a page of a snapshot; what has pages |
//! | `retained` | what a lock keeps of the two files; reads pages there |
//! | `shared_map` | which private map of pages to frames a transaction uses, and who extends it |
//! | `database_size` | when the length of the database file is looked at again |
//! | `hold` | a snapshot that is held for a bounded time |
//! | `saved_snapshot` | a snapshot as a value, opened again while the log has it |
//! | `change` | waits until the database has changed |
//! | `snapshot` | snapshots as values |
//! | `taken_map` | the private map that a transaction uses |
//! | `page_ref` | a page, as it is handed out |

pub(in crate::protocol) mod begin;
mod change;
mod database_size;
pub(in crate::protocol) mod header;
pub(in crate::protocol) mod hold;
mod marks;
mod page;
pub(in crate::protocol) mod page_ref;
pub(in crate::protocol) mod pages;
pub(in crate::protocol) mod raise;
pub(in crate::protocol) mod retained;
mod saved_snapshot;
mod shared_map;
pub(in crate::protocol) mod snapshot;
pub(in crate::protocol) mod state;
mod taken_map;
