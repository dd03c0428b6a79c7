//! The bank of the demo: accounts in a SQLite database, changed from two sides.
//!
//! Stock SQLite makes the file and works on it with SQL. Our own processes,
//! which have pages and no SQL, patch the same rows in place on the leaf pages
//! of the table B-trees. Whatever the two do to each other, the balances add up
//! to what the bank was made with, and every worker's journal row counts the
//! transfers that were acknowledged to it.
//!
//! # Layout
//!
//! ```sql
//! CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
//! CREATE TABLE journal(worker INTEGER PRIMARY KEY, transfers INTEGER NOT NULL, digest INTEGER NOT NULL);
//! ```
//!
//! Ids and workers count from 0 without a gap; [`WORKERS`] journal rows exist
//! from the start. SQLite stores an integer in the fewest bytes that hold it,
//! so a plain balance would change its width, and with it the page, as it
//! changes. Each value is therefore stored with [`OFFSET`] added, which keeps
//! it in serial type 5 (48 bits, big-endian) from [`MIN_VALUE`] to
//! [`MAX_VALUE`]: a patch replaces six bytes by six bytes and touches nothing
//! else of the page. In SQL a balance is `balance - 1099511627776`.
//!
//! # Protocol
//!
//! A [`Layout`] says where each value lies. Stock SQLite may move rows at any
//! commit, so each access through it proves the place again, from the page
//! itself, and answers [`BankError::Moved`] if it no longer holds; the caller
//! then loads a new layout from its snapshot. One thing a page cannot tell: a
//! page that SQLite has put on the freelist keeps its bytes. So before it
//! relies on a layout in a new snapshot, a caller shows it page 1:
//! [`Layout::check_page_one`].

mod error;
mod layout;
mod page;
mod stock;
#[cfg(test)]
mod tests;
mod tree;
mod value;

pub use error::BankError;
pub use layout::{Layout, WorkerRow};
pub use page::Geometry;
pub use stock::{BankFacts, WORKERS, check_with_stock_sqlite, create};
pub use tree::{Location, locate_column, table_root};
pub use value::{Journal, MAX_VALUE, MIN_VALUE, OFFSET};
