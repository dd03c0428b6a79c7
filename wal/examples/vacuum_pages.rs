//! Gives the space of a page store back: the pages that are in use are moved
//! together, in one transaction, while a reader goes on with the old ones.
//!
//! ```sh
//! cargo run -p wal --example vacuum_pages
//! ```

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::error::Error;
use std::{env, fs};

use wal::{Database, PageNo, VacuumOptions};

/// A page that begins with 0 is free.
const FREE: u8 = 0;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::temp_dir().join(format!("wal-vacuum-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let path = directory.join("pages");
    let database = Database::open_pages(&path)?;

    let mut write = database.begin_write()?;
    for number in 2..=100 {
        let page = write.allocate()?;
        write.page_mut(page)?[0] = if number % 10 == 0 { number } else { FREE };
    }
    write.commit()?;

    let old = database.begin_read()?;
    let reader = std::thread::scope(|scope| {
        let vacuum = scope.spawn(|| {
            database.vacuum(&VacuumOptions::new(), |old, new| {
                for number in 1..=old.page_count() {
                    let page = old.page(PageNo::new(number)?)?;
                    // Page 1 stays: it begins with the header of the store.
                    if number == 1 || page[0] != FREE {
                        new.push(&page)?;
                    }
                }
                Ok(())
            })
        });
        // The vacuum waits for this reader, but only to shorten the files.
        let still_there = old.page(PageNo::new(100)?)?[0];
        drop(old);
        let report = vacuum.join().map_err(|_| "the vacuum panicked")??;
        Ok::<_, Box<dyn Error>>((still_there, report))
    });
    let (still_there, report) = reader?;
    assert_eq!(still_there, 100);
    assert_eq!((report.pages_before, report.pages_after), (100, 11));
    assert_eq!(
        fs::metadata(&path)?.len(),
        11 * u64::from(database.page_size().bytes())
    );
    println!("{} pages, then {}", report.pages_before, report.pages_after);
    database.close()?;
    fs::remove_dir_all(directory)?;
    Ok(())
}
