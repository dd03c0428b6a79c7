//! The checks of the pages of a committed state.

use wal_core::PageNo;
use wal_core::format::{DatabaseHeader, DecodedStoreHeader, PageStoreHeader};
use wal_core::inspect::{CommittedPages, PageSource, walk_freelist};

use super::Checks;
use crate::output::units::{count, counted};

const RESTORE: &str = "restore a backup, or try `.recover` of the sqlite3 shell on a copy";

/// Checks page 1, the size and the free pages of `pages`, whose database file is `len` bytes
/// long.
pub(crate) fn check_database(
    pages: &CommittedPages<'_>,
    len: u64,
    checks: &mut Checks,
) -> anyhow::Result<()> {
    let mut page_one = vec![0; pages.page_size().len()];
    let source = pages.read(PageNo::ONE, &mut page_one)?;
    if pages.page_count() == 0 {
        checks.ok("page 1", "the database is empty");
        return Ok(());
    }
    let place = match source {
        PageSource::Log(frame) => format!("in frame {} of the log", frame.get()),
        _ => "in the database file".to_owned(),
    };
    if let Some(header) = DatabaseHeader::decode(&page_one) {
        check_sqlite(pages, &header, &place, checks);
        check_size(pages, len, checks)?;
        check_free_pages(pages, &header, checks)?;
        return Ok(());
    }
    match PageStoreHeader::decode(&page_one) {
        DecodedStoreHeader::Valid(header) if header.page_size == pages.page_size() => {
            let size = header.page_size;
            checks.ok(
                "page 1",
                format!("{place}; a page store with pages of {size} bytes"),
            );
        }
        DecodedStoreHeader::OtherVersion(version) => {
            let text = format!("{place}; a page store of version {version}, which is not known");
            checks.damage("page 1", text, "use a newer version of walctl");
        }
        DecodedStoreHeader::None => {
            let text = format!("{place}; it is neither of a SQLite database nor of a page store");
            let advice = "if the database is encrypted or holds raw pages, this says nothing; \
                else restore a backup";
            checks.damage("page 1", text, advice);
        }
        _ => checks.damage("page 1", format!("{place}; a damaged page store"), RESTORE),
    }
    check_size(pages, len, checks)
}

fn check_sqlite(
    pages: &CommittedPages<'_>,
    header: &DatabaseHeader,
    place: &str,
    checks: &mut Checks,
) {
    let size = pages.page_size();
    if let Some(fault) = header.fault(size) {
        let text = format!("{place}; SQLite refuses it: {fault}");
        checks.damage("page 1", text, RESTORE);
        return;
    }
    match header.page_count {
        Some(in_header) if in_header != pages.page_count() => {
            let text = format!(
                "{place}; it counts {}, and the last commit {}",
                counted(in_header, "page"),
                count(pages.page_count())
            );
            checks.damage("page 1", text, RESTORE);
        }
        _ if !header.is_wal() => {
            let text = format!("{place}; a SQLite database in rollback mode, which uses no log");
            checks.note("page 1", text);
        }
        _ => {
            let text = format!("{place}; a SQLite database in WAL mode with pages of {size} bytes");
            checks.ok("page 1", text);
        }
    }
}

fn check_size(pages: &CommittedPages<'_>, len: u64, checks: &mut Checks) -> anyhow::Result<()> {
    let page = u64::from(pages.page_size().bytes());
    let (in_file, rest) = (len / page, len % page);
    let total = pages.page_count();
    if let Some(missing) = pages.first_missing()? {
        let text = format!(
            "page {missing} of {} is neither in the database file nor in the log",
            count(total)
        );
        checks.damage("size", text, RESTORE);
        return Ok(());
    }
    let in_log = pages.pages_in_log() as u64;
    let text = format!(
        "{}; {} in the database file, {} in the log",
        counted(total, "page"),
        count(in_file),
        count(in_log)
    );
    match rest {
        // After its last commit was checkpointed it is as long as the database.
        0 if in_log == 0 && in_file > u64::from(total) => {
            let text = format!("{text}: page 1 may be damaged, or a checkpoint did not end");
            checks.note("size", text);
        }
        0 => checks.ok("size", text),
        rest => {
            let text = format!("{text}; the file ends with {rest} bytes of a page");
            checks.note("size", text);
        }
    }
    Ok(())
}

fn check_free_pages(
    pages: &CommittedPages<'_>,
    header: &DatabaseHeader,
    checks: &mut Checks,
) -> anyhow::Result<()> {
    let found = walk_freelist(pages, header)?;
    match found.faults.first() {
        None => {
            let (free, trunks) = (count(found.pages), counted(found.trunks, "trunk page"));
            let text = match found.pages {
                0 => "there are none".to_owned(),
                _ => format!("{free}, listed by {trunks}"),
            };
            checks.ok("free pages", text);
        }
        Some(first) => {
            let more = match found.fault_count - 1 {
                0 => String::new(),
                more => format!(" (and {})", counted(more, "more fault")),
            };
            let advice = "`VACUUM INTO` a new file makes a sound list, if `PRAGMA \
                integrity_check` finds nothing else";
            checks.damage("free pages", format!("{first}{more}"), advice);
        }
    }
    Ok(())
}
