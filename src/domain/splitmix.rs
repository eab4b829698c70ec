//! Numbers that look random and are a plain function of a seed.

/// A splitmix64 generator (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
/// generators"). Written out, so that what was played with it can be played again with any release.
#[derive(Clone, Copy, Debug)]
pub struct Splitmix(pub u64);

impl Splitmix {
    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of the published generator for seed 1,234,567.
    #[test]
    fn it_is_the_published_generator() {
        let mut numbers = Splitmix(1_234_567);
        let first = [numbers.roll(), numbers.roll(), numbers.roll()];
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(first, published);
    }
}
