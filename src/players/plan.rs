//! How a player behaves: how slow it is, how often it fails, and in which way.

use std::time::Duration;

use super::dice::Dice;
use crate::domain::Share;

/// No player keeps anybody waiting longer than this on purpose, except by hanging.
const DELAY_MAX: Duration = Duration::from_mins(10);
/// Of a delay known only as a whole, the part that passes before the first byte, in percent.
const FIRST_BYTE_PERCENT: u32 = 30;

/// How a provider behaves.
#[derive(Clone, Debug)]
pub struct ProviderPlan {
    /// It answers as this recorded model, whatever model is asked for.
    pub model: String,
    /// How long it takes.
    pub latency: Latency,
    /// The share of prompts it fails with HTTP 500. Which ones depends on the seed, the
    /// model and the prompt alone, so a prompt that failed fails again.
    pub errors: Share,
    /// What is wrong with it besides.
    pub fault: Fault,
    /// Chooses delays and errors.
    pub seed: u64,
}

impl ProviderPlan {
    /// A provider that answers as this model, at once and without fail.
    pub fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            latency: Latency::None,
            errors: Share::NONE,
            fault: Fault::None,
            seed: 0,
        }
    }
}

/// How long an answer takes. Where only the whole time is known, the first byte comes
/// after 30% of it. The same prompt always takes the same time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// As long as the machine needs.
    None,
    /// Always the same.
    Fixed {
        /// Milliseconds to the first byte of a stream.
        first_byte_ms: u32,
        /// Milliseconds to the last byte.
        total_ms: u32,
    },
    /// Log-normal, as the latencies of providers nearly are.
    Spread {
        /// Half of all answers take at most so many milliseconds.
        median_ms: u32,
        /// Standard deviation of the logarithm: 0.5 puts p99 at 3.2 times the median.
        sigma: f64,
    },
    /// As recorded with the row, or the model's median where the row does not tell.
    Recorded {
        /// So many times as long: 3 makes the provider three times slower.
        times: f64,
        /// The whole rehearsal runs so many times faster: every delay is divided by it.
        speed: f64,
    },
}

/// What is wrong with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It takes the request and never answers.
    Hang,
    /// It closes the connection instead of answering.
    Dead,
    /// It answers everything with this HTTP status (400 to 599) and an error body.
    Errors(u16),
    /// It answers every request of so many with HTTP status 500, whatever it is asked.
    Every(u64),
    /// It breaks the connection half way through the answer.
    CutBody,
    /// It falls silent half way through the answer.
    StallBody,
    /// Its answer, or the middle event of its stream, is not JSON.
    BadJson,
}

/// When an answer begins and ends, from the arrival of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delays {
    pub(super) first_byte: Duration,
    pub(super) total: Duration,
}

impl Latency {
    /// The delays of one answer, by its dice and the seconds recorded for it.
    pub(super) fn delays(self, mut dice: Dice, recorded_s: Option<f64>) -> Delays {
        let total_s = match self {
            Self::None => 0.0,
            Self::Fixed { first_byte_ms, total_ms } => {
                let total = millis(total_ms.max(first_byte_ms));
                return Delays { first_byte: millis(first_byte_ms), total };
            }
            Self::Spread { median_ms, sigma } => {
                f64::from(median_ms) / 1e3 * (sigma * dice.normal()).exp()
            }
            Self::Recorded { times, speed } => recorded_s.unwrap_or(0.0) * times / speed,
        };
        let total = Duration::try_from_secs_f64(total_s).unwrap_or(DELAY_MAX).min(DELAY_MAX);
        Delays { first_byte: total * FIRST_BYTE_PERCENT / 100, total }
    }
}

fn millis(number: u32) -> Duration {
    Duration::from_millis(number.into()).min(DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_delays_have_the_median_asked_for_and_repeat() {
        let latency = Latency::Spread { median_ms: 400, sigma: 0.5 };
        let total = |n: u32| latency.delays(Dice::new(1, &n.to_string()), None).total;
        let below = (0..2_000).filter(|n| total(*n) < Duration::from_millis(400)).count();
        assert!((900..1_100).contains(&below), "{below} of 2000 below the median");
        assert_eq!(total(5), total(5));
    }

    #[test]
    fn recorded_delays_are_stretched_and_sped_up() {
        let latency = Latency::Recorded { times: 3.0, speed: 10.0 };
        let delays = latency.delays(Dice::new(1, ""), Some(2.0));
        assert_eq!(delays.total, Duration::from_millis(600));
        assert_eq!(delays.first_byte, Duration::from_millis(180));
        let stopped = Latency::Recorded { times: 1.0, speed: 0.0 };
        assert_eq!(stopped.delays(Dice::new(1, ""), Some(2.0)).total, DELAY_MAX);
    }
}
