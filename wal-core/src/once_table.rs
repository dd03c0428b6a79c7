//! A table that only grows and whose entries never move, so that a reference
//! to one stays good as long as the table. It holds index blocks and mapped
//! segments.

use std::sync::OnceLock;

/// Buckets double in size, so 32 of them hold every `u32` index.
const BUCKETS: usize = 32;

type Bucket<T> = Box<[OnceLock<T>]>;

/// A growing table of values that are set once.
pub struct OnceTable<T> {
    buckets: [OnceLock<Bucket<T>>; BUCKETS],
}

impl<T> OnceTable<T> {
    /// An empty table.
    pub const fn new() -> Self {
        OnceTable {
            buckets: [const { OnceLock::new() }; BUCKETS],
        }
    }

    /// The value at `index`, if it was set.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        let (bucket, place) = Self::place(index);
        self.buckets[bucket].get()?[place].get()
    }

    /// The value at `index`, set to what `make` gives if it was not set. Two
    /// threads may both make one; then one of the two is kept.
    ///
    /// # Errors
    /// What `make` gives.
    #[inline]
    pub fn get_or_try_make<E>(
        &self,
        index: u32,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        let cell = self.cell(index);
        if let Some(value) = cell.get() {
            return Ok(value);
        }
        let value = make()?;
        Ok(cell.get_or_init(|| value))
    }

    /// The value at `index`, set to what `make` gives if it was not set.
    pub fn get_or_make(&self, index: u32, make: impl FnOnce() -> T) -> &T {
        self.cell(index).get_or_init(make)
    }

    #[inline]
    fn cell(&self, index: u32) -> &OnceLock<T> {
        let (bucket, place) = Self::place(index);
        let bucket = self.buckets[bucket]
            .get_or_init(|| (0..1usize << bucket).map(|_| OnceLock::new()).collect());
        &bucket[place]
    }

    /// Bucket *b* holds the indices from 2^b − 1 on. The last index would need
    /// one bucket more and shares the place of the one before; no table gets
    /// near it.
    #[inline]
    fn place(index: u32) -> (usize, usize) {
        let nth = index.saturating_add(1);
        let bucket = nth.ilog2();
        (bucket as usize, (nth - (1 << bucket)) as usize)
    }
}

impl<T> Default for OnceTable<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> std::fmt::Debug for OnceTable<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnceTable")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_once_and_stay_where_they_are() {
        let table = OnceTable::new();
        let first: *const u32 = table.get_or_try_make(0, || Ok::<_, ()>(7)).unwrap();
        for index in 1..5000 {
            assert_eq!(table.get(index), None);
            assert_eq!(
                table.get_or_try_make(index, || Ok::<_, ()>(index * 3)),
                Ok(&(index * 3))
            );
        }
        assert_eq!(table.get_or_try_make(0, || Err(())), Ok(&7));
        assert!(std::ptr::eq(first, table.get(0).unwrap()));
        assert_eq!(table.get(4999), Some(&(4999 * 3)));
    }

    #[test]
    fn a_failure_to_make_a_value_leaves_the_place_empty() {
        let table: OnceTable<u32> = OnceTable::new();
        assert_eq!(table.get_or_try_make(9, || Err("no")), Err("no"));
        assert_eq!(table.get(9), None);
    }
}
