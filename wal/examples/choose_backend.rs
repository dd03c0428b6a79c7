//! The same code on either backend: the program is generic over it, and a cargo
//! feature brings each one in.
//!
//! ```sh
//! cargo run -p wal --example choose_backend                                        # shared
//! cargo run -p wal --example choose_backend --no-default-features --features inproc # one process
//! cargo run -p wal --example choose_backend --features inproc                       # both
//! ```

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::env;
use std::error::Error;

use wal::generic::Database;
use wal::{Backend, DatabaseKind, Options, PAGE_STORE_HEADER_LEN, PageNo};

/// Counts up in page 1, behind the header. `wal::Database` is that of the default backend.
fn count<B: Backend>(database: &Database<B>) -> wal::Result<u8> {
    let mut write = database.begin_write()?;
    let counter = &mut write.page_mut(PageNo::ONE)?[PAGE_STORE_HEADER_LEN];
    *counter += 1;
    let now = *counter;
    write.commit()?;
    Ok(now)
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::temp_dir().join(format!("wal-backend-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let path = directory.join("pages");
    let options = Options::new().kind(DatabaseKind::PageStore);
    let mut expected = 0;
    #[cfg(feature = "shm")]
    {
        let database = options.open_shm(&path)?;
        expected += 1;
        assert_eq!(count(&database)?, expected);
        // Another handle, of this process or another, has the same database.
        assert!(options.open_shm(&path).is_ok());
        database.close()?;
        println!("shared: {expected}");
    }
    #[cfg(feature = "inproc")]
    {
        let database = options.open_inproc(&path)?;
        expected += 1;
        assert_eq!(count(&database)?, expected);
        // Nobody else gets it meanwhile.
        let hasty = options.busy_timeout(std::time::Duration::ZERO);
        assert!(hasty.open_inproc(&path).is_err());
        database.close()?;
        println!("in-process: {expected}");
    }
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
