//! Turns what both sides did into evidence, by betting against two claims for each gate.
//!
//! The *harm* bets are fair or worse while the candidate is no worse; the *safe* bets are
//! fair or worse while it is worse by the margin or more. Wealth won against such odds is
//! proof: the chance that it ever reaches `1/α` is at most `α`, however often anyone looks
//! (Ville 1939; Shafer 2021). So nothing here has to be corrected for peeking.
//!
//! One [`Ledger`] holds the bets of one attempt, an instrument for each metric, and again for each
//! watched slice: a rate, a quantile, a score, an opinion, a likeness, a preference, a ratio or tiers of
//! two of them. A pair is one observation whatever the routing. A request of which one side was seen is one where a lot drew the side, once for each key that sticks to it.
//! Everything is moved by observations and their time alone: the same ones give the same
//! evidence, live, after a restart and in a backtest. Work for an observation and memory are constant.

mod answers;
mod bet;
mod census;
mod chances;
mod climate;
mod encode;
mod fixed;
mod footing;
mod forecast;
mod gate;
mod histogram;
mod instrument;
mod interval;
mod kappa;
mod ledger;
mod lots;
mod money;
mod news;
mod noise;
mod odds;
mod opinion;
mod pace;
mod position;
mod preference;
mod quantile;
mod rate;
mod ratio;
mod reserve;
mod score;
mod shown;
mod tally;
mod tiers;
mod tripwire;
mod under_way;
mod weather;

pub use answers::Answers;
pub use census::{
    Census, Day, Hindrance, PromptSize, Proposal, Surveyed, UsageCount, UsageDay, UsageKind,
    add_day, decode_day, encode_day,
};
pub use chances::Chances;
pub use climate::Climate;
pub use fixed::{paired_difference, resampled};
pub use forecast::foresee;
pub use kappa::kappa;
pub use ledger::Ledger;
pub use news::{News, Said};
pub use opinion::Scored;
pub use pace::Pace;
pub use preference::Compared;
pub use score::Marks;
pub use tripwire::Tripwire;
pub use under_way::{Ticket, UnderWay};

use crate::domain::{Call, Checks, Lot, Outcome, Pair, Side};

/// What one call says about its provider.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// How it ended.
    pub outcome: Outcome,
    /// Milliseconds to the last byte, or to the failure.
    pub total_ms: f64,
    /// Milliseconds to the first byte of the body; none when there was none.
    pub first_byte_ms: Option<f64>,
    /// Tokens of the answer, where the provider told.
    pub output_tokens: Option<u64>,
    /// What it cost in US dollars, where that is known.
    pub usd: Option<f64>,
    /// What was asked of the answer by rule, and what of that it kept to.
    pub checks: Checks,
    /// Characters of the answer, where it is here as a whole.
    pub answer_chars: Option<u32>,
    /// How much it is like the primary's, 0 to 1, where somebody looked.
    pub rouge_l: Option<f64>,
    /// Tokens of the request, those of a cache included, where the provider told.
    pub input_tokens: Option<u64>,
    /// Whether tokens and dollars are an estimate.
    pub estimated: bool,
}

/// A time in milliseconds, or the time at which waiting for it ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Timed {
    Seen(f64),
    /// It took longer than this, and longer than any limit.
    Censored(f64),
}

impl Timed {
    fn ms(self) -> f64 {
        match self {
            Self::Seen(ms) | Self::Censored(ms) => ms,
        }
    }

    fn exceeds(self, ms_max: f64) -> bool {
        match self {
            Self::Seen(ms) => ms_max < ms,
            Self::Censored(_) => true,
        }
    }
}

impl Sample {
    /// What a call says.
    pub fn of(call: &Call) -> Self {
        Self {
            outcome: call.outcome,
            total_ms: f64::from(call.total_ms),
            first_byte_ms: call.first_byte_ms.map(f64::from),
            output_tokens: call.usage.map(|it| it.output),
            usd: call.cost_nano_usd.map(|it| float(it) / NANO),
            checks: call.checks,
            answer_chars: call.answer_chars,
            rouge_l: call.rouge_l_bps.map(|it| f64::from(it) / 10_000.0),
            input_tokens: call
                .usage
                .filter(|_| !call.estimated)
                .map(|it| it.input.saturating_add(it.cache_read).saturating_add(it.cache_write)),
            estimated: call.estimated,
        }
    }

