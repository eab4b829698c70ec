//! What a rollout is: values and rules, with no clock, no disk and no network.
//!
//! Everything here is a plain function of its arguments. Time comes in as a
//! [`Timestamp`], randomness as a key to hash, the past as [`Event`]s.

mod budget;
mod call;
mod check;
mod conversation;
mod desk;
mod endpoint;
mod event;
mod evidence;
mod flag;
mod forecast;
mod freeze;
mod gate;
mod golden;
mod ground;
mod kin;
mod ladder;
mod margin;
mod marks;
mod plan;
mod price;
mod record;
mod refusal;
mod request_rules;
mod requests;
mod review;
mod rollout;
mod route;
mod savings;
mod seen;
mod share;
mod skip;
mod splitmix;
mod watched;

#[cfg(test)]
pub(crate) mod invariants;
#[cfg(test)]
pub(crate) mod random;

pub use budget::{Budget, read_usd, show_usd};
pub use call::{
    Agreement, Call, Outcome, Pair, PairId, Placed, Score, ScorePart, Side, ToolCall, Transcript,
    Usage, Window, Winner,
};
pub use check::{Check, Checks, Compared, words};
pub use desk::{Desk, Late, Progress};
pub use endpoint::Endpoint;
pub use event::{Answer, Cause, Command, Consent, Event, Undecided};
pub use evidence::{Basis, Evidence, Excluded, Found, GateEvidence, Noise, TierEvidence};
pub use flag::{Caps, Flag, Flags};
pub use forecast::{Forecast, Foresight};
pub use freeze::{Freeze, FreezeError, FreezeText, Thaw};
pub use gate::{Better, Gate, Kind, Metric, Role, Verdict};
pub use golden::{Golden, Replayed, golden_digest};
pub use kin::{family, kinship};
pub use ladder::default_ladder;
pub use margin::{Limit, Margin, MarginError, Tier};
pub use marks::{MarkFields, Sticky};
pub use plan::{Approval, OnIdle, Plan, PlanFault, Risk, Slice, Stage, Times};
pub use price::{Price, PriceRow, Prices, Tariff, read_day};
pub use record::Record;
pub use refusal::Refusal;
pub use request_rules::{MessageRule, RequestRules};
pub use requests::Requests;
pub use review::{Choice, Counted, Lease, Preferred, Review};
pub use rollout::{Input, Rollout, Saved, State, Visit};
pub use route::{Facts, Key, Lane, Lot, Places, Route, Snapshot, Tie, is_cleared};
pub use savings::Savings;
pub use seen::{Note, Order, Seen, Told, Weather};
pub use share::{Share, ShareError, hash};
pub use skip::Skip;
pub use splitmix::Splitmix;
pub use watched::{Mark, Watched};

use std::{fmt, str::FromStr, sync::Arc};

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Milliseconds from `earlier` to `self`; zero when the clock went back.
    pub fn millis_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Days since the Unix epoch: what a daily cap counts by.
    pub fn day(self) -> u64 {
        self.0 / 86_400_000
    }
}

/// The name of a provider or a rollout: 1 to 63 of `[a-z0-9-]`, a letter or digit first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A text that cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: use 1 to 63 of a-z, 0-9 and `-`, a letter or digit first")]
pub struct NameError(String);

impl Name {
    /// What stands where a name would and every rollout is meant: `-`. No rollout is called so.
    pub fn every() -> Self {
        Self("-".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let first = text.bytes().next().is_some_and(plain);
        let rest = text.bytes().all(|byte| plain(byte) || byte == b'-');
        if first && rest && text.len() <= 63 {
            return Ok(Self(text.into()));
        }
        Err(NameError(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_counted_from_midnight_utc() {
        let day = 86_400_000;
        let days = [day - 1, day, 2 * day + 5].map(|ms| Timestamp(ms).day());
        assert_eq!(days, [0, 1, 2]);
    }

    #[test]
    fn a_name_is_short_and_plain_and_begins_with_a_letter_or_digit() {
        let longest = "x".repeat(63);
        for text in ["gpt", "4-turbo-", "a", &longest] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
        let longer = "x".repeat(64);
        for text in ["", "-", "-gpt", "Gpt", "g_t", "g.t", "ü", &longer] {
            assert_eq!(text.parse::<Name>(), Err(NameError(text.to_owned())));
        }
        assert_eq!(Name::every().as_str(), "-");
    }
}
