//! Margins: how much worse a candidate may be, as an operator writes it.

use std::fmt;

use super::Metric;

/// What an operator allows the candidate to lose against the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Margin {
    /// `+0.5pp`: errors may be this many hundredths of a percentage point more frequent.
    Errors {
        /// Basis points, 1 to 10 000.
        basis_points: u32,
    },
    /// `max(+200ms, +10%)`: the 99th percentile may be this much higher; the larger one counts.
    Latency {
        /// Milliseconds.
        ms: u32,
        /// Percent of the primary's own 99th percentile.
        percent: u32,
    },
    /// `>= 95%`: scores must reach this part of the primary's.
    Score {
        /// Percent, 1 to 99.
        percent: u32,
    },
}

/// Why a text is not a margin of a metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a margin of `{}`: write it like `{}`", metric.as_str(), example(*metric))]
pub struct MarginError {
    /// The gate's metric.
    pub metric: Metric,
    /// What was written.
    pub text: String,
}

fn example(metric: Metric) -> &'static str {
    match metric {
        Metric::ErrorRate => "+0.5pp",
        Metric::LatencyP99 => "max(+200ms, +10%)",
        Metric::JudgeScore => ">= 95%",
    }
}

impl Margin {
    /// The metric this margin belongs to.
    pub fn metric(self) -> Metric {
        match self {
            Self::Errors { .. } => Metric::ErrorRate,
            Self::Latency { .. } => Metric::LatencyP99,
            Self::Score { .. } => Metric::JudgeScore,
        }
    }

    /// The field's own default for a metric.
    pub fn default_of(metric: Metric) -> Self {
        match metric {
            Metric::ErrorRate => Self::Errors { basis_points: 50 },
            Metric::LatencyP99 => Self::Latency { ms: 200, percent: 10 },
            Metric::JudgeScore => Self::Score { percent: 95 },
        }
    }

    /// Reads what an operator wrote.
    ///
    /// # Errors
    /// Refuses a text of another form or out of range, and shows the right form.
    pub fn parse(metric: Metric, text: &str) -> Result<Self, MarginError> {
        let packed: String = text.chars().filter(|it| !it.is_whitespace()).collect();
        let parsed = match metric {
            Metric::ErrorRate => errors(&packed),
            Metric::LatencyP99 => latency(&packed),
            Metric::JudgeScore => score(&packed),
        };
        parsed.ok_or_else(|| MarginError { metric, text: text.to_owned() })
    }
}

/// `+0.5pp`, at most two decimals.
fn errors(text: &str) -> Option<Margin> {
    let number = text.strip_prefix('+')?.strip_suffix("pp")?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    if decimals.len() > 2 {
        return None;
    }
    let basis_points = digits(whole)? * 100 + digits(&format!("{decimals:0<2}"))?;
    (1..=10_000).contains(&basis_points).then_some(Margin::Errors { basis_points })
}

/// `+200ms`, `+10%` or `max(+200ms,+10%)` in either order.
fn latency(text: &str) -> Option<Margin> {
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
    in_range.then_some(Margin::Latency { ms, percent })
}

/// `>=95%`, optionally followed by `ofprimary`.
fn score(text: &str) -> Option<Margin> {
    let text = text.strip_suffix("ofprimary").unwrap_or(text);
    let percent = digits(text.strip_prefix(">=")?.strip_suffix('%')?)?;
    (1..=99).contains(&percent).then_some(Margin::Score { percent })
}

fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.len() <= 7 && text.bytes().all(|it| it.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Errors { basis_points } => {
                let text = format!("{}.{:02}", basis_points / 100, basis_points % 100);
                write!(f, "+{}pp", text.trim_end_matches('0').trim_end_matches('.'))
            }
            Self::Latency { ms, percent: 0 } => write!(f, "+{ms}ms"),
            Self::Latency { ms: 0, percent } => write!(f, "+{percent}%"),
            Self::Latency { ms, percent } => write!(f, "max(+{ms}ms, +{percent}%)"),
            Self::Score { percent } => write!(f, ">= {percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_margin_reads_back_as_it_is_written() {
        let texts = [
            (Metric::ErrorRate, "+0.5pp"),
            (Metric::ErrorRate, "+10pp"),
            (Metric::ErrorRate, "+0.05pp"),
            (Metric::LatencyP99, "+200ms"),
            (Metric::LatencyP99, "+10%"),
            (Metric::LatencyP99, "max(+200ms, +10%)"),
            (Metric::JudgeScore, ">= 95%"),
        ];
        for (metric, text) in texts {
            assert_eq!(Margin::parse(metric, text).unwrap().to_string(), text);
        }
        assert_eq!(
            Margin::parse(Metric::JudgeScore, ">= 95% of primary"),
            Ok(Margin::default_of(Metric::JudgeScore))
        );
    }

    #[test]
    fn a_wrong_margin_is_answered_with_the_right_form() {
        for (metric, text) in [
            (Metric::ErrorRate, "0.5"),
            (Metric::ErrorRate, "+0pp"),
            (Metric::ErrorRate, "+0.005pp"),
            (Metric::ErrorRate, "+200pp"),
            (Metric::LatencyP99, "+0ms"),
            (Metric::LatencyP99, "max(+1ms,+2ms)"),
            (Metric::LatencyP99, "-200ms"),
            (Metric::JudgeScore, ">= 100%"),
            (Metric::JudgeScore, "95%"),
        ] {
            let error = Margin::parse(metric, text).unwrap_err().to_string();
            assert!(error.contains("write it like"), "{text}: {error}");
        }
    }
}
