//! Seeded random numbers, for simulation: the same seed always gives the same sequence.

use std::{ops::Range, time::Duration};

/// A seeded random number generator: SplitMix64 (Steele, Lea, Flood 2014), small and good enough for simulation. Not
/// for secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Dice {
        Dice { state: seed }
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `below`; 0 for 0.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.any().checked_rem(below).unwrap_or(0)
    }

    /// True with a probability of `chance` in 1000.
    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.roll(1000) < chance
    }

    /// A duration within a range of milliseconds; its start, if the range is empty.
    pub fn millis(&mut self, range: &Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.roll(range.end.saturating_sub(range.start)))
    }

    /// A mutation of some bytes, for fuzz tests of parsers: a few of them are changed, removed, duplicated, or replaced
    /// by one of `words`.
    pub fn mutate(&mut self, bytes: &[u8], words: &[&str]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.roll(3) {
            let place = |dice: &mut Dice, len: usize| usize::try_from(dice.roll(len as u64 + 1)).unwrap_or(0);
            let from = place(self, out.len());
            let to = (from + place(self, 12)).min(out.len());
            match self.roll(5) {
                0 => {
                    if let Some(byte) = out.get_mut(from) {
                        *byte = self.any().to_le_bytes()[0];
                    }
                }
                1 => {
                    out.drain(from..to);
                }
                2 => {
                    let piece = out[from..to].to_vec();
                    out.splice(from..from, piece);
                }
                3 => out.truncate(from),
                _ => {
                    let word = self.pick(words).copied().unwrap_or_default();
                    out.splice(from..to, word.bytes());
                }
            }
        }
        out
    }

    /// One element; `None` if there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.roll(of.len() as u64)).unwrap_or(0);
        of.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_sequence() {
        // The first outputs for seed 1234567 as given by the reference implementation (prng.di.unimi.it).
        let mut dice = Dice::new(1_234_567);
        assert_eq!([dice.any(), dice.any()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
        assert_eq!(dice.roll(0), 0);
        assert_eq!(dice.millis(&(5..5)), Duration::from_millis(5));
        assert_eq!(dice.pick::<u8>(&[]), None);
    }
}
