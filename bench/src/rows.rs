//! Which systems run in which row, and how.

use std::path::Path;

use anyhow::Result;

use crate::measure::{Bench, Scale};
use crate::systems::{Durability, Settings, System};
use crate::worker::Role;
use crate::{checkpoints, limits, processes, reads, writes};

use System::{Inproc, Limit, Lmdb, Redb, Shm, ShmGroup, Sqlite, SqliteMmap};

/// The systems that run in the row `id`.
pub(crate) fn systems(id: &str) -> &'static [System] {
    match id {
        "R1" => &[Shm, Inproc, Sqlite, SqliteMmap, Lmdb, Redb, Limit],
        "R2d" => &[Shm, Inproc, Sqlite, SqliteMmap, Lmdb, Redb, Limit],
        "R2w" => &[Shm, Inproc, Sqlite, SqliteMmap, Limit],
        "W1" | "W2" => &[Shm, Inproc, Sqlite, Lmdb, Redb, Limit],
        "W1c" => &[Shm, Inproc, Sqlite, Lmdb],
        "W3" => &[Shm, Inproc, Sqlite, Lmdb, Redb],
        "C1-off" | "C1-on" => &[Shm, Sqlite, Limit],
        "C2-100k" => &[Shm, Sqlite, Limit],
        "C2-500k" => &[Shm, Sqlite],
        "N1" => &[Shm],
        "W2p-8" | "W2p-16" => &[Shm, ShmGroup, Sqlite, Lmdb],
        "W2t-8" | "W2t-16" | "S-readt-2" | "S-readt-8" => &[Shm, Inproc, Sqlite, Lmdb, Redb],
        _ if id.starts_with("R3") => &[Shm, Sqlite],
        _ if id.starts_with("S-db") => &[Shm],
        _ if id.starts_with("S-tx") => &[Shm, Sqlite, Lmdb],
        _ => &[Shm, Sqlite, Lmdb],
    }
}

/// Whether the row `id` is left out when there is little time.
pub(crate) fn is_long(id: &str) -> bool {
    matches!(
        id,
        "R3-1M" | "C2-500k" | "S-tx-100k" | "S-db-10G" | "S-write-64" | "S-read-64"
    )
}

/// The row `id` on `system`, with its files in `directory`.
pub(crate) fn build(
    id: &str,
    system: System,
    directory: &Path,
    scale: Scale,
) -> Result<Box<dyn Bench>> {
    let quiet = Settings::new(Durability::Normal, false);
    let checkpointed = Settings::new(Durability::Normal, true);
    let durable = Settings::new(Durability::Full, true);
    let threads = |settings, role, count| {
        processes::threads(system, directory, scale, settings, (role, count))
    };
    let same =
        |settings, role, count| processes::same(system, directory, scale, settings, (role, count));
    match (id, system) {
        ("R1", Limit) => limits::locks(directory, scale),
        ("R2d", Limit) => limits::pread(directory, scale),
        ("R2w", Limit) => Ok(limits::copy(scale)),
        ("W1", Limit) => limits::append(directory, scale.count(20_000), false),
        ("W2", Limit) => limits::append(directory, scale.count(1000), true),
        ("C1-off", Limit) => limits::write_pages(directory, scale, false),
        ("C1-on", Limit) => limits::write_pages(directory, scale, true),
        ("C2-100k", Limit) => limits::read_file(directory, scale),
        ("R1", _) => reads::single(system, directory, scale),
        ("R2d", _) => reads::many(system, directory, scale, false),
        ("R2w", _) => reads::many(system, directory, scale, true),
        ("R3-1k", _) => reads::beside_the_log(system, directory, scale, 1000),
        ("R3-10k", _) => reads::beside_the_log(system, directory, scale, 10_000),
        ("R3-100k", _) => reads::beside_the_log(system, directory, scale, 100_000),
        ("R3-1M", _) => reads::beside_the_log(system, directory, scale, 1_000_000),
        ("W1", _) => writes::single(system, directory, quiet, (scale.count(20_000), 100)),
        ("W1c", _) => writes::single(system, directory, checkpointed, (scale.count(40_000), 1000)),
        ("W2", _) => writes::single(system, directory, durable, (scale.count(1000), 100)),
        ("W3", _) => writes::large(system, directory, scale),
        ("W2p-8", _) => same(durable, Role::Write, 8),
        ("W2p-16", _) => same(durable, Role::Write, 16),
        ("W2t-8", _) => threads(durable, Role::Write, 8),
        ("W2t-16", _) => threads(durable, Role::Write, 16),
        ("W2n", _) => same(checkpointed, Role::Write, 4),
        ("S-write-16", _) => same(checkpointed, Role::Write, 16),
        ("S-write-64", _) => same(checkpointed, Role::Write, 64),
        ("S-read-1", _) => same(checkpointed, Role::Read, 1),
        ("S-read-8", _) => same(checkpointed, Role::Read, 8),
        ("S-read-64", _) => same(checkpointed, Role::Read, 64),
        ("S-readt-2", _) => threads(checkpointed, Role::Read, 2),
        ("S-readt-8", _) => threads(checkpointed, Role::Read, 8),
        ("M1r", _) => processes::mixed(system, directory, scale, checkpointed, Role::Read),
        ("M1w", _) => processes::mixed(system, directory, scale, checkpointed, Role::Write),
        ("C1-off", _) => checkpoints::checkpoint(system, directory, scale, false),
        ("C1-on", _) => checkpoints::checkpoint(system, directory, scale, true),
        ("C2-100k", _) => checkpoints::recovery(system, directory, scale, 100_000),
        ("C2-500k", _) => checkpoints::recovery(system, directory, scale, 500_000),
        ("N1", _) => processes::notify(directory, scale, checkpointed),
        ("S-tx-1", _) => writes::of_pages(system, directory, scale, 1),
        ("S-tx-100", _) => writes::of_pages(system, directory, scale, 100),
        ("S-tx-10k", _) => writes::of_pages(system, directory, scale, 10_000),
        ("S-tx-100k", _) => writes::of_pages(system, directory, scale, 100_000),
        ("S-db-10M", _) => reads::sparse(directory, scale, 10 << 20),
        ("S-db-1G", _) => reads::sparse(directory, scale, 1 << 30),
        ("S-db-10G", _) => reads::sparse(directory, scale, 10 << 30),
        _ => anyhow::bail!("no row {id}"),
    }
}
