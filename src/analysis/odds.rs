//! What to stake when counting hits: calls that failed, or calls that were slow.

use serde::{Deserialize, Serialize};

use super::{
    bet::{BEYOND_MULTIPLES, HARM_MULTIPLES, HarmGains, SAFE_MULTIPLES},
    whole,
};

/// Most of the wealth that is staked at once.
const FRACTION_MAX: f64 = 0.97;
/// Least of it, so that no bettor sits out.
const FRACTION_MIN: f64 = 1e-6;
/// Largest margin the safe bets reckon with; a larger one is proven as if it were this.
const MARGIN_MAX: f64 = 0.99;

/// From which regression on a candidate is sent back.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Alarm {
    /// Null: no regression, and a second bet against a regression of this part of the margin
    /// or less. Each bettor of the first also pays a tax, chosen so that its wealth does not
    /// grow at regressions below the part.
    From {
        /// Part of the margin, above 0 and below 1.
        part: f64,
    },
    /// Null: a regression of the margin or less. The strict mode: slow, but proof beyond it.
    AtMargin,
}

impl Alarm {
    /// The part of the margin in percent.
    pub(super) fn percent(self) -> u32 {
        match self {
            Self::From { part } => u32::try_from(whole((part * 100.0).round())).unwrap_or(100),
            Self::AtMargin => 100,
        }
    }
}

/// The game that is bet on. Rates are of hits a call, 0 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Odds {
    /// The primary's rate.
    pub(super) base: f64,
    /// How much one margin adds to it.
    pub(super) margin: f64,
    /// Primary calls seen for each candidate call seen: 1 for pairs.
    pub(super) weight: f64,
    /// How much more the difference varies than independent calls would: 1 in calm weather.
    pub(super) inflation: f64,
}

/// One bettor's move against "no harm".
#[derive(Clone, Copy, Debug)]
struct Stake {
    /// Part of the wealth at stake.
    fraction: f64,
    /// Logarithmic wealth thrown away at each candidate call.
    tax: f64,
    /// How much of a difference the null allows.
    allowed: f64,
}

/// What one request showed, where a hit is a call that failed, or one that was slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hit {
    /// The candidate was seen, and nobody had a hit.
    Calm,
    /// The candidate alone, whether or not the primary was seen.
    CandidateOnly,
    /// The primary alone, the candidate being well.
    PrimaryOnly,
    /// The primary, the candidate not seen.
    PrimarySolo,
    /// Both.
    Both,
}

impl Hit {
    const ALL: [Self; 5] =
        [Self::Calm, Self::CandidateOnly, Self::PrimaryOnly, Self::PrimarySolo, Self::Both];

    /// What a request showed by whether each side that was seen had a hit; none when it
    /// changes no bet.
    pub(super) fn of(primary: Option<bool>, candidate: Option<bool>) -> Option<Self> {
        match (primary, candidate) {
            (Some(true), Some(true)) => Some(Self::Both),
            (Some(false) | None, Some(true)) => Some(Self::CandidateOnly),
            (Some(true), Some(false)) => Some(Self::PrimaryOnly),
            (Some(true), None) => Some(Self::PrimarySolo),
            (Some(false) | None, Some(false)) => Some(Self::Calm),
            (Some(false) | None, None) => None,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Calm => 0,
            Self::CandidateOnly => 1,
            Self::PrimaryOnly => 2,
            Self::PrimarySolo => 3,
            Self::Both => 4,
        }
    }
}

/// All bettors' moves against "no harm", made before the requests they are for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct HarmPlan {
    gains: [HarmGains; 5],
}

/// The moves against "not safe", made before the requests they are for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct SafePlan {
    gains: [[f64; 2]; 5],
    weight: f64,
}

impl HarmPlan {
    /// The best stakes if the regression is what each bettor is best against.
    pub(super) fn new(odds: Odds, alarm: Alarm) -> Self {
        match alarm {
            Alarm::From { part } => Self::with(odds, (0.0, Some(part)), part * odds.margin),
            Alarm::AtMargin => Self::strict(odds, odds.margin),
        }
    }

