//! Bets: wealth that is proof, and the two bets of a gate.

use std::f64::consts::LN_2;

use serde::{Deserialize, Serialize};

use crate::domain::Verdict;

use super::{float, footing::Measure, reserve::Reserve, whole};

/// Regressions the harm bets are best against, in margins.
pub(super) const HARM_MULTIPLES: [f64; 4] = [1.5, 5.0, 20.0, 100.0];
/// How the money of a harm bet is split over [`HARM_MULTIPLES`].
const HARM_WEIGHTS: [f64; 4] = [0.4, 0.2, 0.2, 0.2];
/// Regressions the bets on more than the alarm are best against, in margins.
pub(super) const BEYOND_MULTIPLES: [f64; 4] = [2.0, 4.0, 12.0, 50.0];
/// How their money is split over [`BEYOND_MULTIPLES`].
const BEYOND_WEIGHTS: [f64; 4] = [0.55, 0.25, 0.15, 0.05];
/// Chance that a regression below the alarm is taken for one beyond it, as long as the bets
/// have not come back from their floor. Ten times rarer costs a quarter of the speed at twice
/// the margin.
const BEYOND_CHANCE: f64 = 0.1;
/// The logarithm below which they do not fall, so that a fault after a long good time is
/// seen. To come up from here by luck takes a chance of one in four thousand.
const BEYOND_FLOOR: f64 = -6.0;
/// Parts of the best fraction that the safe bets stake.
pub(super) const SAFE_MULTIPLES: [f64; 2] = [1.0, 0.4];
/// How the money of a safe bet is split over [`SAFE_MULTIPLES`].
const SAFE_WEIGHTS: [f64; 2] = [0.7, 0.3];

/// The wealth of several bettors who play the same game with different stakes.
///
/// As long as each one's gains are fair or worse under the null and all the money put in
/// is at most 1, the total is an e-process: P(ever ≥ 1/α) ≤ α.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Bet<A> {
    ln: A,
}

impl<const N: usize> Bet<[f64; N]> {
    pub(super) fn new(weights: [f64; N], money: f64) -> Self {
        Self { ln: weights.map(|weight| (weight * money).ln()) }
    }

    fn add(&mut self, weights: [f64; N], money: f64) {
        for (ln, weight) in self.ln.iter_mut().zip(weights) {
            *ln = ln_sum(&[*ln, (weight * money).ln()]);
        }
    }

    /// Falls no deeper than this much below the money it began with.
    pub(super) fn hold(&mut self, weights: [f64; N], floor: f64) {
        for (ln, weight) in self.ln.iter_mut().zip(weights) {
            *ln = ln.max(floor + weight.ln());
        }
    }

    /// Which of the bettors are down there.
    fn is_at(&self, weights: [f64; N], floor: f64) -> [bool; N] {
        let mut at = [false; N];
        for ((at, ln), weight) in at.iter_mut().zip(self.ln).zip(weights) {
            *at = ln <= floor + weight.ln();
        }
        at
    }

    pub(super) fn win(&mut self, gains: [f64; N]) {
        for (ln, gain) in self.ln.iter_mut().zip(gains) {
            *ln += gain;
        }
    }

    /// Keeps nothing that was won since.
    fn give_back(&mut self, before: &Self) {
        for (ln, before) in self.ln.iter_mut().zip(before.ln) {
            *ln = ln.min(before);
        }
    }

    pub(super) fn ln_e(&self) -> f64 {
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

impl Limits {
    /// Those of each of two that share the chances of error.
    pub(super) fn halved(self) -> Self {
        let Self { harm, safe } = self;
        Self { harm: harm + LN_2, safe: safe + LN_2 }
    }
}

/// What the bets of a gate say, of evidence that can be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Standing {
    pub(super) verdict: Verdict,
    /// How far the proof of harm has come, 0 to 1.
    pub(super) harm: f64,
    /// How far the proof of safety has come, 0 to 1.
    pub(super) safe: f64,
}

impl Standing {
    /// Nobody has bet.
    pub(super) const NOTHING: Self = Self { verdict: Verdict::Undecided, harm: 0.0, safe: 0.0 };
}

/// The bets of a gate.
///
/// Harm takes two proofs: that the candidate is worse at all, at the level of the attempt, and
/// that it is worse by more than the alarm, at [`BEYOND_CHANCE`]. The first alone would send
/// back, sooner or later, whatever is worse by a hair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wealth {
    limits: Limits,
    harm: Bet<[f64; 4]>,
    /// More money of the same bettors, for a fault that comes late.
    late: [Reserve; 4],
    beyond: Bet<[f64; 4]>,
    safe: Bet<[f64; 2]>,
    /// The same before the primary became doubtful: what was won since is on credit.
    sure: Bet<[f64; 2]>,
    measure: Measure,
    /// Harm was proven once; it stays so for the attempt, unless it is forgiven.
    breached: bool,
    /// All the money that was put on harm at once.
    funded: f64,
}

/// The logarithmic gains of both bets on harm.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct HarmGains {
    pub(super) harm: [f64; 4],
    pub(super) beyond: [f64; 4],
}

