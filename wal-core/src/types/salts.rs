//! The salts, which name a generation of the log: one life of it between two restarts.

use std::fmt;

use crate::testing::rule;

/// Bytes drawn at random that have to differ from all others, not to be secret.
pub(crate) fn random_bytes<const LEN: usize>() -> [u8; LEN] {
    let mut bytes = [0; LEN];
    if getrandom::fill(&mut bytes).is_err() {
        fastrand::Rng::new().fill(&mut bytes);
    }
    bytes
}

/// How many restarts of a log are counted. The first salts of two logs that have nothing to
/// do with each other are so close in one of 65536 cases.
const MAX_RESTARTS: u32 = 1 << 16;

/// The two salts of a log header, as the bytes that stand in the file.
///
/// The pair names a *generation* of the log: every restart changes it, and
/// frames of another generation are not part of the log. The checkpoint
/// sequence number of the header does not name a generation, because each
/// connection keeps its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Salts(pub [u8; 8]);

impl Salts {
    /// Salts drawn at random, for the first generation of a log. They come
    /// from the system: a generator of the process would repeat itself in a
    /// forked child.
    pub fn random() -> Self {
        Salts(random_bytes())
    }

    /// True for zeros, which name no generation: SQLite recovers each empty log with them,
    /// and may write them to a log header.
    pub(crate) fn names_none(self) -> bool {
        self.0 == [0; 8]
    }

    /// True if both name one generation.
    #[must_use]
    pub fn name_same(self, other: Self) -> bool {
        self == other && rule!(EmptyLogIsUnnamed, !self.names_none())
    }

    /// How many restarts of a log lead from the generation `older` to this one, by the
    /// first salt; `None` if they are more than 65536, or none.
    #[must_use]
    pub fn restarts_since(self, older: Self) -> Option<u32> {
        let first = |salts: Self| {
            let [a, b, c, d, ..] = salts.0;
            u32::from_be_bytes([a, b, c, d])
        };
        let restarts = first(self).wrapping_sub(first(older));
        (1..=MAX_RESTARTS).contains(&restarts).then_some(restarts)
    }

    /// The salts of the next generation: the first counts up as a big-endian
    /// integer, the second is random (`walRestartHdr`).
    #[must_use]
    pub fn next(self) -> Self {
        let [a, b, c, d, ..] = self.0;
        let first = u32::from_be_bytes([a, b, c, d])
            .wrapping_add(1)
            .to_be_bytes();
        let mut next = Self::random();
        next.0[..4].copy_from_slice(&first);
        next
    }
}

impl fmt::Debug for Salts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_are_counted_by_the_first_salt_across_its_end() {
        let salts = |first: u32| {
            let mut salts = Salts([7; 8]);
            salts.0[..4].copy_from_slice(&first.to_be_bytes());
            salts
        };
        let since = |new: u32, old: u32| salts(new).restarts_since(salts(old));
        assert_eq!(since(5, 4), Some(1));
        assert_eq!(since(2, u32::MAX), Some(3));
        assert_eq!(since(MAX_RESTARTS + 9, 9), Some(MAX_RESTARTS));
        for (new, old) in [(4, 4), (4, 5), (MAX_RESTARTS + 10, 9), (u32::MAX, 2)] {
            assert_eq!(since(new, old), None, "{new} after {old}");
        }
        assert_eq!(salts(3).next().restarts_since(salts(3)), Some(1));
    }

    #[test]
    fn a_restart_counts_the_first_salt_up_as_a_big_endian_integer() {
        let salts = Salts([0, 0, 0, 255, 9, 9, 9, 9]);
        assert_eq!(salts.next().0[..4], [0, 0, 1, 0]);
        assert_eq!(Salts([255; 8]).next().0[..4], [0; 4]);
    }
}