    /// The best stakes if all of what the null allows is beyond the alarm.
    pub(super) fn strict(odds: Odds, allowed: f64) -> Self {
        Self::with(odds, (allowed, None), allowed)
    }

    fn with(odds: Odds, null: (f64, Option<f64>), beyond: f64) -> Self {
        let harm = HARM_MULTIPLES.map(|multiple| stake(odds, null, multiple));
        let more = BEYOND_MULTIPLES.map(|multiple| stake(odds, (beyond, None), multiple));
        Self {
            gains: Hit::ALL.map(|hit| HarmGains {
                harm: harm.map(|stake| stake.gain(odds.weight, hit)),
                beyond: more.map(|stake| stake.gain(odds.weight, hit)),
            }),
        }
    }

    /// The gains of all bettors from a request.
    pub(super) fn gains(&self, hit: Hit) -> HarmGains {
        self.gains[hit.index()]
    }
}

impl Stake {
    /// The logarithmic gain from a request.
    ///
    /// Its payoff is (W·candidate − primary − W·allowed) / (1 + W·allowed), so its mean is at
    /// most 0 under the null and its least value is −1.
    fn gain(self, weight: f64, hit: Hit) -> f64 {
        let Self { fraction, tax, allowed } = self;
        let shift = weight * allowed;
        let part = fraction / (1.0 + shift);
        match hit {
            Hit::Calm => (-part * shift).ln_1p() - tax,
            Hit::CandidateOnly => (part * (weight - shift)).ln_1p() - tax,
            Hit::PrimaryOnly => (-fraction).ln_1p() - tax,
            Hit::PrimarySolo => (-part).ln_1p(),
            Hit::Both => (part * (weight - shift - 1.0)).ln_1p() - tax,
        }
    }
}

/// The stake that grows fastest if the regression is so many margins, and its tax.
///
/// `allowed` is the difference that the null allows; `taxed` the part of the margin up to
/// which the wealth is not to grow. The growth of the part `a` is
/// −aWs + c·ln(1+aW) + W·p·ln(1−a), with `p` and `c` the rates and `s` what is allowed; its
/// maximum is the smaller root of a quadratic.
fn stake(odds: Odds, (allowed, taxed): (f64, Option<f64>), multiple: f64) -> Stake {
    let Odds { base, margin, weight, inflation } = odds;
    let hit = (base + multiple * margin).min(1.0);
    let square = weight * allowed;
    let linear = allowed * (weight - 1.0) + hit + base * weight;
    let constant = hit - base - allowed;
    let root = (linear * linear - 4.0 * square * constant).max(0.0).sqrt();
    let best = 2.0 * constant / (linear + root) * (1.0 + square);
    let fraction = (best.min(FRACTION_MAX) / inflation).max(FRACTION_MIN);
    let weather = (inflation - 1.0) * 0.5 * fraction * fraction * weight * (weight + 1.0) * base;
    let tax = taxed.map_or(0.0, |part| {
        let hit = (base + part * margin).min(1.0);
        hit * (fraction * weight).ln_1p() + weight * base * (-fraction).ln_1p()
    });
    Stake { fraction, tax: weather.max(tax), allowed }
}

impl SafePlan {
    /// The best stake against "worse by the margin" if there is no difference.
    pub(super) fn errors(base: f64, margin: f64, weight: f64) -> Self {
        Self::beyond(base, (0.0, margin), weight)
    }

    /// About the best one if there is this difference; none where that is all that the margin
    /// allows.
    pub(super) fn beyond(base: f64, (difference, margin): (f64, f64), weight: f64) -> Self {
        let margin = margin.min(MARGIN_MAX);
        let room = margin - difference;
        let fraction = if 0.0 < room { kelly_safe(base + difference, room, weight) } else { 0.0 };
        Self::new(fraction, margin, weight)
    }