impl Wealth {
    /// No money on harm yet, all of it on the rest.
    pub(super) fn new(limits: Limits) -> Self {
        let (harm, safe) = (Bet::new(HARM_WEIGHTS, 0.0), Bet::new(SAFE_WEIGHTS, 1.0));
        let (beyond, sure) = (Bet::new(BEYOND_WEIGHTS, 1.0), safe.clone());
        let (late, measure) = (Default::default(), Measure::Steady);
        Self { limits, harm, late, beyond, safe, sure, measure, breached: false, funded: 0.0 }
    }

    /// Puts fresh money on harm; must not depend on what it will be bet on.
    pub(super) fn fund(&mut self, money: f64) {
        if 0.0 < money {
            self.funded += money;
            self.harm.add(HARM_WEIGHTS, money);
        }
    }

    /// Puts fresh money on harm that may be done late; must not depend on it either.
    pub(super) fn keep(&mut self, money: f64) {
        for (reserve, weight) in self.late.iter_mut().zip(HARM_WEIGHTS) {
            reserve.put(weight * money);
        }
    }

    /// Takes the logarithmic gains of an observation.
    pub(super) fn win(&mut self, gains: HarmGains, safe: [f64; 2]) {
        self.harm.win(gains.harm);
        let nothing = self.beyond.is_at(BEYOND_WEIGHTS, BEYOND_FLOOR);
        for ((reserve, gain), nothing) in self.late.iter_mut().zip(gains.harm).zip(nothing) {
            reserve.win(gain);
            if nothing {
                reserve.call_back();
            }
        }
        self.beyond.win(gains.beyond);
        self.beyond.hold(BEYOND_WEIGHTS, BEYOND_FLOOR);
        match self.measure {
            Measure::Steady => {
                self.sure.clone_from(&self.safe);
                self.safe.win(safe);
            }
            Measure::Doubtful => self.safe.win(safe),
            // Nothing is staked: what is better than a dead primary may still be too bad.
            Measure::Down => {}
        }
        if gains.harm.iter().chain(&gains.beyond).any(|gain| 0.0 < *gain) {
            self.breached |= self.limits.harm <= self.harmed()
                && BEYOND_CHANCE.recip().ln() <= self.beyond.ln_e();
        }
    }

    /// Takes a loss on safety alone.
    pub(super) fn lose_safe(&mut self, safe: [f64; 2]) {
        self.safe.win(safe);
    }

    /// Takes what the primary is worth as a measure for what comes next.
    ///
    /// Whether to stake at all is decided by the past alone, and what is given back is at most
    /// what was won, so the proof stays one.
    pub(super) fn judge(&mut self, measure: Measure) {
        if measure == Measure::Down {
            self.safe.give_back(&self.sure);
        }
        self.measure = measure;
    }

    /// Whether anything is staked on safety now.
    pub(super) fn is_staked(&self) -> bool {
        self.measure != Measure::Down
    }

    /// Gives up what was won on harm from what cannot be believed. No more is left than was put in,
    /// so what is proven from here on is proven.
    pub(super) fn forgive(&mut self) {
        self.harm.give_back(&Bet::new(HARM_WEIGHTS, self.funded));
        self.beyond.give_back(&Bet::new(BEYOND_WEIGHTS, 1.0));
        self.late.iter_mut().for_each(Reserve::call_back);
        self.breached = false;
    }

    /// Begins anew, without any money on harm.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.limits);
    }

    /// What the bets say.
    pub(super) fn standing(&self) -> Standing {
        Standing { verdict: self.verdict(), harm: self.harm(), safe: self.safe() }
    }

    /// Whether harm was proven.
    pub(super) fn is_breached(&self) -> bool {
        self.breached
    }

    /// Begins the proof of safety anew; the proof of harm goes on.
    pub(super) fn renew_safe(&mut self) {
        self.safe = Bet::new(SAFE_WEIGHTS, 1.0);
        self.sure.clone_from(&self.safe);
    }

    /// The wealth that counts as proof of safety, as a logarithm.
    fn proven(&self) -> f64 {
        match self.measure {
            Measure::Steady | Measure::Down => self.safe.ln_e(),
            Measure::Doubtful => self.safe.ln_e().min(self.sure.ln_e()),
        }
    }

    /// The wealth that counts as proof of harm, as a logarithm.
    fn harmed(&self) -> f64 {
        let late: f64 = self.late.iter().map(|it| it.lent()).sum();
        ln_sum(&[self.harm.ln_e(), late.ln()])
    }

    /// What the bets say, of evidence that can be trusted.
    pub(super) fn verdict(&self) -> Verdict {
        if self.breached {
            Verdict::Breach
        } else if self.limits.safe <= self.proven() {
            Verdict::Pass
        } else {
            Verdict::Undecided
        }
    }

    /// How far the proof of harm has come, 0 to 1.
    pub(super) fn harm(&self) -> f64 {
        let parts =
            [self.harmed() / self.limits.harm, self.beyond.ln_e() / BEYOND_CHANCE.recip().ln()];
        if self.breached { 1.0 } else { f64::min(parts[0], parts[1]).clamp(0.0, 1.0) }
    }

    /// How far the proof of safety has come, 0 to 1.
    pub(super) fn safe(&self) -> f64 {
        (self.proven() / self.limits.safe).clamp(0.0, 1.0)
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
        [self.harmed(), self.safe.ln_e()]
    }
}

