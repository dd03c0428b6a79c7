//! The file system, the owners and the names of the files, and what lies beside them.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;

use nix::sys::statvfs::statvfs;
use wal_core::inspect::Content;
use wal_core::storage::{File as _, beside, new_file_leftovers};
use wal_shm::inspect::{DatabaseFile, FileSystem, LockByte};

use super::facts::Facts;
use super::findings::{Finding, Findings, Severity};
use super::pairs::content;
use crate::figures::user_name;
use crate::look::observe;
use crate::output::units::bytes;

/// Less free space than this is little for any database.
const LITTLE_SPACE: u64 = 16 << 20;
/// Less than this is little where it is less than a twentieth of the disk.
const SOME_SPACE: u64 = 1 << 30;
/// The first bytes of a rollback journal.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// A file system on which locks or shared memory do not reach all users.
pub(super) fn file_system(facts: &Facts, findings: &mut Findings) {
    let Ok(system) = FileSystem::of(facts.directory()) else {
        return;
    };
    let is_written = facts.samples.iter().any(|sample| {
        let mut open = sample.open.iter();
        open.any(|open| open.file == DatabaseFile::Database && open.may_write)
    });
    match system {
        FileSystem::Network(name) => findings.add(Finding {
            severity: Severity::Warning,
            name: "network-file-system",
            what: format!("the database is on a network or host-shared file system ({name})"),
            why: "users on two machines see neither the locks nor the shared memory of each other",
            advice: "move it to a local disk, or use it from this machine only".to_owned(),
            pids: Vec::new(),
        }),
        // Once a process has it open for writing, the copy is made.
        FileSystem::CopiesUp if !is_written => findings.add(Finding {
            severity: Severity::Note,
            name: "overlay-file-system",
            what: "the database is on an overlay, as the root of a container is".to_owned(),
            why: "the file is copied at the first write, and readers from before keep the old one",
            advice: "put databases on a volume".to_owned(),
            pids: Vec::new(),
        }),
        _ => {}
    }
}

/// Which bits of read and write a class of users needs or has.
fn rights(mode: u32, class: Class) -> u32 {
    let shift = match class {
        Class::Owner => 6,
        Class::Group => 3,
        Class::Others => 0,
    };
    (mode >> shift) & 0o6
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Owner,
    Group,
    Others,
}

/// What a user that is of `class` for `database` may do with `file`.
fn rights_on(file: &Metadata, database: &Metadata, class: Class) -> u32 {
    let same_group = file.gid() == database.gid();
    let as_what = match class {
        // root may do anything.
        Class::Owner if database.uid() == 0 => return 0o6,
        Class::Owner if file.uid() == database.uid() => Class::Owner,
        Class::Owner | Class::Group if same_group => Class::Group,
        _ => Class::Others,
    };
    rights(file.mode(), as_what)
}

/// Files that a user of the database cannot open.
pub(super) fn owners(facts: &Facts, findings: &mut Findings) {
    let Ok(database) = fs::metadata(&facts.path) else {
        return;
    };
    for file in [DatabaseFile::Log, DatabaseFile::Index, DatabaseFile::Side] {
        let path = file.path(&facts.path);
        let Ok(metadata) = fs::metadata(&path) else {
            continue;
        };
        let lacks = |class: &Class| {
            let needed = rights(database.mode(), *class);
            needed & !rights_on(&metadata, &database, *class) != 0
        };
        if ![Class::Owner, Class::Group, Class::Others]
            .iter()
            .any(lacks)
        {
            continue;
        }
        let shown = |of: &Metadata| {
            let group = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(of.gid()));
            let group = group.ok().flatten().map(|group| group.name);
            let group = group.unwrap_or_else(|| of.gid().to_string());
            format!("{}:{group} {:o}", user_name(of.uid()), of.mode() & 0o777)
        };
        let (of_file, of_database) = (shown(&metadata), shown(&database));
        let user = database.uid();
        findings.add(Finding {
            severity: Severity::Warning,
            name: "mixed-owners",
            what: format!(
                "{} is {of_file}, and the database is {of_database}",
                path.display()
            ),
            why: "a user who may use the database cannot open that file, and fails or reads only",
            advice: format!(
                "while no process uses it: `chown {user}:{} {path} && chmod {:o} {path}`",
                database.gid(),
                database.mode() & 0o777,
                path = path.display()
            ),
            pids: Vec::new(),
        });
    }
}

/// A directory in which the owner of the database cannot make a log.
pub(super) fn directory(facts: &Facts, findings: &mut Findings) {
    let (Ok(database), Ok(directory)) =
        (fs::metadata(&facts.path), fs::metadata(facts.directory()))
    else {
        return;
    };
    let mode = directory.mode();
    let is_member = || is_in_group(database.uid(), directory.gid());
    let class = match () {
        () if database.uid() == 0 => return,
        () if directory.uid() == database.uid() => mode >> 6,
        () if is_member() => mode >> 3,
        () => mode,
    };
    if class & 0o3 == 0o3 {
        return;
    }
    findings.add(Finding {
        severity: Severity::Warning,
        name: "unwritable-directory",
        what: format!(
            "{}, the owner of the database, cannot make files in {}",
            user_name(database.uid()),
            facts.directory().display()
        ),
        why: "SQLite makes the log and the index beside the database, and removes them",
        advice: "give the owner of the database the right to write the directory".to_owned(),
        pids: Vec::new(),
    });
}

