//! Bets: wealth that is proof, and the two bets of a gate.

use serde::{Deserialize, Serialize};

use crate::domain::Verdict;

use super::{float, whole};

/// Regressions the harm bets are best against, in margins.
pub(super) const HARM_MULTIPLES: [f64; 4] = [1.5, 5.0, 20.0, 100.0];
/// How the money of a harm bet is split over [`HARM_MULTIPLES`].
const HARM_WEIGHTS: [f64; 4] = [0.4, 0.2, 0.2, 0.2];
/// Parts of the best fraction that the safe bets stake.
pub(super) const SAFE_MULTIPLES: [f64; 2] = [1.0, 0.4];
/// How the money of a safe bet is split over [`SAFE_MULTIPLES`].
const SAFE_WEIGHTS: [f64; 2] = [0.7, 0.3];

/// The wealth of several bettors who play the same game with different stakes.
///
/// As long as each one's gains are fair or worse under the null and all the money put in
/// is at most 1, the total is an e-process: P(ever ≥ 1/α) ≤ α.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bet<A> {
    ln: A,
}

impl<const N: usize> Bet<[f64; N]> {
    fn new(weights: [f64; N], money: f64) -> Self {
        Self { ln: weights.map(|weight| (weight * money).ln()) }
    }

    fn add(&mut self, weights: [f64; N], money: f64) {
        for (ln, weight) in self.ln.iter_mut().zip(weights) {
            *ln = ln_sum(&[*ln, (weight * money).ln()]);
        }
    }

    fn win(&mut self, gains: [f64; N]) {
        for (ln, gain) in self.ln.iter_mut().zip(gains) {
            *ln += gain;
        }
    }

    fn ln_e(&self) -> f64 {
        ln_sum(&self.ln)
    }
}

/// The logarithm of a sum of numbers given by their logarithms.
pub(super) fn ln_sum(terms: &[f64]) -> f64 {
    let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest.is_finite() {
        largest + terms.iter().map(|term| (term - largest).exp()).sum::<f64>().ln()
    } else {
        largest
    }
}

/// Where the bets of a gate decide, as logarithms of wealth.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Limits {
    /// Harm is proven from here on.
    pub(super) harm: f64,
    /// Safety is proven from here on.
    pub(super) safe: f64,
}

/// The two bets of a gate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wealth {
    limits: Limits,
    harm: Bet<[f64; 4]>,
    safe: Bet<[f64; 2]>,
    /// Harm was proven once; it stays so for the attempt.
    breached: bool,
}

impl Wealth {
    /// No money on harm yet, all of it on safety.
    pub(super) fn new(limits: Limits) -> Self {
        let (harm, safe) = (Bet::new(HARM_WEIGHTS, 0.0), Bet::new(SAFE_WEIGHTS, 1.0));
        Self { limits, harm, safe, breached: false }
    }

    /// Puts fresh money on harm; must not depend on what it will be bet on.
    pub(super) fn fund(&mut self, money: f64) {
        if 0.0 < money {
            self.harm.add(HARM_WEIGHTS, money);
        }
    }

    /// Takes the logarithmic gains of an observation.
    pub(super) fn win(&mut self, harm: [f64; 4], safe: [f64; 2]) {
        self.harm.win(harm);
        self.safe.win(safe);
        if harm.iter().any(|gain| 0.0 < *gain) {
            self.breached |= self.limits.harm <= self.harm.ln_e();
        }
    }

    /// Takes a loss on safety alone.
    pub(super) fn lose_safe(&mut self, safe: [f64; 2]) {
        self.safe.win(safe);
    }

    /// Whether harm was proven.
    pub(super) fn is_breached(&self) -> bool {
        self.breached
    }

    /// Begins the proof of safety anew; the proof of harm goes on.
    pub(super) fn renew_safe(&mut self) {
        self.safe = Bet::new(SAFE_WEIGHTS, 1.0);
    }

    /// What the bets say, of evidence that can be trusted.
    pub(super) fn verdict(&self) -> Verdict {
        if self.breached {
            Verdict::Breach
        } else if self.limits.safe <= self.safe.ln_e() {
            Verdict::Pass
        } else {
            Verdict::Undecided
        }
    }

    /// How far the proof of harm has come, 0 to 1.
    pub(super) fn harm(&self) -> f64 {
        if self.breached { 1.0 } else { (self.harm.ln_e() / self.limits.harm).clamp(0.0, 1.0) }
    }

    /// How far the proof of safety has come, 0 to 1.
    pub(super) fn safe(&self) -> f64 {
        (self.safe.ln_e() / self.limits.safe).clamp(0.0, 1.0)
    }

    /// About how many samples are missing for a verdict, after `samples`; none when the
    /// wealth is not growing. `growth` is the gain of a sample if there is no difference:
    /// the estimate begins with it and turns to the growth seen as samples come in.
    pub(super) fn samples_needed(&self, samples: u64, growth: f64) -> Option<u64> {
        if self.verdict() != Verdict::Undecided {
            return Some(0);
        }
        let (limit, ln_e) = (self.limits.safe, self.safe.ln_e());
        let alone = limit / growth;
        let rate = (limit + ln_e) / (alone + float(samples));
        (0.0 < growth && 0.0 < rate).then(|| whole(((limit - ln_e) / rate).ceil()))
    }

    /// The logarithms of both wealths, harm first.
    #[cfg(test)]
    pub(super) fn ln_e(&self) -> [f64; 2] {
        [self.harm.ln_e(), self.safe.ln_e()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wealth_is_the_sum_over_the_bettors() {
        let mut bet = Bet::new([0.5, 0.5], 0.0);
        assert!(bet.ln_e() < -1e300);
        bet.add([0.5, 0.5], 0.5);
        bet.add([0.5, 0.5], 0.5);
        assert!(bet.ln_e().abs() < 1e-12);
        bet.win([2.0_f64.ln(), 4.0_f64.ln()]);
        assert!((bet.ln_e() - 3.0_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_breach_stays_even_when_the_wealth_is_lost_again() {
        let mut wealth = Wealth::new(Limits { harm: 4.0, safe: 3.0 });
        wealth.fund(1.0);
        wealth.win([5.0; 4], [-9.0; 2]);
        wealth.win([-50.0; 4], [30.0; 2]);
        assert_eq!(wealth.verdict(), Verdict::Breach);
        assert!(1.0 <= wealth.harm());
    }

    #[test]
    fn the_estimate_moves_from_what_is_expected_to_what_is_seen() {
        let mut wealth = Wealth::new(Limits { harm: 4.0, safe: 3.0 });
        assert_eq!(wealth.samples_needed(0, 0.01), Some(300));
        assert_eq!(wealth.samples_needed(0, 0.0), None);
        wealth.win([0.0; 4], [1.0; 2]);
        let slower = wealth.samples_needed(300, 0.01);
        assert!(Some(200) < slower && slower < Some(600), "{slower:?}");
        wealth.win([0.0; 4], [-5.0; 2]);
        assert_eq!(wealth.samples_needed(900, 0.01), None);
    }
}
