//! A queue of jobs between processes: one adds jobs, three workers wait for
//! them, without polling. The jobs are numbers in a page; a worker takes the
//! first one and writes what it made of it into its own page.
//!
//! ```sh
//! cargo run -p wal --example worker_queue
//! ```

#![allow(clippy::print_stdout)] // It is a program, and tells what came of it.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use wal::{Database, DatabaseKind, Options, PAGE_STORE_HEADER_LEN, PageNo, Synchronous};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WORKERS: u32 = 3;
const JOBS: u32 = 200;
/// How long anybody waits for the others.
const PATIENCE: Duration = Duration::from_secs(30);

/// Page 1: how many jobs were added, and how many were taken, in words behind the header.
const QUEUE: PageNo = PageNo::ONE;
const ADDED: usize = PAGE_STORE_HEADER_LEN / 4;
const TAKEN: usize = ADDED + 1;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    match arguments.as_slice() {
        [_, worker, path] => work(Path::new(path), worker.parse()?),
        _ => supervise(),
    }
}

fn supervise() -> Result<()> {
    let directory = env::temp_dir().join(format!("wal-worker-queue-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let path = directory.join("queue");
    let queue = open(&path)?;
    let mut write = queue.begin_write()?;
    for _ in 0..WORKERS {
        write.allocate()?;
    }
    write.commit()?;

    let start = |worker: u32| {
        let mut command = Command::new(env::current_exe()?);
        command.arg(worker.to_string()).arg(&path).spawn()
    };
    let workers: Vec<Child> = (0..WORKERS).map(start).collect::<std::io::Result<_>>()?;
    for job in 1..=JOBS {
        let mut write = queue.begin_write()?;
        set(write.page_mut(QUEUE)?, ADDED, job);
        write.commit()?; // wakes the workers
    }
    for mut worker in workers {
        assert!(worker.wait()?.success());
    }
    let read = queue.begin_read()?;
    let mut sum = 0;
    for worker in 0..WORKERS {
        let page = read.page(own_page(worker)?)?;
        println!("worker {worker}: {} jobs", get(&page, 0));
        sum += get(&page, 1);
    }
    assert_eq!(sum, JOBS * (JOBS + 1) / 2, "each job was done once");
    drop(read);
    queue.close()?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

/// Takes jobs until all are taken.
fn work(path: &Path, worker: u32) -> Result<()> {
    let queue = open(path)?;
    loop {
        let seen = *queue.begin_read()?.snapshot();
        let mut write = queue.begin_write()?;
        let page = write.page_mut(QUEUE)?;
        let (added, taken) = (get(page, ADDED), get(page, TAKEN));
        if taken == JOBS {
            return Ok(());
        }
        if taken == added {
            drop(write);
            // Whatever was committed since `seen` ends the wait at once.
            assert!(queue.wait_for_change(&seen, PATIENCE)?, "nobody adds jobs");
            continue;
        }
        let job = taken + 1;
        set(page, TAKEN, job);
        let result = write.page_mut(own_page(worker)?)?;
        let (count, sum) = (get(result, 0), get(result, 1));
        set(result, 0, count + 1);
        set(result, 1, sum + job);
        write.commit()?;
    }
}

fn open(path: &Path) -> Result<Database> {
    let options = Options::new().kind(DatabaseKind::PageStore);
    let options = options.synchronous(Synchronous::Normal);
    Ok(options.busy_timeout(PATIENCE).open(path)?)
}

fn own_page(worker: u32) -> Result<PageNo> {
    Ok(PageNo::new(QUEUE.get() + 1 + worker)?)
}

fn get(page: &[u8], word: usize) -> u32 {
    let (words, _) = page.as_chunks();
    u32::from_le_bytes(words[word])
}

fn set(page: &mut [u8], word: usize, value: u32) {
    let (words, _) = page.as_chunks_mut();
    words[word] = value.to_le_bytes();
}