    /// Whole milliseconds to the end of the call.
    pub fn lasted_ms(&self) -> u64 {
        whole(self.total_ms)
    }

    /// The time to the last byte; none where it tells nothing: failing fast is not being fast.
    fn latency(&self) -> Option<Timed> {
        self.timed(Some(self.total_ms))
    }

    /// The time to the first byte of the body.
    fn first_byte(&self) -> Option<Timed> {
        self.timed(self.first_byte_ms)
    }

    fn timed(&self, ms: Option<f64>) -> Option<Timed> {
        let timed = match self.outcome {
            Outcome::Ok | Outcome::Refused => Timed::Seen(ms?),
            Outcome::Timeout => Timed::Censored(self.total_ms),
            Outcome::ProviderError
            | Outcome::Truncated
            | Outcome::Throttled
            | Outcome::Incompatible
            | Outcome::Abandoned => return None,
        };
        timed.ms().is_finite().then_some(timed)
    }
}

/// What one request says.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The lot that drew its sides; none when they were no chance and only a pair counts.
    pub lot: Option<Lot>,
    /// The primary's call, if it was seen.
    pub primary: Option<Sample>,
    /// The candidate's call, if it was seen.
    pub candidate: Option<Sample>,
    /// The watched slice it is in; empty for none.
    pub watched: String,
}

impl Observation {
    /// What a pair says.
    pub fn of(pair: &Pair) -> Self {
        let (primary, candidate) = (Sample::of(&pair.primary), Sample::of(&pair.candidate));
        let watched = pair.watched.clone();
        Self { lot: pair.lot, primary: Some(primary), candidate: Some(candidate), watched }
    }

    /// What a request says of which a lot drew one side alone.
    pub fn solo(lot: Lot, side: Side, call: &Call, watched: &str) -> Self {
        let sample = Some(Sample::of(call));
        let (primary, candidate) = match side {
            Side::Primary => (sample, None),
            Side::Candidate => (None, sample),
        };
        Self { lot: Some(lot), primary, candidate, watched: watched.to_owned() }
    }

    /// What a request says that the primary was asked twice: its second call stands where a
    /// candidate's would.
    pub fn noise(served: &Call, again: &Call, watched: &str) -> Self {
        let (primary, candidate) = (Some(Sample::of(served)), Some(Sample::of(again)));
        Self { lot: None, primary, candidate, watched: watched.to_owned() }
    }

    /// What the longer of its calls took, in ms; 0 if it shows none.
    pub fn lasted_ms(&self) -> u64 {
        let calls = [self.primary, self.candidate].into_iter().flatten();
        calls.map(|it| it.lasted_ms()).max().unwrap_or(0)
    }
}

/// The primary's quantile and the share of calls beyond it that latency gates compare.
const QUANTILE: f64 = 0.99;

/// Billionths in one.
const NANO: f64 = 1e9;

/// A count as a number to reckon with.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "std has no other way, and no count here comes near 2^53"
)]
fn float(count: u64) -> f64 {
    count as f64
}

