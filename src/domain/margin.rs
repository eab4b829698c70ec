//! Margins: how much worse a candidate may be, as an operator writes it.

use std::fmt;

use super::{
    Metric, Share,
    gate::{Better, Kind},
};

/// What an operator allows the candidate to lose against the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Margin {
    metric: Metric,
    limit: Limit,
    origin: Origin,
}

/// Where a margin begins to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// At no difference.
    Zero,
    /// Where the primary's noise is proven to reach.
    Noise,
}

/// How much of a side's amounts may be estimated unless an operator says otherwise, in percent. Where
/// estimates were bad they were a quarter of what was billed, so that a side of which a tenth is
/// guessed may come to 1.3 times as much.
const ESTIMATED_PERCENT_MAX: u32 = 10;

/// What follows a margin that counts from the noise on.
const BEYOND_NOISE: &str = "beyond noise";

/// The limit of a margin, by the kind of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `+0.5pp` (or `-0.5pp` of something good): so many hundredths of a percentage point.
    Points {
        /// Basis points, 1 to 10 000.
        basis_points: u32,
    },
    /// `max(+200ms, +10%)`: the 99th percentile may be this much higher; the larger one counts.
    Longer {
        /// Milliseconds.
        ms: u32,
        /// Percent of the primary's own 99th percentile.
        percent: u32,
    },
    /// `>= 95%`: scores must reach this part of the primary's. Of comparisons, the candidate must
    /// win this part, where a tie is half a win: `>= 50%` would be as good as the primary.
    Part {
        /// Percent, 1 to 99; of comparisons 1 to 49.
        percent: u32,
    },
    /// `<= 40%, expected 30%, each <= 0.5`: amounts may be this part of the primary's.
    Ratio {
        /// Percent, 2 to 1000.
        percent: u32,
        /// What is hoped for, in percent: harm is an excess over it. Below `percent`.
        expected: u32,
        /// What no call comes above, in millionths: of a dollar, a token or a character. One that does
        /// makes the gate invalid, because it cannot be bet on.
        each_max: u64,
        /// How much of the amounts of both sides may be estimated, in percent; more makes the gate
        /// invalid.
        estimated_max: u32,
    },
    /// `>= 95% at <= 40%, or >= 90% at <= 20%, each <= 1`: scores must reach a part of the primary's
    /// at a part of its cost, in one of two ways.
    Tiers {
        /// The dearer and better one first.
        tiers: [Tier; 2],
        /// As of amounts, in millionths of a dollar.
        each_max: u64,
        /// As of amounts, in percent.
        estimated_max: u32,
    },
}

/// One of two ways to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    /// The part of the primary's scores that must be reached, in percent, 1 to 99.
    pub quality: u32,
    /// The part of its cost that may be reached, in percent, 2 to 1000.
    pub cost: u32,
}

impl Tier {
    /// Whether all that is ready by it is ready by `other`.
    fn is_within(self, other: Self) -> bool {
        other.quality <= self.quality && self.cost <= other.cost
    }
}

/// Why a text is not a margin of a metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a margin of `{}`: write it like `{}`", metric.as_str(), Margin::default_of(*metric))]
pub struct MarginError {
    /// The gate's metric.
    pub metric: Metric,
    /// What was written.
    pub text: String,
}

impl Margin {
    /// The metric this margin belongs to.
    pub fn metric(self) -> Metric {
        self.metric
    }

    /// How much worse it may be.
    pub fn limit(self) -> Limit {
        self.limit
    }

