//! Numbers that look random and are a plain function of a seed and a text.

use std::f64::consts::TAU;

use crate::domain::Splitmix;

/// Dice that a rehearsal can be repeated with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dice(Splitmix);

impl Dice {
    /// Dice that always fall the same way for this seed and text (FNV-1a, 64 bit).
    pub(super) fn new(seed: u64, text: &str) -> Self {
        let bytes = seed.to_le_bytes().into_iter().chain(text.bytes());
        Self(Splitmix(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })))
    }

    /// The next 64 bits.
    pub(super) fn roll(&mut self) -> u64 {
        self.0.roll()
    }

    /// A number above 0 and below 1.
    pub(super) fn unit(&mut self) -> f64 {
        let high = u32::try_from(self.roll() >> 32).unwrap_or(u32::MAX);
        (f64::from(high) + 0.5) / 4_294_967_296.0
    }

    /// A standard normal number (Box and Muller 1958).
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (TAU * self.unit()).cos()
    }

    /// One of these words; nothing of none.
    pub(super) fn pick(&mut self, words: &[&'static str]) -> &'static str {
        let len = u64::try_from(words.len()).unwrap_or(u64::MAX).max(1);
        let at = usize::try_from(self.roll() % len).unwrap_or(0);
        words.get(at).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_text_fall_the_same_way() {
        let rolls = |seed, text| {
            let mut dice = Dice::new(seed, text);
            [dice.roll(), dice.roll(), dice.roll()]
        };
        assert_eq!(rolls(7, "a"), rolls(7, "a"));
        assert_ne!(rolls(7, "a"), rolls(7, "b"));
        assert_ne!(rolls(7, "a"), rolls(8, "a"));
    }

    #[test]
    fn normal_numbers_have_mean_0_and_deviation_1() {
        let mut dice = Dice::new(1, "normal");
        let drawn: Vec<f64> = (0..20_000).map(|_| dice.normal()).collect();
        let mean = drawn.iter().sum::<f64>() / 20_000.0;
        let variance = drawn.iter().map(|it| (it - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03, "{mean}");
        assert!((variance - 1.0).abs() < 0.05, "{variance}");
    }
}
