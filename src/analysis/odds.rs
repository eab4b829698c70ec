//! What to stake when counting hits: calls that failed, or calls that were slow.

use super::bet::{HARM_MULTIPLES, SAFE_MULTIPLES};

/// Most of the wealth that is staked at once.
const FRACTION_MAX: f64 = 0.97;
/// Least of it, so that no bettor sits out.
const FRACTION_MIN: f64 = 1e-6;
/// Largest margin the safe bets reckon with; a larger one is proven as if it were this.
const MARGIN_MAX: f64 = 0.99;

/// From which regression on a candidate is sent back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Alarm {
    /// Null: no regression. Each harm bet also pays a tax, chosen so that the wealth does
    /// not grow at regressions below `part` of the margin.
    ///
    /// Wealth to the power of `caution` is a supermartingale there, so the chance that such
    /// a candidate is ever sent back is about `(α/K)^caution` and falls quickly below `part`.
    /// At 0 only the logarithm does not grow, and luck still sends back one in three at six
    /// tenths of the margin; at 1 it is a proof, and as slow as the strict mode.
    From {
        /// Part of the margin, above 0 and below 1.
        part: f64,
        /// 0 to 1.
        caution: f64,
    },
    /// Null: a regression of the margin or less. The strict mode: slow, but proof beyond it.
    AtMargin,
}

/// The game that is bet on. Rates are of hits a call, 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Odds {
    /// The primary's rate.
    pub(super) base: f64,
    /// How much one margin adds to it.
    pub(super) margin: f64,
    /// How much of a difference the null of harm allows.
    pub(super) allowed: f64,
    /// Primary calls seen for each candidate call seen: 1 for pairs.
    pub(super) weight: f64,
    /// How much more the difference varies than independent calls would: 1 in calm weather.
    pub(super) inflation: f64,
}

/// One bettor's move against "no harm".
#[derive(Clone, Copy, Debug)]
pub(super) struct Stake {
    /// Part of the wealth at stake.
    pub(super) fraction: f64,
    /// Logarithmic wealth thrown away at each candidate call.
    pub(super) tax: f64,
}

/// All bettors' moves against "no harm", made before the batch they are for.
#[derive(Clone, Copy, Debug)]
pub(super) struct HarmPlan {
    pub(super) stakes: [Stake; 4],
    odds: Odds,
}

/// The moves against "not safe", made before the batch they are for.
#[derive(Clone, Copy, Debug)]
pub(super) struct SafePlan {
    fraction: f64,
    margin: f64,
    weight: f64,
}

/// Hits in a batch, by who had them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hits {
    /// Calls of the candidate, hit or not.
    pub(super) calls: u32,
    /// The candidate alone, whether or not the primary was seen.
    pub(super) candidate_only: u32,
    /// The primary alone, the candidate being well.
    pub(super) primary_only: u32,
    /// The primary, the candidate not seen.
    pub(super) primary_solo: u32,
    /// Both.
    pub(super) both: u32,
}

impl Hits {
    /// Counts a request: whether each side that was seen had a hit.
    pub(super) fn see(&mut self, primary: Option<bool>, candidate: Option<bool>) {
        self.calls += u32::from(candidate.is_some());
        match (primary, candidate) {
            (Some(true), Some(true)) => self.both += 1,
            (Some(false) | None, Some(true)) => self.candidate_only += 1,
            (Some(true), Some(false)) => self.primary_only += 1,
            (Some(true), None) => self.primary_solo += 1,
            (Some(false) | None, Some(false) | None) => {}
        }
    }

    /// Hits of the primary.
    pub(super) fn primary(&self) -> u32 {
        self.primary_only + self.primary_solo + self.both
    }

    /// Candidate calls without a hit on either side.
    fn calm(&self) -> f64 {
        let hits = self.candidate_only + self.primary_only + self.both;
        f64::from(self.calls.saturating_sub(hits))
    }
}

impl HarmPlan {
    /// The best stakes if the regression is 1.5, 5, 20 or 100 margins.
    pub(super) fn new(odds: Odds, alarm: Alarm) -> Self {
        Self { stakes: HARM_MULTIPLES.map(|multiple| stake(odds, alarm, multiple)), odds }
    }

