//! The six-byte values of the bank, and what a journal row says.

use sha2::{Digest, Sha256};

use super::BankError;

/// Added to each value before it is stored.
pub const OFFSET: i64 = 1 << 40;

/// The smallest value that is stored in serial type 5: below 2^31, SQLite
/// would choose a narrower one (`sqlite3VdbeSerialType`).
pub const MIN_VALUE: i64 = (1 << 31) - OFFSET;

/// The largest value that is stored in serial type 5, which holds 48 bits and
/// a sign among them.
pub const MAX_VALUE: i64 = (1 << 47) - 1 - OFFSET;

/// Bytes of a stored value.
pub(super) const WIDTH: usize = 6;

/// A digest has the low 46 bits of a hash, all of which lie within
/// [`MAX_VALUE`].
const DIGEST_MASK: u64 = (1 << 46) - 1;

/// The value as SQL sees it, with the offset; refused if it would be stored in
/// another width.
pub(super) fn stored(value: i64) -> Result<i64, BankError> {
    if !(MIN_VALUE..=MAX_VALUE).contains(&value) {
        return Err(BankError::OutOfRange { value });
    }
    Ok(value + OFFSET)
}

/// The bytes of `value` in a record.
pub(super) fn encode(value: i64) -> Result<[u8; WIDTH], BankError> {
    let [_, _, bytes @ ..] = stored(value)?.to_be_bytes();
    Ok(bytes)
}

/// The value of six bytes of a record. Never fails: whatever serial type 5 can
/// hold, SQL would read the same.
pub(super) fn decode(bytes: [u8; WIDTH]) -> i64 {
    let [b0, b1, b2, b3, b4, b5] = bytes;
    // The bytes go to the top first, so that the shift back extends the sign.
    (i64::from_be_bytes([b0, b1, b2, b3, b4, b5, 0, 0]) >> 16) - OFFSET
}

/// What the journal row of one worker says: how many transfers it committed,
/// and a digest of them in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Journal {
    /// Committed transfers.
    pub transfers: i64,
    /// Hash over the digest before the last transfer and that transfer; 0 when
    /// there was none. From 0 to 2^46 - 1.
    pub digest: i64,
}

impl Journal {
    /// The journal after one more transfer. Who was told of each transfer can
    /// repeat the sequence and compare: a transfer that is lost, doubled, or
    /// out of order shows.
    #[must_use]
    pub fn after_transfer(self, from: u32, to: u32, amount: i64) -> Self {
        let hash = Sha256::new()
            .chain_update(self.digest.to_be_bytes())
            .chain_update(from.to_be_bytes())
            .chain_update(to.to_be_bytes())
            .chain_update(amount.to_be_bytes())
            .finalize();
        let word = hash
            .iter()
            .take(8)
            .fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        Self {
            transfers: self.transfers.saturating_add(1),
            digest: (word & DIGEST_MASK).cast_signed(),
        }
    }
}