/// The whole part of a number; 0 below zero and for NaN, the largest count when too large.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "std has no other way, and saturating is what is wanted"
)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use serde_json::Value;

    use super::{Call, Checks, Outcome, Sample};
    use crate::domain::{Check, Splitmix, Usage};

    #[test]
    fn a_sample_has_the_times_the_tokens_and_the_dollars_of_its_call() {
        let call = Call {
            provider: "gpt".parse().unwrap(),
            model: None,
            status: 200,
            outcome: Outcome::Ok,
            first_byte_ms: Some(120),
            total_ms: 900,
            usage: Some(Usage { input: 7, cache_read: 2, cache_write: 1, output: 40 }),
            finish_reason: None,
            cost_nano_usd: Some(250_000_000),
            checks: Checks::default().with(Check::Json, Some(true)),
            answer_chars: Some(160),
            rouge_l_bps: Some(2_500),
            estimated: false,
        };
        let expected = Sample {
            outcome: Outcome::Ok,
            total_ms: 900.0,
            first_byte_ms: Some(120.0),
            output_tokens: Some(40),
            usd: Some(0.25),
            checks: Checks::default().with(Check::Json, Some(true)),
            answer_chars: Some(160),
            rouge_l: Some(0.25),
            input_tokens: Some(10),
            estimated: false,
        };
        assert_eq!(Sample::of(&call), expected);
        let estimated = Sample { input_tokens: None, estimated: true, ..expected };
        assert_eq!(Sample::of(&Call { estimated: true, ..call }), estimated);
    }

    /// A call that ended so after so many milliseconds.
    pub(super) fn call(outcome: Outcome, ms: f64) -> Sample {
        Sample {
            outcome,
            total_ms: ms,
            first_byte_ms: Some(ms / 4.0),
            output_tokens: None,
            usd: None,
            checks: Checks::default(),
            answer_chars: None,
            rouge_l: None,
            input_tokens: None,
            estimated: false,
        }
    }

    /// E21
    #[test]
    fn failing_fast_is_not_being_fast_and_a_timeout_is_slower_than_any_limit() {
        assert_eq!(call(Outcome::ProviderError, 1.0).latency(), None);
        assert_eq!(call(Outcome::Ok, f64::NAN).latency(), None);
        let late = call(Outcome::Timeout, 50.0).latency().unwrap();
        assert!(late.exceeds(1e9) && (late.ms() - 50.0).abs() < 1e-9);
        let seen = call(Outcome::Refused, 250.0);
        assert!(seen.latency().unwrap().exceeds(249.0));
        assert!(!seen.first_byte().unwrap().exceeds(100.0));
        assert!(!seen.latency().unwrap().exceeds(250.0), "it took as long and no longer");
        assert_eq!(call(Outcome::Ok, 900.7).lasted_ms(), 900);
    }

    /// Seeded randomness.
    pub(super) struct Random(pub(super) u64);

    impl Random {
        /// Uniform in [0, 1).
        pub(super) fn uniform(&mut self) -> f64 {
            let mut numbers = Splitmix(self.0);
            let bits = numbers.roll();
            self.0 = numbers.0;
            super::float(bits >> 11) / super::float(1 << 53)
        }

        pub(super) fn happens(&mut self, chance: f64) -> bool {
            self.uniform() < chance
        }

        /// Standard normal (Box-Muller).
        pub(super) fn normal(&mut self) -> f64 {
            let (radius, angle) = (1.0 - self.uniform(), self.uniform());
            (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
        }

        /// A call with log-normal latency around a second times `slowness`.
        pub(super) fn call(&mut self, failing: f64, slowness: f64) -> Sample {
            let ms = 1_000.0 * slowness * (0.5 * self.normal()).exp();
            let failed = self.happens(failing);
            call(if failed { Outcome::ProviderError } else { Outcome::Ok }, ms)
        }
    }

    /// The test vectors of the statistics, where they are at hand.
    pub(super) fn vectors() -> Option<Value> {
        let data = env::var_os("CROSSFADE_DATA").unwrap_or_else(|| "../shared/data".into());
        let path = Path::new(&data).join("stats/vectors.json");
        match fs::read_to_string(&path) {
            Ok(text) => Some(serde_json::from_str(&text).unwrap()),
            Err(error) => {
                println!("skipped: {} cannot be read: {error}", path.display());
                None
            }
        }
    }

    pub(super) fn list(value: &Value) -> &[Value] {
        value.as_array().unwrap()
    }

    pub(super) fn number(value: &Value) -> f64 {
        value.as_f64().unwrap()
    }

    pub(super) fn assert_near(ours: f64, theirs: &Value) {
        let theirs = number(theirs);
        let tolerance = 1e-9 * theirs.abs().max(1.0);
        assert!((ours - theirs).abs() <= tolerance, "{ours} is not {theirs}");
    }

    /// One call of the vectors: null, or whether it was well and its milliseconds.
    pub(super) fn sample(value: &Value) -> Option<Sample> {
        let ms = value.get(1)?.as_f64()?;
        Some(call(if value[0] == true { Outcome::Ok } else { Outcome::ProviderError }, ms))
    }
}
