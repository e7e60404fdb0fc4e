//! The random numbers of the fuzzer: SplitMix64, so that one seed says all that a child does.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
pub struct Random(pub u64);

impl Random {
    /// 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether one of `of` comes up.
    pub fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// One of `list`, which is not empty.
    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn one_seed_one_sequence() {
        let draw = |seed| std::array::from_fn::<u64, 8, _>(|_| seed).map(|s| Random(s).below(1000));
        assert_eq!(draw(7), draw(7));
        let mut random = Random(1);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert!((0..1000).any(|_| random.one_in(10)) && !(0..1000).all(|_| random.one_in(10)));
    }
}