    /// Each bettor's logarithmic gain.
    ///
    /// The payoff of a request is (W·candidate − primary − W·allowed) / (1 + W·allowed),
    /// so its mean is at most 0 under the null and its least value is −1.
    pub(super) fn gains(&self, hits: &Hits) -> [f64; 4] {
        let Odds { weight, allowed, .. } = self.odds;
        let shift = weight * allowed;
        self.stakes.map(|Stake { fraction, tax }| {
            let part = fraction / (1.0 + shift);
            hits.calm() * (-part * shift).ln_1p()
                + f64::from(hits.candidate_only) * (part * (weight - shift)).ln_1p()
                + f64::from(hits.primary_only) * (-fraction).ln_1p()
                + f64::from(hits.primary_solo) * (-part).ln_1p()
                + f64::from(hits.both) * (part * (weight - shift - 1.0)).ln_1p()
                - f64::from(hits.calls) * tax
        })
    }
}

/// The stake that grows fastest if the regression is so many margins, and its tax.
///
/// The growth of the part `a` is −aWs + c·ln(1+aW) + W·p·ln(1−a), with `p` and `c` the
/// rates and `s` what is allowed; its maximum is the smaller root of a quadratic.
fn stake(odds: Odds, alarm: Alarm, multiple: f64) -> Stake {
    let Odds { base, margin, allowed, weight, inflation } = odds;
    let hit = (base + multiple * margin).min(1.0);
    let square = weight * allowed;
    let linear = allowed * (weight - 1.0) + hit + base * weight;
    let constant = hit - base - allowed;
    let root = (linear * linear - 4.0 * square * constant).max(0.0).sqrt();
    let best = 2.0 * constant / (linear + root) * (1.0 + square);
    let fraction = (best.min(FRACTION_MAX) / inflation).max(FRACTION_MIN);
    let weather = (inflation - 1.0) * 0.5 * fraction * fraction * weight * (weight + 1.0) * base;
    let tax = match alarm {
        Alarm::From { part, caution } => {
            let hit = (base + part * margin).min(1.0);
            let won = hit * powered((fraction * weight).ln_1p(), caution);
            let lost = weight * base * powered((-fraction).ln_1p(), caution);
            weather.max(won + lost)
        }
        Alarm::AtMargin => weather,
    };
    Stake { fraction, tax }
}

/// (e^(caution·gain) − 1) / caution, which is the gain itself at 0.
fn powered(gain: f64, caution: f64) -> f64 {
    if 0.0 < caution { (caution * gain).exp_m1() / caution } else { gain }
}

impl SafePlan {
    /// The best stake against "worse by the margin" if there is no difference.
    pub(super) fn errors(base: f64, margin: f64, weight: f64) -> Self {
        let margin = margin.min(MARGIN_MAX);
        Self { fraction: kelly_safe(base, margin, weight), margin, weight }
    }

    /// The best stake against "as often above the limit as the primary above its quantile",
    /// if the candidate is above it at this rate only.
    pub(super) fn latency(base: f64, beyond: f64, weight: f64) -> Self {
        let best = (base - beyond) / (base + beyond / weight);
        Self { fraction: best.clamp(0.001, FRACTION_MAX), margin: 0.0, weight }
    }

    /// The logarithmic gains. The payoff of a request is
    /// (margin·seen − candidate + primary/W) / (1 − margin).
    pub(super) fn gains(&self, hits: &Hits) -> [f64; 2] {
        SAFE_MULTIPLES.map(|multiple| self.gain(hits.calm(), hits, multiple))
    }

    fn gain(&self, calm: f64, hits: &Hits, multiple: f64) -> f64 {
        let Self { fraction, margin, weight } = *self;
        let part = fraction * multiple / (1.0 - margin);
        let primary = weight.recip();
        calm * (part * margin).ln_1p()
            + f64::from(hits.candidate_only) * (-fraction * multiple).ln_1p()
            + f64::from(hits.primary_only) * (part * (margin + primary)).ln_1p()
            + f64::from(hits.primary_solo) * (part * primary).ln_1p()
            + f64::from(hits.both) * (part * (margin - 1.0 + primary)).ln_1p()
    }

