//! Which cells of a matrix are run: a seeded sample of each part, or with
//! `WAL_MATRIX=all` every one.

use std::env;

/// The choice for one run.
pub(crate) struct Plan {
    seed: u64,
    all: bool,
}

impl Plan {
    /// `WAL_MATRIX_SEED` chooses another sample.
    pub(crate) fn from_environment() -> Self {
        let seed = env::var("WAL_MATRIX_SEED").ok();
        Plan {
            seed: seed.map_or(1, |seed| seed.parse().unwrap()),
            all: env::var("WAL_MATRIX").is_ok_and(|value| value == "all"),
        }
    }

    /// `most` of the cells, in their order; prints how many there are.
    pub(crate) fn choose<T>(&self, name: &str, cells: Vec<T>, most: usize) -> Vec<T> {
        assert!(!cells.is_empty(), "{name}: no cells");
        let total = cells.len();
        let mut numbers: Vec<usize> = (0..total).collect();
        if !self.all {
            fastrand::Rng::with_seed(self.seed).shuffle(&mut numbers);
            numbers.truncate(most);
            numbers.sort_unstable();
        }
        let seed = self.seed;
        println!("{name}: {} of {total} cells, seed {seed}", numbers.len());
        let chosen = cells.into_iter().enumerate();
        chosen
            .filter(|(number, _)| numbers.binary_search(number).is_ok())
            .map(|(_, cell)| cell)
            .collect()
    }
}
