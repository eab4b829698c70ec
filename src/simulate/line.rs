//! One line of a stream: what can be said, read in one pass and without a copy.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::analysis::Sample;
use crate::domain::Outcome;

/// A line as it stands. What a kind of line does not have is left at its default; fields that
/// nobody here knows are passed over.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    /// What is said.
    pub(super) e: Kind,
    /// Seconds of virtual time.
    #[serde(default)]
    pub(super) t: Option<f64>,
    /// The stage that begins, from 0.
    #[serde(default)]
    pub(super) index: Option<usize>,
    /// The chance that a request shows the primary's outcome.
    #[serde(default)]
    pub(super) rho_p: Option<f64>,
    /// The chance that a request shows the candidate's outcome.
    #[serde(default)]
    pub(super) rho_c: Option<f64>,
    /// The primary's side.
    #[serde(default)]
    pub(super) p: Part,
    /// The candidate's side.
    #[serde(default)]
    pub(super) c: Part,
    /// The watched slice of a request or of its scores; empty for none.
    #[serde(default)]
    pub(super) slice: String,
}

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A stage begins.
    Stage,
    /// One request.
    Obs,
    /// A pair was judged.
    Score,
    /// A second is over: answer.
    Tick,
}

/// What one side of a line says: a call, a score, or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Part {
    #[default]
    None,
    Call(Call),
    Score(f64),
}

/// A call as the stream tells it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Call {
    ok: bool,
    ms: f64,
    #[serde(default)]
    usd: Option<f64>,
    /// How it ended, where that is known better than by `ok`.
    #[serde(default)]
    class: Option<Class>,
}

#[derive(Clone, Copy, Debug)]
struct Class(Outcome);

impl Call {
    /// What the bets are told of it.
    pub(super) fn sample(self) -> Sample {
        let outcome = match self.class {
            Some(Class(outcome)) => outcome,
            None if self.ok => Outcome::Ok,
            None => Outcome::ProviderError,
        };
        Sample {
            outcome,
            total_ms: self.ms,
            first_byte_ms: None,
            output_tokens: None,
            usd: self.usd,
            checks: crate::domain::Checks::default(),
            answer_chars: None,
            rouge_l: None,
            input_tokens: None,
            estimated: false,
        }
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl Visitor<'_> for Words {
            type Value = Class;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let names = Outcome::ALL.map(Outcome::as_str).join(", ");
                write!(f, "one of {names}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Class, E> {
                let outcome = Outcome::from_name(text).map(Class);
                outcome.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Words)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Part;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a call, a score or null")
            }

            fn visit_unit<E: Error>(self) -> Result<Part, E> {
                Ok(Part::None)
            }

            fn visit_f64<E: Error>(self, score: f64) -> Result<Part, E> {
                Ok(Part::Score(score))
            }

            fn visit_u64<E: Error>(self, score: u64) -> Result<Part, E> {
                let score = u32::try_from(score).map_err(|_| E::custom("a score is 0 to 1"))?;
                Ok(Part::Score(f64::from(score)))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Part, M::Error> {
                Call::deserialize(MapAccessDeserializer::new(map)).map(Part::Call)
            }
        }
        deserializer.deserialize_any(Parts)
    }
}