    /// The field's own default for a metric.
    pub fn default_of(metric: Metric) -> Self {
        let limit = match metric {
            Metric::ErrorRate
            | Metric::TruncatedRate
            | Metric::RefusalRate
            | Metric::SchemaValidRate
            | Metric::JsonValidRate
            | Metric::ToolCallValidRate
            | Metric::EmptyRate
            | Metric::LengthCutRate
            | Metric::RepeatedRate
            | Metric::LanguageSwitchRate => Limit::Points { basis_points: 50 },
            Metric::ToolCallMatchRate | Metric::ExactMatchRate | Metric::LabelMatchRate => {
                Limit::Points { basis_points: 500 }
            }
            Metric::LatencyP99 | Metric::TtftP99 => Limit::Longer { ms: 200, percent: 10 },
            Metric::JudgeScore | Metric::Feedback => Limit::Part { percent: 95 },
            Metric::RougeL => Limit::Part { percent: 50 },
            Metric::HumanWinRate => Limit::Part { percent: 45 },
            Metric::Cost => of_amounts((40, 30), 1_000_000),
            Metric::OutputTokensRatio => of_amounts((130, 97), 32_768_000_000),
            Metric::LengthRatio => of_amounts((130, 97), 131_072_000_000),
            Metric::Readiness => Limit::Tiers {
                tiers: [Tier { quality: 95, cost: 40 }, Tier { quality: 90, cost: 20 }],
                each_max: 1_000_000,
                estimated_max: ESTIMATED_PERCENT_MAX,
            },
        };
        Self { metric, limit, origin: Origin::Zero }
    }

    /// Whether it counts from where the primary's noise is proven to reach, in stages in which
    /// the candidate answers nobody.
    pub fn is_beyond_noise(self) -> bool {
        self.origin == Origin::Noise
    }

    /// The margin as it counts where the candidate serves so much: what it serves is no copy, as
    /// the calls are by which noise is known.
    #[must_use]
    pub fn served(self, serve: Share) -> Self {
        if serve.is_none() { self } else { Self { origin: Origin::Zero, ..self } }
    }

    /// Reads what an operator wrote.
    ///
    /// # Errors
    /// Refuses a text of another form or out of range, and shows the right form.
    pub fn parse(metric: Metric, text: &str) -> Result<Self, MarginError> {
        let packed: String = text.chars().filter(|it| !it.is_whitespace()).collect();
        let plain = packed.strip_suffix(&BEYOND_NOISE.replace(' ', ""));
        let origin = if plain.is_some() { Origin::Noise } else { Origin::Zero };
        let plain = plain.unwrap_or(&packed);
        let limit = match (metric.kind(), origin) {
            (Kind::Rate(better), _) => points(better, plain),
            (Kind::Quantile, _) => longer(plain),
            (Kind::Score | Kind::Opinion | Kind::Likeness, Origin::Zero) => {
                part(plain.strip_suffix("ofprimary").unwrap_or(plain), 99)
            }
            (Kind::Preference, Origin::Zero) => part(plain, 49),
            (Kind::Ratio, Origin::Zero) => ratio(metric, plain),
            (Kind::Tiers, Origin::Zero) => tiers(plain),
            (
                Kind::Score
                | Kind::Opinion
                | Kind::Likeness
                | Kind::Preference
                | Kind::Ratio
                | Kind::Tiers,
                Origin::Noise,
            ) => None,
        };
        let limit = limit.ok_or_else(|| MarginError { metric, text: text.to_owned() })?;
        Ok(Self { metric, limit, origin })
    }

    /// Whether everything this margin allows is allowed by `other` too.
    pub fn is_within(self, other: Self) -> bool {
        if self.is_beyond_noise() && !other.is_beyond_noise() {
            return false;
        }
        match (self.limit, other.limit) {
            (Limit::Points { basis_points: ours }, Limit::Points { basis_points: theirs }) => {
                ours <= theirs
            }
            (Limit::Longer { ms, percent }, Limit::Longer { ms: ms_max, percent: percent_max }) => {
                ms <= ms_max && percent <= percent_max
            }
            (Limit::Part { percent: ours }, Limit::Part { percent: theirs }) => theirs <= ours,
            (
                Limit::Ratio { percent, expected, estimated_max, .. },
                Limit::Ratio {
                    percent: percent_max,
                    expected: expected_max,
                    estimated_max: estimated_most,
                    ..
                },
            ) => {
                percent <= percent_max
                    && expected <= expected_max
                    && estimated_max <= estimated_most
            }
            (
                Limit::Tiers { tiers, estimated_max, .. },
                Limit::Tiers { tiers: other, estimated_max: estimated_most, .. },
            ) => {
                let within = |it: &Tier| other.iter().any(|other| it.is_within(*other));
                tiers.iter().all(within) && estimated_max <= estimated_most
            }
            (
                Limit::Points { .. }
                | Limit::Longer { .. }
                | Limit::Part { .. }
                | Limit::Ratio { .. }
                | Limit::Tiers { .. },
                _,
            ) => false,
        }
    }
}

