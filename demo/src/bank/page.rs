//! One page of a table B-tree, read with every bound checked.
//!
//! # Layout
//!
//! "B-tree Pages" and "Record Format" of SQLite's file format document. The
//! page header stands at byte 100 of page 1 and at byte 0 elsewhere: the kind
//! (1 byte), the first freeblock (2), the number of cells (2), the start of the
//! cell content (2), fragmented bytes (1), and on interior pages the rightmost
//! child (4). The array of cell pointers follows. A leaf's cell is payload size
//! (varint), rowid (varint), payload; an interior cell is a child page (4) and
//! a rowid that a walk of the whole table does not need.

use super::BankError;

const INTERIOR_TABLE: u8 = 0x05;
const LEAF_TABLE: u8 = 0x0d;
/// Where the B-tree header of page 1 starts: behind the database header.
const DATABASE_HEADER: usize = 100;

/// The sizes that page 1 declares for all pages of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    page_size: usize,
    usable: usize,
}

impl Geometry {
    /// Reads the page size (offset 16, where 1 stands for 65536) and the
    /// reserved bytes at the end of each page (offset 20).
    ///
    /// # Errors
    /// [`BankError::Corrupt`] if this is no first page of a SQLite database or
    /// `page_one` has another length than it says.
    pub fn from_page_one(page_one: &[u8]) -> Result<Self, BankError> {
        let corrupt = |reason| BankError::Corrupt { page: 1, reason };
        if !page_one.starts_with(b"SQLite format 3\0") || page_one.len() < DATABASE_HEADER {
            return Err(corrupt("not the header of a SQLite database"));
        }
        let page_size = match u16_at(page_one, 16) {
            Some(1) => 65536,
            Some(size) if size >= 512 && size.is_power_of_two() => usize::from(size),
            _ => return Err(corrupt("page size is not a power of two in 512..=65536")),
        };
        if page_one.len() != page_size {
            return Err(corrupt("length differs from the page size"));
        }
        let reserved = page_one.get(20).copied().map_or(0, usize::from);
        let usable = page_size - reserved;
        if usable < 480 {
            return Err(corrupt("fewer than 480 usable bytes"));
        }
        Ok(Self { page_size, usable })
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_size(self) -> usize {
        self.page_size
    }

    /// The largest payload that stays on its leaf page.
    fn max_local(self) -> usize {
        self.usable - 35
    }

    /// How much of a payload of `size` bytes, too large for its page, lies on it.
    fn local_part(self, size: u64) -> usize {
        let least = (self.usable - 12) * 32 / 255 - 23;
        let rest = (size - least as u64) % (self.usable as u64 - 4);
        // A remainder of at most 65532 always fits; the fallback is SQLite's
        // choice for a part that is too large.
        match usize::try_from(rest).map(|rest| least + rest) {
            Ok(part) if part <= self.max_local() => part,
            _ => least,
        }
    }
}

/// A table B-tree page whose header and pointer array were checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct TreePage<'a> {
    geometry: Geometry,
    number: u32,
    /// The usable bytes only.
    bytes: &'a [u8],
    is_leaf: bool,
    cells: u16,
    pointers: usize,
    content: usize,
}

impl<'a> TreePage<'a> {
    pub(super) fn parse(
        geometry: Geometry,
        number: u32,
        page: &'a [u8],
    ) -> Result<Self, BankError> {
        let corrupt = |reason| BankError::Corrupt {
            page: number,
            reason,
        };
        if page.len() != geometry.page_size {
            return Err(corrupt("length differs from the page size"));
        }
        let bytes = page
            .get(..geometry.usable)
            .ok_or(corrupt("shorter than its usable size"))?;
        let header = if number == 1 { DATABASE_HEADER } else { 0 };
        let (is_leaf, header_size) = match bytes.get(header) {
            Some(&LEAF_TABLE) => (true, 8),
            Some(&INTERIOR_TABLE) => (false, 12),
            _ => return Err(corrupt("not a page of a table B-tree")),
        };
        let short = corrupt("shorter than its header");
        let cells = u16_at(bytes, header + 3).ok_or(short.clone())?;
        let content = match u16_at(bytes, header + 5).ok_or(short)? {
            0 => 65536,
            start => usize::from(start),
        };
        let pointers = header + header_size;
        if pointers + 2 * usize::from(cells) > content || content > geometry.usable {
            return Err(corrupt("cell content starts outside its area"));
        }
        Ok(Self {
            geometry,
            number,
            bytes,
            is_leaf,
            cells,
            pointers,
            content,
        })
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.is_leaf
    }

    /// Cells on the page.
    pub(super) fn cells(&self) -> u16 {
        self.cells
    }

    pub(super) fn corrupt(&self, reason: &'static str) -> BankError {
        BankError::Corrupt {
            page: self.number,
            reason,
        }
    }

