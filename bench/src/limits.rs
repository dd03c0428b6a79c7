//! What the machine gives, without any of the systems.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::measure::{Bench, Scale, latencies, mean, megabytes_a_second};

fn file(directory: &Path, pages: u64) -> Result<File> {
    let path = directory.join("limit");
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let page = [7; 4096];
    for at in 0..pages {
        file.write_all_at(&page, at * 4096)?;
    }
    Ok(file)
}

/// R1: two locks by `fcntl`, which a reader of SQLite takes.
pub(crate) fn locks(directory: &Path, scale: Scale) -> Result<Box<dyn Bench>> {
    let file = file(directory, 1)?;
    let count = scale.count(100_000);
    let set = move |kind: i32| -> Result<()> {
        let lock = libc::flock {
            l_type: i16::try_from(kind)?,
            l_whence: 0,
            l_start: 120,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_OFD_SETLK(&lock))?;
        Ok(())
    };
    Ok(Box::new(move || {
        mean(count, |_| {
            set(libc::F_RDLCK)?;
            set(libc::F_UNLCK)
        })
    }))
}

/// R2d: `pread` of a page.
pub(crate) fn pread(directory: &Path, scale: Scale) -> Result<Box<dyn Bench>> {
    let file = file(directory, 10_000)?;
    let mut random = fastrand::Rng::with_seed(7);
    let mut page = [0; 4096];
    let count = scale.count(200_000);
    Ok(Box::new(move || {
        mean(count, |_| {
            Ok(file.read_exact_at(&mut page, random.u64(..10_000) * 4096)?)
        })
    }))
}

/// R2w: a copy of a page in memory.
pub(crate) fn copy(scale: Scale) -> Box<dyn Bench> {
    let from = vec![7_u8; 4096 * 10_000];
    let mut to = [0; 4096];
    let mut random = fastrand::Rng::with_seed(7);
    let count = scale.count(200_000);
    Box::new(move || {
        mean(count, |_| {
            let at = random.usize(..10_000) * 4096;
            to.copy_from_slice(&from[at..at + 4096]);
            std::hint::black_box(&mut to);
            Ok(())
        })
    })
}

/// W1 and W2: a frame is added to a file, and synced.
pub(crate) fn append(directory: &Path, count: u32, synced: bool) -> Result<Box<dyn Bench>> {
    let file = file(directory, 0)?;
    let frame = [7; 4120];
    let mut at = 0;
    Ok(Box::new(move || {
        latencies(count, 100, |_| {
            file.write_all_at(&frame, at)?;
            at += 4120;
            if synced {
                file.sync_data()?;
            }
            Ok(())
        })
    }))
}

/// C1: pages are written in order, and synced.
pub(crate) fn write_pages(directory: &Path, scale: Scale, synced: bool) -> Result<Box<dyn Bench>> {
    let pages = scale.choose(100_000, 25_000, 500);
    let file = file(directory, pages)?;
    let megabyte = vec![8; 1 << 20];
    Ok(Box::new(move || {
        let started = Instant::now();
        for at in 0..pages / 256 {
            file.write_all_at(&megabyte, at << 20)?;
        }
        if synced {
            file.sync_data()?;
        }
        Ok(megabytes_a_second((pages / 256) << 20, started.elapsed()))
    }))
}

/// C2: a file is read from beginning to end.
pub(crate) fn read_file(directory: &Path, scale: Scale) -> Result<Box<dyn Bench>> {
    let pages = scale.choose(100_000, 25_000, 500);
    let file = file(directory, pages)?;
    let mut megabyte = vec![0; 1 << 20];
    Ok(Box::new(move || {
        let started = Instant::now();
        for at in 0..pages / 256 {
            file.read_exact_at(&mut megabyte, at << 20)?;
        }
        let mut sample = megabytes_a_second((pages / 256) << 20, started.elapsed());
        sample.value /= 1000.0;
        Ok(sample)
    }))
}