/// `+0.5pp`, at most two decimals; `-0.5pp` of a rate that should be high.
fn points(better: Better, text: &str) -> Option<Limit> {
    let sign = match better {
        Better::Lower => '+',
        Better::Higher => '-',
    };
    let number = text.strip_prefix(sign)?.strip_suffix("pp")?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if decimals.len() > 2 {
        return None;
    }
    let basis_points = digits(whole)? * 100 + digits(&format!("{decimals:0<2}"))?;
    (1..=10_000).contains(&basis_points).then_some(Limit::Points { basis_points })
}

/// `+200ms`, `+10%` or `max(+200ms,+10%)` in either order.
fn longer(text: &str) -> Option<Limit> {
    let inner = text.strip_prefix("max(").and_then(|it| it.strip_suffix(')'));
    let parts: Vec<&str> = inner.map_or_else(|| vec![text], |it| it.split(',').collect());
    let (mut ms, mut percent) = (None, None);
    for part in parts {
        let number = part.strip_prefix('+')?;
        let (slot, digit) = match number.strip_suffix("ms") {
            Some(rest) => (&mut ms, rest),
            None => (&mut percent, number.strip_suffix('%')?),
        };
        if slot.replace(digits(digit)?).is_some() {
            return None;
        }
    }
    let (ms, percent) = (ms.unwrap_or(0), percent.unwrap_or(0));
    let in_range = ms <= 600_000 && percent <= 1_000 && 0 < ms + percent;
    in_range.then_some(Limit::Longer { ms, percent })
}

/// `>=95%`.
fn part(text: &str, percent_max: u32) -> Option<Limit> {
    let percent = digits(text.strip_prefix(">=")?.strip_suffix('%')?)?;
    (1..=percent_max).contains(&percent).then_some(Limit::Part { percent })
}

/// A limit to amounts that nothing else was said of.
fn of_amounts((percent, expected): (u32, u32), each_max: u64) -> Limit {
    Limit::Ratio { percent, expected, each_max, estimated_max: ESTIMATED_PERCENT_MAX }
}

/// `<=40%`, optionally followed by `,expected30%` (else three quarters of it), by `,each<=0.5` (else
/// the metric's default) and by `,estimated<=10%`.
fn ratio(metric: Metric, text: &str) -> Option<Limit> {
    let mut parts = text.split(',');
    let percent = digits(parts.next()?.strip_prefix("<=")?.strip_suffix('%')?)?;
    let (mut expected, mut each, mut estimated) = (None, None, None);
    for part in parts {
        let repeated = if let Some(rest) = part.strip_prefix("expected") {
            expected.replace(digits(rest.strip_suffix('%')?)?).is_some()
        } else if let Some(rest) = part.strip_prefix("estimated<=") {
            estimated.replace(digits(rest.strip_suffix('%')?)?).is_some()
        } else {
            each.replace(millionths(part.strip_prefix("each<=")?)?).is_some()
        };
        if repeated {
            return None;
        }
    }
    let expected = expected.unwrap_or(percent * 3 / 4);
    let each_max = match (each, Margin::default_of(metric).limit) {
        (Some(each), _) => each,
        (None, Limit::Ratio { each_max, .. }) => each_max,
        (
            None,
            Limit::Points { .. } | Limit::Longer { .. } | Limit::Part { .. } | Limit::Tiers { .. },
        ) => return None,
    };
    let estimated_max = estimated.unwrap_or(ESTIMATED_PERCENT_MAX);
    let in_range = percent <= 1_000 && 1 <= expected && expected < percent && 0 < each_max;
    let in_range = in_range && estimated_max <= 100;
    in_range.then_some(Limit::Ratio { percent, expected, each_max, estimated_max })
}