/// Whether the user is a member of the group.
fn is_in_group(user: u32, group: u32) -> bool {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(user));
    let Some(user) = user.ok().flatten() else {
        return false;
    };
    let of_group = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(group));
    let members = of_group.ok().flatten().map(|group| group.mem);
    user.gid.as_raw() == group || members.is_some_and(|members| members.contains(&user.name))
}

/// A database with several names.
pub(super) fn names(facts: &Facts, findings: &mut Findings) {
    let links = fs::metadata(&facts.path).map_or(1, |database| database.nlink());
    if links > 1 {
        findings.add(Finding {
            severity: Severity::Warning,
            name: "hard-links",
            what: format!("the database has {links} names (hard links)"),
            why: "each name has a log of its own, and the users of one overwrite those of the other",
            advice: "remove all names but one; make copies by `walctl backup`".to_owned(),
            pids: Vec::new(),
        });
    }
    let is_link = fs::symlink_metadata(&facts.named).is_ok_and(|named| named.is_symlink());
    if is_link {
        findings.add(Finding {
            severity: Severity::Note,
            name: "symbolic-link",
            what: format!("{} is a symbolic link", facts.named.display()),
            why: "the log and the index lie beside the file that it leads to",
            advice: "copy and move the files there".to_owned(),
            pids: Vec::new(),
        });
    }
}

/// A journal of rollback mode, and a database in that mode.
pub(super) fn journal(facts: &Facts, findings: &mut Findings) {
    let is_wal = match content(facts) {
        Some(Content::Sqlite(header)) => header.is_wal(),
        _ => return,
    };
    let path = beside(&facts.path, "-journal");
    let is_locked = || {
        let writes = [LockByte::Reserved, LockByte::Pending];
        let in_look = |sample: &super::facts::Sample| {
            let mut held = sample.census.held();
            held.any(|lock| {
                writes.contains(&lock.byte)
                    || (lock.byte == LockByte::Shared && lock.mode == wal_core::LockMode::Exclusive)
            })
        };
        facts.samples.iter().any(in_look)
    };
    let is_hot = observe(&path).ok().flatten().is_some_and(|journal| {
        let mut magic = [0; JOURNAL_MAGIC.len()];
        journal.read_at(&mut magic, 0).is_ok() && magic == JOURNAL_MAGIC
    });
    // What is rolled back between the looks and now has no journal any more.
    if is_hot && !is_locked() && facts.has_looked_enough() && path.exists() {
        findings.add(Finding {
            severity: if is_wal {
                Severity::Danger
            } else {
                Severity::Warning
            },
            name: "hot-journal",
            what: format!("{} is a journal that no process rolls back", path.display()),
            why: match is_wal {
                true => {
                    "the next user writes its old pages over the database, and then uses the log"
                }
                false => "a writer died; the next user rolls its transaction back",
            },
            advice: match is_wal {
                true => {
                    "keep copies of all files; move the journal away if it is of another database"
                }
                false => "nothing, but keep the journal beside the database until it was opened",
            }
            .to_owned(),
            pids: Vec::new(),
        });
    }
    if !is_wal && facts.log_len() == 0 {
        findings.add(Finding {
            severity: Severity::Note,
            name: "rollback-mode",
            what: "the database is in rollback mode".to_owned(),
            why: "it has no log, and its readers and writers block each other",
            advice: "`PRAGMA journal_mode = wal` changes that".to_owned(),
            pids: Vec::new(),
        });
    }
}

/// Files that programs have left which died.
pub(super) fn leftovers(facts: &Facts, findings: &mut Findings) {
    let left = new_file_leftovers(&facts.path);
    if !left.is_empty() {
        let paths: Vec<String> = left.iter().map(|path| path.display().to_string()).collect();
        findings.add(Finding {
            severity: Severity::Note,
            name: "leftovers",
            what: format!(
                "backups that were interrupted have left {}",
                paths.join(", ")
            ),
            why: "they take room; no process uses them",
            advice: "the next backup to this directory removes them, or you do".to_owned(),
            pids: Vec::new(),
        });
    }
}

/// A disk that is nearly full.
pub(super) fn free_space(facts: &Facts, findings: &mut Findings) {
    let Ok(space) = statvfs(facts.directory()) else {
        return;
    };
    #[allow(clippy::useless_conversion)] // The fields have other widths on other systems.
    let [unit, free, all] = [
        space.fragment_size(),
        space.blocks_available(),
        space.blocks(),
    ]
    .map(u64::from);
    let (free, all) = (free.saturating_mul(unit), all.saturating_mul(unit));
    let severity = match () {
        () if free < facts.log_len().max(LITTLE_SPACE) => Severity::Warning,
        () if free < SOME_SPACE && free < all / 20 => Severity::Note,
        () => return,
    };
    findings.add(Finding {
        severity,
        name: "disk-nearly-full",
        what: format!("{} are free on the disk of the database", bytes(free)),
        why: "commits and checkpoints fail once it is full, and a checkpoint can need as much as \
              the log has",
        advice: "make room".to_owned(),
        pids: Vec::new(),
    });
}
