//! Calls, pairs and scores: what was asked, what came back, what it was worth.

use std::{fmt, str::FromStr};

use super::{Checks, Lot, Name, Order, Timestamp};

/// Which provider of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The provider that serves today.
    Primary,
    /// The provider under test.
    Candidate,
}

impl Side {
    /// The opposite side.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Candidate,
            Self::Candidate => Self::Primary,
        }
    }

    /// `primary` or `candidate`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Candidate => "candidate",
        }
    }
}

/// How one call ended, and so whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// A whole answer.
    Ok,
    /// The provider failed: 5xx, an error inside a 200, a broken connection, a refused credential.
    ProviderError,
    /// The provider asked to come back later (429, 529). Kept apart from errors.
    Throttled,
    /// No answer in time.
    Timeout,
    /// The stream ended without its end mark.
    Truncated,
    /// The model declined to answer. A matter of quality, not an error.
    Refused,
    /// This provider cannot take this request (4xx for the request itself).
    Incompatible,
    /// The caller left, or we stopped: says nothing about the provider.
    Abandoned,
}

impl Outcome {
    /// Every outcome, in a fixed order.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::ProviderError,
        Self::Throttled,
        Self::Timeout,
        Self::Truncated,
        Self::Refused,
        Self::Incompatible,
        Self::Abandoned,
    ];

    /// Whether it counts as an error of the provider.
    pub fn failed(self) -> bool {
        match self {
            Self::ProviderError | Self::Timeout | Self::Truncated => true,
            Self::Ok | Self::Throttled | Self::Refused | Self::Incompatible | Self::Abandoned => {
                false
            }
        }
    }

    /// Whether the call says anything about the provider's error rate.
    pub fn counts(self) -> bool {
        match self {
            Self::Ok | Self::ProviderError | Self::Timeout | Self::Truncated | Self::Refused => {
                true
            }
            Self::Throttled | Self::Incompatible | Self::Abandoned => false,
        }
    }

    /// The name in metrics, records and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ProviderError => "provider_error",
            Self::Throttled => "throttled",
            Self::Timeout => "timeout",
            Self::Truncated => "truncated",
            Self::Refused => "refused",
            Self::Incompatible => "incompatible",
            Self::Abandoned => "abandoned",
        }
    }

    /// The outcome of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == name)
    }
}

/// Tokens as the provider billed them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fresh input tokens (without those read from a cache).
    pub input: u64,
    /// Input tokens read from the provider's cache.
    pub cache_read: u64,
    /// Input tokens written to the provider's cache.
    pub cache_write: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
}

impl Usage {
    /// Input tokens, whatever a cache does with them.
    pub fn whole_input(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write)
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        self.whole_input().saturating_add(self.output)
    }
}

/// One provider's answer to one request, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who was asked.
    pub provider: Name,
    /// The model the provider says it used.
    pub model: Option<String>,
    /// HTTP status; 0 when there was none.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Milliseconds to the first byte of the body.
    pub first_byte_ms: Option<u32>,
    /// Milliseconds to the last byte, or to the failure.
    pub total_ms: u32,
    /// Tokens, when the provider told.
    pub usage: Option<Usage>,
    /// The provider's own word for why it stopped.
    pub finish_reason: Option<String>,
    /// What it cost in billionths of a US dollar; none when tokens or prices are not known.
    pub cost_nano_usd: Option<u64>,
    /// What was asked of its answer by rule, and what of that it kept to.
    pub checks: Checks,
    /// Characters of its answer: the text, and the arguments of tool calls; none where it is not
    /// here as a whole.
    pub answer_chars: Option<u32>,
    /// ROUGE-L of its answer against the primary's, in basis points; none where nobody looked.
    pub rouge_l_bps: Option<u16>,
    /// Whether the tokens, and what they cost, are an estimate of ours: the provider told none.
    pub estimated: bool,
}

/// An answer put together again from its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// The text of the first choice.
    pub text: String,
    /// The tools it wants called, in order.
    pub tool_calls: Vec<ToolCall>,
    /// What it said instead of answering, if it declined.
    pub refusal: Option<String>,
}

/// One tool the model wants called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolCall {
    /// The provider's id; empty where it gives none.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, as the model wrote them (JSON if all is well).
    pub arguments: String,
}

/// Where evidence belongs: one stage of one attempt of one rollout.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The rollout.
    pub rollout: Name,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Position of the stage in the plan, from 0.
    pub stage: u32,
}

/// The id of a pair, which is the id of its request: a UUID of version 7, so it sorts by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairId(pub u128);

impl PairId {
    /// When its request arrived: what a `UUIDv7` begins with.
    pub fn at(self) -> Timestamp {
        Timestamp(u64::try_from(self.0 >> 80).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [b'-'; 36];
        let places = (0..36).filter(|it| ![8, 13, 18, 23].contains(it));
        for (place, shift) in places.zip((0..32).rev()) {
            let digit = usize::try_from(self.0 >> (4 * shift) & 15).unwrap_or(0);
            text[place] = b"0123456789abcdef"[digit];
        }
        f.write_str(str::from_utf8(&text).unwrap_or_default())
    }
}

/// A text that is not the id of a pair.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pair id: expected 32 hexadecimal digits, as `crossfade pairs` prints them")]
pub struct PairIdError(String);

impl FromStr for PairId {
    type Err = PairIdError;

    fn from_str(text: &str) -> Result<Self, PairIdError> {
        let hex: String = text.chars().filter(|it| *it != '-').collect();
        let wrong = || PairIdError(text.to_owned());
        if hex.len() != 32 || hex.starts_with('+') {
            return Err(wrong());
        }
        u128::from_str_radix(&hex, 16).map(Self).map_err(|_| wrong())
    }
}

/// Whether two answers say the same, by rules and not by opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// The same text and the same tool calls.
    Exact,
    /// The same as JSON values: spacing and the order of keys aside.
    SameJson,
    /// Not the same.
    Different,
    /// One side has no answer to compare.
    Unknown,
}