/// `>=95%at<=40%,or>=90%at<=20%`, optionally followed by `,each<=0.5` (else a dollar) and by
/// `,estimated<=10%`. The second must be worse and cheaper: else one of them says nothing.
fn tiers(text: &str) -> Option<Limit> {
    let (first, rest) = text.split_once(",or")?;
    let (second, rest) = rest.split_once(',').map_or((rest, None), |it| (it.0, Some(it.1)));
    let read = |text: &str| {
        let (quality, cost) = text.split_once("at")?;
        let Limit::Part { percent: quality } = part(quality, 99)? else { return None };
        let cost = digits(cost.strip_prefix("<=")?.strip_suffix('%')?)?;
        (2..=1_000).contains(&cost).then_some(Tier { quality, cost })
    };
    let tiers = [read(first)?, read(second)?];
    let [dear, cheap] = tiers;
    // What follows is written as it is of amounts.
    let terms = rest.map_or_else(|| "<=2%".to_owned(), |it| format!("<=2%,{it}"));
    match ratio(Metric::Cost, &terms)? {
        Limit::Ratio { each_max, estimated_max, .. } if !terms.contains("expected") => {
            let apart = cheap.quality < dear.quality && cheap.cost < dear.cost;
            apart.then_some(Limit::Tiers { tiers, each_max, estimated_max })
        }
        _ => None,
    }
}

/// `0.5`, at most six decimals, in millionths.
fn millionths(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if 6 < decimals.len() {
        return None;
    }
    let part = digits(decimals)? * 10_u32.pow(6 - u32::try_from(decimals.len()).ok()?);
    Some(u64::from(digits(whole)?) * 1_000_000 + u64::from(part))
}

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= 7 && text.bytes().all(|it| it.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            Limit::Points { basis_points } => {
                let sign = if self.metric.kind() == Kind::Rate(Better::Higher) { '-' } else { '+' };
                let text = format!("{}.{:02}", basis_points / 100, basis_points % 100);
                write!(f, "{sign}{}pp", text.trim_end_matches('0').trim_end_matches('.'))
            }
            Limit::Longer { ms, percent: 0 } => write!(f, "+{ms}ms"),
            Limit::Longer { ms: 0, percent } => write!(f, "+{percent}%"),
            Limit::Longer { ms, percent } => write!(f, "max(+{ms}ms, +{percent}%)"),
            Limit::Part { percent } => write!(f, ">= {percent}%"),
            Limit::Ratio { percent, expected, each_max, estimated_max } => {
                write!(f, "<= {percent}%, expected {expected}%")?;
                terms(f, each_max, estimated_max)
            }
            Limit::Tiers { tiers: [dear, cheap], each_max, estimated_max } => {
                write!(f, ">= {}% at <= {}%", dear.quality, dear.cost)?;
                write!(f, ", or >= {}% at <= {}%", cheap.quality, cheap.cost)?;
                terms(f, each_max, estimated_max)
            }
        }?;
        match self.origin {
            Origin::Zero => Ok(()),
            Origin::Noise => write!(f, " {BEYOND_NOISE}"),
        }
    }
}