    /// Logarithmic gain of a pair if the sides have hits at these rates.
    pub(super) fn growth(&self, primary: f64, candidate: f64) -> f64 {
        let one = |hits: Hits| self.gain(0.0, &hits, 1.0);
        self.gain(1.0 - primary - candidate, &Hits::default(), 1.0)
            + primary * one(Hits { primary_only: 1, ..Hits::default() })
            + candidate * one(Hits { candidate_only: 1, ..Hits::default() })
    }
}

/// The part of the wealth whose growth is largest if both sides have hits at rate `base`.
fn kelly_safe(base: f64, margin: f64, weight: f64) -> f64 {
    let ratio = margin / base;
    let square = ratio / weight;
    let linear = (1.0 + weight.recip()) + ratio * (1.0 - weight.recip());
    let root = (linear * linear + 4.0 * square * ratio).sqrt();
    (2.0 * ratio / (linear + root)).min(FRACTION_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::{assert_near, list, number, vectors};

    const REFERENCE: Alarm = Alarm::From { part: 0.7, caution: 0.0 };

    #[test]
    fn stakes_are_those_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        for case in [list(&vectors["harm_plan"]), list(&vectors["harm_plan_weather"])].concat() {
            let odds = Odds {
                base: number(&case["p0"]),
                margin: number(&case["one_margin"]),
                allowed: 0.0,
                weight: number(&case["W"]),
                inflation: case.get("phi").map_or(1.0, number),
            };
            let plan = HarmPlan::new(odds, REFERENCE);
            for (stake, expected) in plan.stakes.iter().zip(list(&case["out"])) {
                assert_near(stake.fraction, &expected[0]);
                assert_near(stake.tax, &expected[1]);
            }
        }
        for case in list(&vectors["kelly_safe"]) {
            let [base, margin, weight] = ["p0", "m", "W"].map(|key| number(&case[key]));
            assert_near(kelly_safe(base, margin, weight), &case["out"]);
        }
    }

    /// The mean factor of the wealth when pairs have independent hits at these rates.
    fn mean_factors(plan: &HarmPlan, primary: f64, candidate: f64) -> [f64; 4] {
        let mut means = [0.0; 4];
        for (p, c) in [(false, false), (false, true), (true, false), (true, true)] {
            let chance = |hit: bool, rate: f64| if hit { rate } else { 1.0 - rate };
            let mut hits = Hits::default();
            hits.see(Some(p), Some(c));
            for (mean, gain) in means.iter_mut().zip(plan.gains(&hits)) {
                *mean += chance(p, primary) * chance(c, candidate) * gain.exp();
            }
        }
        means
    }

    #[test]
    fn harm_bets_are_fair_or_worse_under_their_null() {
        for (base, margin) in [(0.0001, 0.005), (0.002, 0.005), (0.2, 0.02)] {
            let odds = Odds { base, margin, allowed: 0.0, weight: 1.0, inflation: 1.0 };
            let plan = HarmPlan::new(odds, Alarm::From { part: 0.7, caution: 0.35 });
            assert!(mean_factors(&plan, base, base).iter().all(|it| *it <= 1.0 + 1e-12));
            let strict = HarmPlan::new(Odds { allowed: margin, ..odds }, Alarm::AtMargin);
            let at_margin = mean_factors(&strict, base, base + margin);
            assert!(at_margin.iter().all(|it| *it <= 1.0 + 1e-12), "{at_margin:?}");
            let beyond = mean_factors(&strict, base, base + 2.0 * margin);
            assert!(beyond.iter().all(|it| 1.0 < *it), "{beyond:?}");
        }
    }

    #[test]
    fn safe_bets_are_fair_or_worse_at_the_margin() {
        for (base, margin) in [(0.0001, 0.005), (0.002, 0.005), (0.2, 0.02), (0.01, 1.0)] {
            let plan = SafePlan::errors(base, margin, 1.0);
            assert!(0.0 < plan.growth(base, base), "{plan:?}");
            let candidate = (base + margin).min(1.0);
            let mut mean = 0.0;
            for (p, c) in [(false, false), (false, true), (true, false), (true, true)] {
                let chance = |hit: bool, rate: f64| if hit { rate } else { 1.0 - rate };
                let mut hits = Hits::default();
                hits.see(Some(p), Some(c));
                mean += chance(p, base) * chance(c, candidate) * plan.gains(&hits)[0].exp();
            }
            assert!(mean <= 1.0 + 1e-12, "{mean} at {base} {margin}");
        }
    }
}