    /// The children of an interior page, in the order of their rows.
    pub(super) fn children(&self) -> Result<Vec<u32>, BankError> {
        let outside = || self.corrupt("child pointer lies outside the page");
        let mut children = Vec::with_capacity(usize::from(self.cells) + 1);
        for index in 0..self.cells {
            let start = self.cell_start(index)?;
            children.push(u32_at(self.bytes, start).ok_or_else(outside)?);
        }
        // The rightmost child is the last field of the page's header.
        children.push(u32_at(self.bytes, self.pointers - 4).ok_or_else(outside)?);
        Ok(children)
    }

    /// The cell `index` of a leaf page.
    pub(super) fn row(&self, index: u16) -> Result<Row<'a>, BankError> {
        let truncated = || self.corrupt("cell runs over the end of the page");
        let start = self.cell_start(index)?;
        let (size, payload) = varint(self.bytes, start).ok_or_else(truncated)?;
        let (rowid, payload) = varint(self.bytes, payload).ok_or_else(truncated)?;
        let (local, overflows) = match usize::try_from(size) {
            Ok(size) if size <= self.geometry.max_local() => (size, false),
            _ => (self.geometry.local_part(size), true),
        };
        let bytes = self.bytes.get(..payload + local).ok_or_else(truncated)?;
        Ok(Row {
            page: self.number,
            rowid: rowid.cast_signed(),
            overflows,
            bytes,
            payload,
        })
    }

    fn cell_start(&self, index: u16) -> Result<usize, BankError> {
        if index >= self.cells {
            return Err(self.corrupt("no such cell"));
        }
        u16_at(self.bytes, self.pointers + 2 * usize::from(index))
            .map(usize::from)
            .filter(|start| *start >= self.content)
            .ok_or_else(|| self.corrupt("cell pointer lies outside the cell content"))
    }
}

/// A row on a leaf page: its rowid and as much of its record as lies there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    page: u32,
    pub(super) rowid: i64,
    pub(super) overflows: bool,
    /// The page up to the end of the record's local part.
    bytes: &'a [u8],
    /// Where the record starts.
    payload: usize,
}

/// One value of a record: how it is stored and where on the page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) serial_type: u64,
    pub(super) offset: usize,
}

impl<'a> Row<'a> {
    /// The field of `column`, counted from 0. It may reach beyond the local
    /// part of the record; [`Row::bytes`] tells.
    pub(super) fn field(&self, column: usize) -> Result<Field, BankError> {
        let (header_size, mut at) =
            varint(self.bytes, self.payload).ok_or(self.corrupt("record has no header"))?;
        let body = usize::try_from(header_size)
            .ok()
            .and_then(|size| self.payload.checked_add(size))
            .filter(|body| *body <= self.bytes.len())
            .ok_or(self.corrupt("record's header runs over its end"))?;
        let header = self.bytes.get(..body).unwrap_or_default();
        let mut offset = body;
        for _ in 0..column {
            let (serial_type, next) = self.serial_type(header, at)?;
            offset = self
                .size_of(serial_type)?
                .checked_add(offset)
                .ok_or(self.corrupt("field is larger than memory"))?;
            at = next;
        }
        let (serial_type, _) = self.serial_type(header, at)?;
        Ok(Field {
            serial_type,
            offset,
        })
    }

    /// The bytes of a field, if all of them lie on this page.
    pub(super) fn bytes(&self, field: Field) -> Result<&'a [u8], BankError> {
        let end = field.offset.checked_add(self.size_of(field.serial_type)?);
        end.and_then(|end| self.bytes.get(field.offset..end))
            .ok_or(self.corrupt("field runs over the end of its record"))
    }

    fn serial_type(&self, header: &[u8], at: usize) -> Result<(u64, usize), BankError> {
        varint(header, at).ok_or(self.corrupt("record has too few columns"))
    }

    /// Bytes that a value of this serial type takes.
    fn size_of(&self, serial_type: u64) -> Result<usize, BankError> {
        let size = match serial_type {
            0 | 8 | 9 => 0,
            1..=4 => serial_type,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return Err(self.corrupt("reserved serial type")),
            _ => (serial_type - 12) / 2,
        };
        usize::try_from(size).map_err(|_| self.corrupt("field is larger than memory"))
    }

    fn corrupt(&self, reason: &'static str) -> BankError {
        BankError::Corrupt {
            page: self.page,
            reason,
        }
    }
}

/// A varint and the offset behind it: seven bits a byte, high bit set on all
/// but the last, and all eight bits of a ninth (`sqlite3GetVarint`).
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (length, byte) in bytes.get(at..)?.iter().take(9).enumerate() {
        if length == 8 {
            return Some((value << 8 | u64::from(*byte), at + 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, at + length + 1));
        }
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*field))
}

/// Four bytes at `at`, big-endian as all of the file.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*field))
}
