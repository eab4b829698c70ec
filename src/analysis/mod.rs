//! Turns what both sides did into evidence, by betting against two claims for each gate.
//!
//! The *harm* bets are fair or worse while the candidate is no worse; the *safe* bets are
//! fair or worse while it is worse by the margin or more. Wealth won against such odds is
//! proof: the chance that it ever reaches `1/α` is at most `α`, however often anyone looks
//! (Ville 1939; Shafer 2021). So nothing here has to be corrected for peeking.
//!
//! One [`Ledger`] holds the bets of one attempt. It takes pairs only: one pair is one
//! observation, whatever the routing. Work for an observation and memory are constant.

mod bet;
mod errors;
mod gate;
mod histogram;
mod interval;
mod latency;
mod ledger;
mod money;
mod odds;
mod score;
mod tripwire;
mod weather;

pub use ledger::Ledger;
pub use tripwire::Tripwire;

use crate::domain::{Call, Outcome, Pair};

/// What one call says about its provider.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// It answered, within so many milliseconds.
    Answered {
        /// Time to the last byte.
        ms: f64,
    },
    /// It failed. Says nothing about latency: failing fast is not being fast.
    Failed,
    /// It failed by giving no answer before its deadline: slower than any limit.
    TimedOut {
        /// The deadline in milliseconds, at which its latency is counted.
        ms: f64,
    },
}

impl Sample {
    /// What a call says; none for an outcome that says nothing about the provider.
    pub fn of(call: &Call) -> Option<Self> {
        let ms = f64::from(call.total_ms);
        match call.outcome {
            Outcome::Ok | Outcome::Refused => Some(Self::Answered { ms }),
            Outcome::ProviderError | Outcome::Truncated => Some(Self::Failed),
            Outcome::Timeout => Some(Self::TimedOut { ms }),
            Outcome::Throttled | Outcome::Incompatible | Outcome::Abandoned => None,
        }
    }

    fn failed(self) -> bool {
        match self {
            Self::Answered { .. } => false,
            Self::Failed | Self::TimedOut { .. } => true,
        }
    }

    /// Its latency in milliseconds, censored at the deadline; none when it tells nothing.
    fn latency_ms(self) -> Option<f64> {
        match self {
            Self::Answered { ms } | Self::TimedOut { ms } => ms.is_finite().then_some(ms),
            Self::Failed => None,
        }
    }

    /// Whether it took longer than so many milliseconds; a time-out always did.
    fn exceeds(self, ms_max: f64) -> bool {
        match self {
            Self::Answered { ms } => ms_max < ms,
            Self::Failed => false,
            Self::TimedOut { .. } => true,
        }
    }
}

/// What one request says: a pair when both sides are known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The primary's call, if it was seen.
    pub primary: Option<Sample>,
    /// The candidate's call, if it was seen.
    pub candidate: Option<Sample>,
}

impl Observation {
    /// What a pair says; none unless it counts on both sides.
    pub fn of(pair: &Pair) -> Option<Self> {
        let (primary, candidate) = (Sample::of(&pair.primary)?, Sample::of(&pair.candidate)?);
        Some(Self { primary: Some(primary), candidate: Some(candidate) })
    }
}

/// The primary's quantile and the share of calls beyond it that latency gates compare.
const QUANTILE: f64 = 0.99;

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

    use super::{Call, Outcome, Sample};

    #[test]
    fn a_refusal_is_an_answer_and_throttling_says_nothing() {
        let said = |outcome| {
            Sample::of(&Call {
                provider: "gpt".parse().unwrap(),
                model: None,
                status: 200,
                outcome,
                first_byte_ms: None,
                total_ms: 250,
                usage: None,
                finish_reason: None,
            })
        };
        assert_eq!(said(Outcome::Refused), Some(Sample::Answered { ms: 250.0 }));
        assert_eq!(said(Outcome::Timeout), Some(Sample::TimedOut { ms: 250.0 }));
        for outcome in Outcome::ALL {
            assert_eq!(said(outcome).is_some(), outcome.counts());
            assert_eq!(said(outcome).is_some_and(Sample::failed), outcome.failed());
        }
    }

    /// Seeded randomness: splitmix64 (Steele, Lea & Flood 2014).
    pub(super) struct Random(pub(super) u64);

    impl Random {
        /// Uniform in [0, 1).
        pub(super) fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            super::float((bits ^ (bits >> 31)) >> 11) / super::float(1 << 53)
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
            if self.happens(failing) { Sample::Failed } else { Sample::Answered { ms } }
        }
    }

    /// The test vectors of the statistics, where they are at hand.
    pub(super) fn vectors() -> Option<Value> {
        let data = env::var_os("CROSSFADE_DATA").unwrap_or_else(|| "../shared/data".into());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(data).join("stats/vectors.json");
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
        Some(if value[0] == true { Sample::Answered { ms } } else { Sample::Failed })
    }
}