    /// The best stake against "as often above the limit as the primary above its quantile",
    /// if the candidate is above it at this rate only.
    pub(super) fn latency(base: f64, beyond: f64, weight: f64) -> Self {
        let best = (base - beyond) / (base + beyond / weight);
        Self::new(best.clamp(0.001, FRACTION_MAX), 0.0, weight)
    }

    /// The payoff of a request is (margin·seen − candidate + primary/W) / (1 − margin).
    fn new(fraction: f64, margin: f64, weight: f64) -> Self {
        let primary = weight.recip();
        let gain = |hit: Hit, multiple: f64| {
            let part = fraction * multiple / (1.0 - margin);
            match hit {
                Hit::Calm => (part * margin).ln_1p(),
                Hit::CandidateOnly => (-fraction * multiple).ln_1p(),
                Hit::PrimaryOnly => (part * (margin + primary)).ln_1p(),
                Hit::PrimarySolo => (part * primary).ln_1p(),
                Hit::Both => (part * (margin - 1.0 + primary)).ln_1p(),
            }
        };
        Self { gains: Hit::ALL.map(|hit| SAFE_MULTIPLES.map(|it| gain(hit, it))), weight }
    }

    /// Each bettor's logarithmic gain from a request.
    pub(super) fn gains(&self, hit: Hit) -> [f64; 2] {
        self.gains[hit.index()]
    }