#[cfg(test)]
#[path = "flaws_tests.rs"]
mod flaws_tests;

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

    fn both(gain: f64) -> HarmGains {
        HarmGains { harm: [gain; 4], beyond: [gain; 4] }
    }

    #[test]
    fn harm_takes_both_proofs_and_the_second_comes_back_from_its_floor() {
        let mut wealth = Wealth::new(Limits { harm: 4.0, safe: 3.0 });
        wealth.fund(1.0);
        wealth.win(HarmGains { harm: [9.0; 4], beyond: [-1e3; 4] }, [0.0; 2]);
        assert_eq!(wealth.verdict(), Verdict::Undecided);
        wealth.win(HarmGains { harm: [0.0; 4], beyond: [8.0; 4] }, [0.0; 2]);
        assert_eq!(wealth.verdict(), Verdict::Undecided);
        wealth.win(HarmGains { harm: [0.0; 4], beyond: [0.4; 4] }, [0.0; 2]);
        assert_eq!(wealth.verdict(), Verdict::Breach);
    }

    #[test]
    fn fresh_money_alone_proves_no_harm() {
        let mut wealth = Wealth::new(Limits { harm: 4.0, safe: 3.0 });
        wealth.win(both(9.0), [0.0; 2]);
        wealth.fund(1e3);
        wealth.win(both(0.0), [0.0; 2]);
        assert_eq!(wealth.verdict(), Verdict::Undecided);
    }

    #[test]
    fn a_proof_has_come_as_far_as_its_slower_half() {
        let progress = |harm, beyond, safe| {
            let mut wealth = Wealth::new(Limits { harm: 8.0, safe: 4.0 });
            wealth.fund(1.0);
            wealth.win(HarmGains { harm: [harm; 4], beyond: [beyond; 4] }, [safe; 2]);
            [wealth.harm(), wealth.safe()].map(|it| format!("{it:.3}"))
        };
        assert_eq!(progress(0.0, 0.0, 0.0), ["0.000", "0.000"]);
        assert_eq!(progress(2.0, 2.0, 3.0), ["0.250", "0.750"]);
        assert_eq!(progress(6.0, 0.5 * 10.0_f64.ln(), -1.0), ["0.500", "0.000"]);
        assert_eq!(progress(7.6, 9.0, 9.0), ["0.950", "1.000"]);
    }

    #[test]
    fn a_breach_stays_even_when_the_wealth_is_lost_again() {
        let mut wealth = Wealth::new(Limits { harm: 4.0, safe: 3.0 });
        wealth.fund(1.0);
        wealth.win(both(5.0), [-9.0; 2]);
        wealth.win(both(-50.0), [30.0; 2]);
        assert_eq!(wealth.verdict(), Verdict::Breach);
        assert!(1.0 <= wealth.harm());
    }

    #[test]
    fn what_is_won_against_a_primary_that_turns_out_to_be_down_is_given_back() {
        let mut wealth = Wealth::new(Limits { harm: 4.0, safe: 3.0 });
        wealth.win(both(0.0), [2.5; 2]);
        wealth.win(both(0.0), [0.6; 2]);
        assert_eq!(wealth.verdict(), Verdict::Pass);
        wealth.judge(Measure::Doubtful);
        assert_eq!(wealth.verdict(), Verdict::Undecided, "the last win is on credit");
        wealth.win(both(0.0), [0.6; 2]);
        assert_eq!(wealth.verdict(), Verdict::Undecided);
        let mut cleared = wealth.clone();
        cleared.judge(Measure::Steady);
        assert_eq!(cleared.verdict(), Verdict::Pass, "it was only chance");
        wealth.judge(Measure::Down);
        wealth.win(both(0.0), [9.0; 2]);
        assert!((wealth.ln_e()[1] - 2.5).abs() < 1e-12, "{:?}", wealth.ln_e());
        wealth.lose_safe([-1.0; 2]);
        assert!(
            (wealth.ln_e()[1] - 1.5).abs() < 1e-12,
            "what is lost speaks against it all the same"
        );
    }

    #[test]
    fn the_estimate_moves_from_what_is_expected_to_what_is_seen() {
        let mut wealth = Wealth::new(Limits { harm: 4.0, safe: 3.0 });
        assert_eq!(wealth.samples_needed(0, 0.01), Some(300));
        assert_eq!(wealth.samples_needed(0, 0.0), None);
        wealth.win(both(0.0), [1.0; 2]);
        let slower = wealth.samples_needed(300, 0.01);
        assert!(Some(200) < slower && slower < Some(600), "{slower:?}");
        wealth.win(both(0.0), [-5.0; 2]);
        assert_eq!(wealth.samples_needed(900, 0.01), None);
    }
}