impl Agreement {
    /// The name in records and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::SameJson => "same_json",
            Self::Different => "different",
            Self::Unknown => "unknown",
        }
    }

    /// The agreement of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Exact, Self::SameJson, Self::Different, Self::Unknown]
            .into_iter()
            .find(|it| it.as_str() == name)
    }
}

/// One request answered by both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its id, which callers see as the request id.
    pub id: PairId,
    /// When the request came.
    pub at: Timestamp,
    /// The evidence it belongs to.
    pub window: Window,
    /// Which side was to answer the caller.
    pub served: Side,
    /// Which side did; none where another provider did in its place, and for pairs kept before
    /// this was kept too.
    pub answered: Option<Side>,
    /// The path of the request.
    pub path: String,
    /// The feature it came from; empty when unmarked.
    pub feature: String,
    /// The segment of its user; empty when unmarked.
    pub segment: String,
    /// The watched slice it is in; empty for none.
    pub watched: String,
    /// Whether the judge may see it (compliance).
    pub judgeable: bool,
    /// The primary's call.
    pub primary: Call,
    /// The candidate's call.
    pub candidate: Call,
    /// Whether the answers agree by rule.
    pub agreement: Agreement,
    /// The lot that drew its sides; none when they were no chance.
    pub lot: Option<Lot>,
    /// When it counted; none for pairs kept before this was kept too.
    pub order: Option<Order>,
}

/// What a judge thinks of a pair, each value 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The pair.
    pub pair: PairId,
    /// The evidence its pair belongs to.
    pub window: Window,
    /// The watched slice its pair is in; empty for none.
    pub watched: String,
    /// When it was given.
    pub at: Timestamp,
    /// When it counted; none for scores kept before this was kept too.
    pub order: Option<Order>,
    /// Who judged: `judge:<model>@<wording>`, or `rule:<name>` where nobody had to.
    pub source: String,
    /// The primary's overall score.
    pub primary: f64,
    /// The candidate's overall score.
    pub candidate: f64,
    /// One for each criterion: what the overall scores are the weighted mean of.
    pub parts: Vec<ScorePart>,
    /// Why, in the judge's words.
    pub rationale: String,
    /// In which places the judge was shown the answers; none where nobody noted it, or it was shown
    /// one at a time.
    pub placed: Option<Placed>,
}

impl Score {
    /// How the source of a score begins that a rule gave in place of a judge: the candidate's answer
    /// is worth nothing, whatever anybody may think of it.
    pub const RULE: &str = "rule:";
}

/// In which places a judge was shown the answers of a pair.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Placed {
    /// It was asked once, and this side's answer stood first.
    Once(Side),
    /// It was asked in both orders, and the marks are the means.
    Both {
        /// How much higher an answer was marked where it stood first, -1 to 1: the mean of both.
        lead: f64,
        /// Whether each order had another winner.
        flipped: bool,
    },
}

/// Which of two answers is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    /// The first.
    First,
    /// The second.
    Second,
    /// Neither, by much.
    Tie,
}

impl Winner {
    /// Marks (0 to 1) that are no further apart than half a mark of ten tell no winner.
    const TIE_MAX: f64 = 0.05;

    /// The winner by two marks, 0 to 1.
    pub fn of(first: f64, second: f64) -> Self {
        match first - second {
            lead if Self::TIE_MAX < lead => Self::First,
            lead if lead < -Self::TIE_MAX => Self::Second,
            _ => Self::Tie,
        }
    }

    /// Whether it is the other one of two: a tie is nobody's other.
    pub fn contradicts(self, other: Self) -> bool {
        matches!((self, other), (Self::First, Self::Second) | (Self::Second, Self::First))
    }
}

/// One dimension of a score.
#[derive(Clone, Debug, PartialEq)]
pub struct ScorePart {
    /// The criterion of the rubric.
    pub dimension: String,
    /// 0 to 1.
    pub primary: f64,
    /// 0 to 1.
    pub candidate: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_id_reads_back_with_and_without_dashes() {
        let id = PairId(0x0192_f0c1_2345_7abc_8def_0123_4567_89ab);
        assert_eq!(id.to_string(), "0192f0c1-2345-7abc-8def-0123456789ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("0192f0c123457abc8def0123456789ab".parse(), Ok(id));
        assert!("0192".parse::<PairId>().is_err());
        assert!("+192f0c123457abc8def0123456789ab".parse::<PairId>().is_err());
    }

    #[test]
    fn every_outcome_has_a_name_that_reads_back() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_name(outcome.as_str()), Some(outcome));
            assert!(!outcome.failed() || outcome.counts());
        }
    }

    #[test]
    fn every_agreement_has_a_name_that_reads_back() {
        for (agreement, name) in [
            (Agreement::Exact, "exact"),
            (Agreement::SameJson, "same_json"),
            (Agreement::Different, "different"),
            (Agreement::Unknown, "unknown"),
        ] {
            assert_eq!(agreement.as_str(), name);
            assert_eq!(Agreement::from_name(name), Some(agreement));
        }
        assert_eq!(Agreement::from_name("Exact"), None);
        assert_eq!([Side::Primary, Side::Candidate].map(Side::as_str), ["primary", "candidate"]);
    }

    #[test]
    fn the_id_of_a_pair_says_when_its_request_came() {
        let id = PairId(0x0192_f0c1_2345_7abc_8def_0123_4567_89ab);
        assert_eq!(id.at(), Timestamp(0x0192_f0c1_2345));
    }
}