    /// Logarithmic gain of a candidate call, with the primary calls that come with it, if the
    /// sides have hits at these rates.
    pub(super) fn growth(&self, primary: f64, candidate: f64) -> f64 {
        let one = |hit: Hit| self.gains(hit)[0];
        (1.0 - candidate) * one(Hit::Calm)
            + candidate * one(Hit::CandidateOnly)
            + self.weight * primary * one(Hit::PrimarySolo)
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

    #[test]
    fn stakes_are_those_of_the_reference() {
        let Some(vectors) = vectors() else { return };
        for case in [list(&vectors["harm_plan"]), list(&vectors["harm_plan_weather"])].concat() {
            let odds = Odds {
                base: number(&case["p0"]),
                margin: number(&case["one_margin"]),
                weight: number(&case["W"]),
                inflation: case.get("phi").map_or(1.0, number),
            };
            let stakes = HARM_MULTIPLES.map(|multiple| stake(odds, (0.0, Some(0.7)), multiple));
            for (stake, expected) in stakes.iter().zip(list(&case["out"])) {
                assert_near(stake.fraction, &expected[0]);
                assert_near(stake.tax, &expected[1]);
            }
        }
        for case in list(&vectors["kelly_safe"]) {
            let [base, margin, weight] = ["p0", "m", "W"].map(|key| number(&case[key]));
            assert_near(kelly_safe(base, margin, weight), &case["out"]);
        }
    }

    /// The mean growth of a stake at the regression it is best against.
    fn growth(odds: Odds, allowed: f64, hit: f64, fraction: f64) -> f64 {
        let Odds { base, weight, .. } = odds;
        let part = fraction / (1.0 + weight * allowed);
        -part * weight * allowed + hit * (part * weight).ln_1p() + weight * base * (-part).ln_1p()
    }

    #[test]
    fn no_other_stake_grows_faster_where_the_null_allows_a_difference() {
        for (weight, multiple) in [(1.0, 2.0), (1.0, 12.0), (20.0, 2.0), (20.0, 4.0)] {
            let odds = Odds { base: 0.01, margin: 0.005, weight, inflation: 1.0 };
            let allowed = 0.7 * odds.margin;
            let best = stake(odds, (allowed, None), multiple).fraction;
            let hit = odds.base + multiple * odds.margin;
            let [less, most, more] =
                [0.97, 1.0, 1.03].map(|it| growth(odds, allowed, hit, it * best));
            assert!(less < most && more < most, "{weight} {multiple}: {less} {most} {more}");
        }
    }

    #[test]
    fn each_candidate_call_pays_the_tax_and_a_lone_primary_call_does_not() {
        let taxed = Stake { fraction: 0.1, tax: 0.01, allowed: 0.002 };
        let free = Stake { tax: 0.0, ..taxed };
        let paid = |hit| format!("{:.3}", free.gain(2.0, hit) - taxed.gain(2.0, hit));
        assert_eq!(paid(Hit::PrimarySolo), "0.000");
        for hit in [Hit::Calm, Hit::CandidateOnly, Hit::PrimaryOnly, Hit::Both] {
            assert_eq!(paid(hit), "0.010", "{hit:?}");
        }
    }

    #[test]
    fn the_alarm_is_shown_as_the_part_of_the_margin_that_was_asked_for() {
        assert_eq!(Alarm::From { part: 0.7 }.percent(), 70);
        assert_eq!(Alarm::AtMargin.percent(), 100);
    }

    /// How often each side is seen: pairs, a shadow, live stages, and everything moved.
    const SEEN: [(f64, f64); 5] =
        [(1.0, 1.0), (1.0, 0.05), (0.95, 0.07), (0.51, 0.51), (0.02, 1.0)];

    /// The mean factor of the wealth by a request whose sides are seen by lot and have
    /// independent hits at these rates.
    fn mean_factors<const N: usize>(
        (seen_primary, seen_candidate): (f64, f64),
        (primary, candidate): (f64, f64),
        gains: impl Fn(Hit) -> [f64; N],
    ) -> [f64; N] {
        let both = seen_primary + seen_candidate - 1.0;
        let mut means = [0.0; N];
        for (p, c) in [(false, false), (false, true), (true, false), (true, true)] {
            let chance = |hit: bool, rate: f64| if hit { rate } else { 1.0 - rate };
            let hits = chance(p, primary) * chance(c, candidate);
            let views = [
                (both, Some(p), Some(c)),
                (seen_primary - both, Some(p), None),
                (seen_candidate - both, None, Some(c)),
            ];
            for (view, p, c) in views {
                let gains = Hit::of(p, c).map_or([0.0; N], &gains);
                for (mean, gain) in means.iter_mut().zip(gains) {
                    *mean += view * hits * gain.exp();
                }
            }
        }
        means
    }

    #[test]
    fn harm_bets_are_fair_or_worse_under_their_null() {
        for (base, margin) in [(0.0001, 0.005), (0.002, 0.005), (0.2, 0.02)] {
            for seen in SEEN {
                let odds = Odds { base, margin, weight: seen.0 / seen.1, inflation: 1.0 };
                let plan = HarmPlan::new(odds, Alarm::From { part: 0.7 });
                let equal = mean_factors(seen, (base, base), |hit| plan.gains(hit).harm);
                assert!(equal.iter().all(|it| *it <= 1.0 + 1e-12), "{equal:?}");
                let strict = HarmPlan::new(odds, Alarm::AtMargin);
                for (part, beyond) in [(0.7, plan), (1.0, strict)] {
                    let gains = |hit| beyond.gains(hit).beyond;
                    let at = mean_factors(seen, (base, base + part * margin), gains);
                    assert!(at.iter().all(|it| *it <= 1.0 + 1e-12), "{at:?}");
                    let worse = mean_factors(seen, (base, base + 2.0 * margin), gains);
                    assert!(worse.iter().all(|it| 1.0 < *it), "{worse:?}");
                }
                let at = mean_factors(seen, (base, base + margin), |hit| strict.gains(hit).harm);
                assert!(at.iter().all(|it| *it <= 1.0 + 1e-12), "{at:?}");
            }
        }
    }

    #[test]
    fn safe_bets_are_fair_or_worse_at_the_margin() {
        for (base, margin) in [(0.0001, 0.005), (0.002, 0.005), (0.2, 0.02), (0.01, 1.0)] {
            for seen in SEEN {
                let plan = SafePlan::errors(base, margin, seen.0 / seen.1);
                assert!(0.0 < plan.growth(base, base), "{plan:?}");
                let candidate = (base + margin).min(1.0);
                let mean = mean_factors(seen, (base, candidate), |hit| plan.gains(hit));
                assert!(mean.iter().all(|it| *it <= 1.0 + 1e-12), "{mean:?} {base} {margin}");
            }
        }
    }
}
