//! Configuration of property tests.

use proptest::test_runner::{Config, RngSeed};

/// The same cases in each run, unless `PROPTEST_RNG_SEED` is set.
pub(crate) fn same_cases(cases: u32) -> Config {
    let given = Config::default();
    let rng_seed = if given.rng_seed == RngSeed::Random { RngSeed::Fixed(1) } else { given.rng_seed };
    let cases = if given.cases == 256 { cases } else { given.cases };
    Config { cases, rng_seed, failure_persistence: None, ..given }
}