/// The terms under which amounts are taken.
fn terms(f: &mut fmt::Formatter<'_>, each_max: u64, estimated_max: u32) -> fmt::Result {
    let text = format!("{}.{:06}", each_max / 1_000_000, each_max % 1_000_000);
    write!(f, ", each <= {}", text.trim_end_matches('0').trim_end_matches('.'))?;
    if estimated_max == ESTIMATED_PERCENT_MAX {
        return Ok(());
    }
    write!(f, ", estimated <= {estimated_max}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_reads_back_as_it_is_written() {
        let texts = [
            (Metric::ErrorRate, "+0.5pp"),
            (Metric::ErrorRate, "+10pp"),
            (Metric::RefusalRate, "+0.05pp"),
            (Metric::SchemaValidRate, "-0.5pp"),
            (Metric::LatencyP99, "+200ms"),
            (Metric::TtftP99, "+10%"),
            (Metric::LatencyP99, "max(+200ms, +10%)"),
            (Metric::LatencyP99, "max(+200ms, +10%) beyond noise"),
            (Metric::SchemaValidRate, "-0.5pp beyond noise"),
            (Metric::JudgeScore, ">= 95%"),
            (Metric::Feedback, ">= 98%"),
            (Metric::HumanWinRate, ">= 48%"),
            (Metric::Cost, "<= 40%, expected 20%, each <= 0.05"),
            (Metric::Cost, "<= 40%, expected 20%, each <= 0.000001"),
            (Metric::Cost, "<= 40%, expected 20%, each <= 1, estimated <= 100%"),
            (Metric::Cost, "<= 40%, expected 20%, each <= 1, estimated <= 0%"),
            (Metric::ToolCallMatchRate, "-5pp"),
            (Metric::ExactMatchRate, "-1pp beyond noise"),
            (Metric::RougeL, ">= 60%"),
            (Metric::Readiness, ">= 97% at <= 40%, or >= 90% at <= 20%, each <= 0.05"),
            (Metric::Readiness, ">= 95% at <= 40%, or >= 9% at <= 2%, each <= 1, estimated <= 0%"),
        ];
        for (metric, text) in texts {
            assert_eq!(Margin::parse(metric, text).unwrap().to_string(), text);
        }
        let short = [(Metric::JudgeScore, ">= 95% of primary"), (Metric::Cost, "<= 40%")];
        for (metric, text) in short {
            assert_eq!(Margin::parse(metric, text), Ok(Margin::default_of(metric)));
        }
        for metric in Metric::ALL {
            let default = Margin::default_of(metric);
            assert_eq!(Margin::parse(metric, &default.to_string()), Ok(default));
            assert_eq!(Metric::from_name(metric.as_str()), Some(metric));
        }
    }

    #[test]
    fn a_wrong_margin_is_answered_with_the_right_form() {
        for (metric, text) in [
            (Metric::ErrorRate, "0.5"),
            (Metric::ErrorRate, "+0pp"),
            (Metric::ErrorRate, "beyond noise"),
            (Metric::JudgeScore, ">= 95% beyond noise"),
            (Metric::Feedback, ">= 95% beyond noise"),
            (Metric::Cost, "<= 40% beyond noise"),
            (Metric::ErrorRate, "+0.005pp"),
            (Metric::ErrorRate, "+200pp"),
            (Metric::SchemaValidRate, "+0.5pp"),
            (Metric::LatencyP99, "+0ms"),
            (Metric::LatencyP99, "max(+1ms,+2ms)"),
            (Metric::LatencyP99, "-200ms"),
            (Metric::LatencyP99, "++200ms"),
            (Metric::JudgeScore, ">= 100%"),
            (Metric::HumanWinRate, ">= 50%"),
            (Metric::HumanWinRate, ">= 45% of primary"),
            (Metric::JudgeScore, "95%"),
            (Metric::RougeL, ">= 60% beyond noise"),
            (Metric::Cost, ">= 40%"),
            (Metric::Cost, "<= 40%, expected 40%"),
            (Metric::Cost, "<= 1%"),
            (Metric::Cost, "<= 40%, each <= 0.0000001"),
            (Metric::Cost, "<= 40%, each <= 0"),
            (Metric::Cost, "<= 40%, estimated <= 101%"),
            (Metric::Readiness, ">= 95% at <= 40%"),
            (Metric::Readiness, ">= 90% at <= 20%, or >= 95% at <= 40%"),
            (Metric::Readiness, ">= 95% at <= 40%, or >= 90% at <= 40%"),
            (Metric::Readiness, ">= 95% at <= 40%, or >= 90% at <= 20%, expected 10%"),
            (Metric::Readiness, ">= 95% at <= 40%, or >= 90% at <= 20% beyond noise"),
        ] {
            let error = Margin::parse(metric, text).unwrap_err().to_string();
            assert!(error.contains("write it like"), "{text}: {error}");
        }
    }

    #[test]
    fn a_smaller_margin_is_within_a_larger_one_and_not_the_other_way() {
        for (metric, tight, loose) in [
            (Metric::ErrorRate, "+0.5pp", "+1pp"),
            (Metric::LatencyP99, "+200ms", "max(+200ms, +10%)"),
            (Metric::JudgeScore, ">= 95%", ">= 90%"),
            (Metric::Cost, "<= 40%, expected 30%", "<= 50%, expected 30%"),
            (Metric::ErrorRate, "+0.5pp", "+0.5pp beyond noise"),
            (
                Metric::Readiness,
                ">= 96% at <= 40%, or >= 90% at <= 20%",
                ">= 95% at <= 40%, or >= 90% at <= 20%",
            ),
            (Metric::TtftP99, "+10% beyond noise", "+20% beyond noise"),
        ] {
            let [tight, loose] = [tight, loose].map(|it| Margin::parse(metric, it).unwrap());
            assert!(tight.is_within(loose) && tight.is_within(tight), "{tight}");
            assert!(!loose.is_within(tight), "{loose}");
        }
    }
}
