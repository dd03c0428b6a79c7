//! Walks of a table B-tree: from the schema to a table, from a table to the
//! place of each row's value.
//!
//! Pages come from a function that the caller brings, so that the walk works
//! on a file, a snapshot, or a transaction, and needs none of them. A walk
//! never visits a page twice, which bounds it on a file whose pages point in a
//! circle, however deep the tree is.

use std::collections::HashSet;

use super::BankError;
use super::page::{Geometry, Row, TreePage};
use super::value::WIDTH;

/// The serial type of a 48-bit integer.
const SERIAL_TYPE: u64 = 5;

/// Where a six-byte value lies, and how to find out whether it still does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The leaf page, counted from 1.
    pub page: u32,
    /// The value's first byte on that page.
    pub offset: usize,
    /// The row.
    pub rowid: i64,
    /// The row's place among the cells of the page.
    pub cell: u16,
    /// The value's column, counted from 0.
    pub column: u16,
}

impl Location {
    /// The location of `column` in the row that is cell `cell` of the leaf
    /// `page`, provided that it lies there whole and six bytes wide.
    fn of(page: &TreePage<'_>, cell: u16, column: u16) -> Result<Self, BankError> {
        let row = page.row(cell)?;
        let rowid = row.rowid;
        let number = page.number();
        if row.overflows {
            return Err(BankError::Overflow {
                page: number,
                rowid,
            });
        }
        let field = row.field(usize::from(column))?;
        if field.serial_type != SERIAL_TYPE {
            return Err(BankError::Width {
                page: number,
                rowid,
                serial_type: field.serial_type,
            });
        }
        row.bytes(field)?;
        Ok(Self {
            page: number,
            offset: field.offset,
            rowid,
            cell,
            column,
        })
    }

    /// The range of the value's bytes in `page`, proven again from the page.
    ///
    /// The pointer array is consulted and not just the bytes of the cell: when
    /// SQLite rearranges a page, what the old place held stays readable. A page
    /// that makes no sense counts as moved, since SQLite may use it for
    /// something else by now; loading the layout tells that from corruption.
    pub(super) fn verify(
        &self,
        geometry: Geometry,
        page: &[u8],
    ) -> Result<std::ops::Range<usize>, BankError> {
        if page.len() != geometry.page_size() {
            return Err(BankError::Corrupt {
                page: self.page,
                reason: "length differs from the page size",
            });
        }
        match self.locate_again(geometry, page) {
            Ok(Some(found)) if found == *self => Ok(self.offset..self.offset + WIDTH),
            Ok(_) | Err(BankError::Corrupt { .. }) => Err(BankError::Moved { page: self.page }),
            Err(refused) => Err(refused),
        }
    }

    /// What the cell of this location is now, if it is still of the same row.
    fn locate_again(&self, geometry: Geometry, page: &[u8]) -> Result<Option<Self>, BankError> {
        let page = TreePage::parse(geometry, self.page, page)?;
        if !page.is_leaf() || page.row(self.cell)?.rowid != self.rowid {
            return Ok(None);
        }
        Self::of(&page, self.cell, self.column).map(Some)
    }
}

/// The root page of the table `name`, from `sqlite_schema`, which starts on
/// page 1. Names compare as in SQL, without regard to ASCII case.
///
/// # Errors
/// What `read_page` answers; [`BankError::NoTable`], or
/// [`BankError::Corrupt`].
pub fn table_root<P: AsRef<[u8]>>(
    geometry: Geometry,
    name: &str,
    mut read_page: impl FnMut(u32) -> anyhow::Result<P>,
) -> anyhow::Result<u32> {
    let mut root = None;
    for_each_leaf(geometry, 1, &mut read_page, |page| {
        for cell in 0..page.cells() {
            let row = page.row(cell)?;
            if is_text(&row, 0, "table")? && is_text(&row, 1, name)? {
                root = Some(root_page(page, &row)?);
            }
        }
        Ok(())
    })?;
    root.ok_or_else(|| BankError::NoTable { name: name.into() }.into())
}

/// The location of `column` (counted from 0) in each row of the table whose
/// root is page `root`, in the order of the rows.
///
/// # Errors
/// What `read_page` answers; [`BankError::Width`] or [`BankError::Overflow`]
/// for a row that cannot be patched in place, [`BankError::Corrupt`].
pub fn locate_column<P: AsRef<[u8]>>(
    geometry: Geometry,
    root: u32,
    column: u16,
    mut read_page: impl FnMut(u32) -> anyhow::Result<P>,
) -> anyhow::Result<Vec<Location>> {
    let mut locations = Vec::new();
    for_each_leaf(geometry, root, &mut read_page, |page| {
        for cell in 0..page.cells() {
            locations.push(Location::of(page, cell, column)?);
        }
        Ok(())
    })?;
    Ok(locations)
}

/// Visits the leaf pages below `root` from left to right.
fn for_each_leaf<P: AsRef<[u8]>>(
    geometry: Geometry,
    root: u32,
    read_page: &mut impl FnMut(u32) -> anyhow::Result<P>,
    mut visit: impl FnMut(&TreePage<'_>) -> Result<(), BankError>,
) -> anyhow::Result<()> {
    let mut seen = HashSet::from([root]);
    let mut pending = vec![root];
    while let Some(number) = pending.pop() {
        let bytes = read_page(number)?;
        let page = TreePage::parse(geometry, number, bytes.as_ref())?;
        if page.is_leaf() {
            visit(&page)?;
            continue;
        }
        for child in page.children()?.into_iter().rev() {
            // Page 1 is the root of the schema and nobody's child.
            if child <= 1 || !seen.insert(child) {
                return Err(page.corrupt("child is no page of its own").into());
            }
            pending.push(child);
        }
    }
    Ok(())
}

/// Whether a column holds the text `expected`. The length, which the record's
/// header has, is compared first: a schema row whose long SQL spills to
/// overflow pages is told apart by what lies on the leaf.
fn is_text(row: &Row<'_>, column: usize, expected: &str) -> Result<bool, BankError> {
    let field = row.field(column)?;
    if field.serial_type != 13 + 2 * expected.len() as u64 {
        return Ok(false);
    }
    Ok(row.bytes(field)?.eq_ignore_ascii_case(expected.as_bytes()))
}

/// The column `rootpage` of a schema row.
fn root_page(page: &TreePage<'_>, row: &Row<'_>) -> Result<u32, BankError> {
    let field = row.field(3)?;
    let root = match field.serial_type {
        9 => 1,
        1..=6 => row
            .bytes(field)?
            .iter()
            .fold(0u64, |root, byte| root << 8 | u64::from(*byte)),
        _ => 0,
    };
    u32::try_from(root)
        .ok()
        .filter(|root| *root > 1)
        .ok_or(page.corrupt("schema names no root page for the table"))
}
