//! The census: what is asked, of what kind and at what cost, before anything is moved.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use crate::domain::{Call, Outcome, Timestamp, Transcript, hash};

/// Kinds that are told apart on a day; what comes beyond them is counted together.
const KINDS_MAX: usize = 200;
/// Questions and answers that are remembered, to know them again.
const KNOWN_MAX: usize = 16_384;
/// Days that are held: today, and those before it that could not be kept yet.
const DAYS_MAX: usize = 4;
/// Which form [`encode_day`] gives.
const FORMAT: u8 = 2;
/// Stands for the marks and the model of kinds beyond the limit.
const OTHER: &str = "(other)";
/// Requests that are looked at before anything is proposed for their kind.
const SEEN_MIN: u64 = 20;
/// One in so many that calls tools makes a kind one that calls tools.
const TOOLS_ONE_IN: u64 = 10;
/// Bytes that make a token where the provider did not say how many there were.
const BYTES_A_TOKEN: u64 = 4;

/// What requests are told apart by.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UsageKind {
    /// The model that was asked for; empty when unknown.
    pub model: String,
    /// The feature; empty when unmarked.
    pub feature: String,
    /// The segment; empty when unmarked.
    pub segment: String,
    /// The class of task; empty when unmarked.
    pub task: String,
    /// How long its prompt is.
    pub size: PromptSize,
}

/// How long a prompt is, in tokens.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum PromptSize {
    /// Up to 1,000.
    #[default]
    Short,
    /// Up to 4,000.
    Medium,
    /// Up to 16,000.
    Long,
    /// Up to 64,000.
    Large,
    /// More.
    Huge,
}

impl PromptSize {
    /// The bucket of so many tokens.
    pub fn of(tokens: u64) -> Self {
        match tokens {
            0..=1_000 => Self::Short,
            1_001..=4_000 => Self::Medium,
            4_001..=16_000 => Self::Long,
            16_001..=64_000 => Self::Large,
            64_001.. => Self::Huge,
        }
    }

    /// Its name in reports: the tokens it goes up to.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Short => "<= 1k",
            Self::Medium => "<= 4k",
            Self::Long => "<= 16k",
            Self::Large => "<= 64k",
            Self::Huge => "> 64k",
        }
    }
}

/// A request that was answered, as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Surveyed<'a> {
    /// Model and marks; its size is found here.
    pub kind: &'a UsageKind,
    /// What its whole body comes to: the same for the same question.
    pub question: u64,
    /// Bytes of its body.
    pub len: usize,
    /// Whether the answer was to be a stream.
    pub stream: bool,
    /// Whether the answer was to be JSON.
    pub json: bool,
    /// The answer, as far as it can be read.
    pub answer: Option<&'a Transcript>,
    /// How the call ended.
    pub call: &'a Call,
}

/// What was counted of a kind: but for those looked at, each with the weight of what it stands for.
/// Whether a share was changed since matters nothing then.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct UsageCount {
    /// Requests that were looked at.
    pub seen: u64,
    /// Requests that they stand for, in thousandths, as are all that follow but the cost.
    pub millis: u64,
    /// Of these: calls that failed by the provider's fault.
    pub failed: u64,
    /// That were throttled.
    pub throttled: u64,
    /// That were declined.
    pub refused: u64,
    /// Answered as a stream.
    pub streamed: u64,
    /// Whose answer calls tools.
    pub tools: u64,
    /// That were to be JSON.
    pub json: u64,
    /// Surveyed word for word before.
    pub asked_again: u64,
    /// Answered with what another question was answered with before.
    pub answered_alike: u64,
    /// Without a word of the provider on its tokens, and without an estimate.
    pub unmetered: u64,
    /// Whose tokens are an estimate.
    pub estimated: u64,
    /// Fresh input tokens.
    pub input: u64,
    /// Input tokens read from the provider's cache or written to it.
    pub cached: u64,
    /// Output tokens.
    pub output: u64,
    /// Whose cost is not known.
    pub unpriced: u64,
    /// What the others cost, in billionths of a US dollar.
    pub nano_usd: u64,
    times: Histogram,
}

/// A day's counts by kind.
pub type UsageDay = BTreeMap<UsageKind, UsageCount>;

/// Counts what is asked, day by day.
#[derive(Debug, Default)]
pub struct Census {
    /// By days since 1970 (UTC): the one that it is, and others that are not kept yet.
    days: BTreeMap<u64, Day>,
    questions: Known,
    answers: Known,
}

/// What was counted on a day.
#[derive(Clone, Debug, Default)]
pub struct Day {
    /// By kind.
    pub counts: UsageDay,
    /// Requests that were counted since it was kept last.
    pub news: u64,
    /// Whether what was kept of it before is in it.
    pub is_whole: bool,
}

/// What was seen lately: the last half of it at least.
#[derive(Debug, Default)]
struct Known {
    new: HashSet<u64>,
    old: HashSet<u64>,
}

impl Known {
    /// Whether it is known already; it is from now on.
    fn knows(&mut self, hash: u64) -> bool {
        let known = self.old.contains(&hash);
        let again = !self.new.insert(hash);
        if KNOWN_MAX / 2 <= self.new.len() {
            self.old = std::mem::take(&mut self.new);
        }
        known || again
    }
}

impl Census {
    /// Counts a request of which one in so many thousandths is looked at: 20,000 for one in
    /// twenty. The first one of another day begins that; what is kept of others is forgotten.
    pub fn see(&mut self, at: Timestamp, asked: &Surveyed<'_>, stands_for_millis: u64) {
        let today = at.day();
        if !self.days.contains_key(&today) {
            self.days.retain(|_, it| 0 < it.news);
            while DAYS_MAX <= self.days.len() {
                self.days.pop_first();
            }
        }
        let day = self.days.entry(today).or_default();
        day.news += 1;
        let again = self.questions.knows(asked.question);
        // Where the same is asked the same answer is no surprise.
        let answer = asked.answer.filter(|it| !it.text.is_empty() && !again);
        let alike = answer.is_some_and(|it| self.answers.knows(hash("answer", it.text.trim())));
        let kind = UsageKind { size: asked.size(), ..asked.kind.clone() };
        let kind = if day.counts.len() < KINDS_MAX || day.counts.contains_key(&kind) {
            kind
        } else {
            let other = || OTHER.to_owned();
            let marks = (other(), other(), other());
            UsageKind { model: other(), feature: marks.0, segment: marks.1, task: marks.2, ..kind }
        };
        let count = day.counts.entry(kind).or_default();
        count.take(asked, (again, alike), stands_for_millis);
    }

    /// The days of which something is here.
    pub fn days(&self) -> &BTreeMap<u64, Day> {
        &self.days
    }

    /// Takes note that a day was kept, with so many of its news.
    pub fn keep(&mut self, day: u64, news: u64) {
        if let Some(day) = self.days.get_mut(&day) {
            day.news = day.news.saturating_sub(news);
        }
    }

    /// Goes on with what was kept of a day, where that is not done: what was counted of it since is
    /// added.
    pub fn resume(&mut self, day: u64, kept: UsageDay) {
        if let Some(day) = self.days.get_mut(&day).filter(|it| !it.is_whole) {
            add_day(&mut day.counts, kept);
            day.is_whole = true;
        }
    }
}

/// Adds one day's counts to another's.
pub fn add_day(counts: &mut UsageDay, other: UsageDay) {
    for (kind, count) in other {
        counts.entry(kind).or_default().add(&count);
    }
}

/// A day as it is kept.
pub fn encode_day(day: &UsageDay) -> Vec<u8> {
    // Only a length that cannot be known makes this fail, and there is none.
    postcard::to_allocvec(&(FORMAT, day)).unwrap_or_default()
}

/// A day from what was kept; none where that cannot be read.
pub fn decode_day(kept: &[u8]) -> Option<UsageDay> {
    let (format, day) = postcard::from_bytes::<(u8, UsageDay)>(kept).ok()?;
    (format == FORMAT).then_some(day)
}

impl Surveyed<'_> {
    fn size(&self) -> PromptSize {
        let guess = u64::try_from(self.len).unwrap_or(u64::MAX) / BYTES_A_TOKEN;
        let told = self.call.usage.map(|it| it.whole_input());
        PromptSize::of(told.unwrap_or(guess))
    }
}

impl UsageCount {
    fn take(&mut self, asked: &Surveyed<'_>, (again, alike): (bool, bool), weight: u64) {
        let call = asked.call;
        let add = |sum: &mut u64, more: u64| {
            *sum = sum.saturating_add(more.saturating_mul(weight));
        };
        self.seen += 1;
        add(&mut self.millis, 1);
        for (sum, is_one) in [
            (&mut self.failed, call.outcome.failed()),
            (&mut self.throttled, call.outcome == Outcome::Throttled),
            (&mut self.refused, call.outcome == Outcome::Refused),
            (&mut self.streamed, asked.stream),
            (&mut self.tools, asked.answer.is_some_and(|it| !it.tool_calls.is_empty())),
            (&mut self.json, asked.json),
            (&mut self.asked_again, again),
            (&mut self.answered_alike, alike),
            (&mut self.unmetered, call.usage.is_none()),
            (&mut self.estimated, call.estimated),
            (&mut self.unpriced, call.cost_nano_usd.is_none()),
        ] {
            add(sum, is_one.into());
        }
        if call.outcome.counts() {
            self.times.add_for(call.total_ms.into(), requests(weight));
        }
        let usage = call.usage.unwrap_or_default();
        add(&mut self.input, usage.input);
        add(&mut self.cached, usage.cache_read.saturating_add(usage.cache_write));
        add(&mut self.output, usage.output);
        let cost = u128::from(call.cost_nano_usd.unwrap_or(0)) * u128::from(weight) / 1_000;
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        self.nano_usd = self.nano_usd.saturating_add(cost);
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.seen, other.seen),
            (&mut self.millis, other.millis),
            (&mut self.failed, other.failed),
            (&mut self.throttled, other.throttled),
            (&mut self.refused, other.refused),
            (&mut self.streamed, other.streamed),
            (&mut self.tools, other.tools),
            (&mut self.json, other.json),
            (&mut self.asked_again, other.asked_again),
            (&mut self.answered_alike, other.answered_alike),
            (&mut self.unmetered, other.unmetered),
            (&mut self.estimated, other.estimated),
            (&mut self.input, other.input),
            (&mut self.cached, other.cached),
            (&mut self.output, other.output),
            (&mut self.unpriced, other.unpriced),
            (&mut self.nano_usd, other.nano_usd),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.times.merge(&other.times);
    }

    /// What a sum in thousandths comes to.
    pub fn whole(millis: u64) -> u64 {
        millis.saturating_add(500) / 1_000
    }

    /// A quantile of how long answers took to their last byte, in milliseconds; 0 without any.
    pub fn quantile_ms(&self, part: f64) -> f64 {
        self.times.quantile(part)
    }
}

/// What could be done with requests of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// Leave them where they are.
    Keep(Hindrance),
    /// Try a cheaper provider.
    Migrate,
    /// Answer them without a model: from a cache, or by rules.
    Deterministic,
}

/// Why requests had better stay where they are, for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Too few were looked at to say anything.
    Few,
    /// Their prompts are longer than many models do well with.
    Long,
    /// Their answers call tools, where averages hide what is broken.
    Tools,
}

/// How many requests one stands for. A share is a whole number of ten-thousandths, so that it is no
/// more than as many.
fn requests(weight: u64) -> f32 {
    let millis = u32::try_from(weight).unwrap_or(u32::MAX);
    #[expect(clippy::cast_possible_truncation, clippy::as_conversions, reason = "a small number")]
    let requests = (f64::from(millis) / 1_000.0) as f32;
    requests
}

impl Proposal {
    /// What is proposed for a kind, by what was counted of it: a place to begin to look, and no
    /// proof of anything.
    ///
    /// Where half of the requests were asked word for word before, or got an answer that another
    /// question got too, most of them need no model.
    pub fn of(size: PromptSize, count: &UsageCount) -> Self {
        if count.seen < SEEN_MIN {
            Self::Keep(Hindrance::Few)
        } else if count.millis / 2 <= count.asked_again.saturating_add(count.answered_alike) {
            Self::Deterministic
        } else if PromptSize::Long < size {
            Self::Keep(Hindrance::Long)
        } else if count.millis / TOOLS_ONE_IN <= count.tools {
            Self::Keep(Hindrance::Tools)
        } else {
            Self::Migrate
        }
    }
}

#[cfg(test)]
#[path = "census_tests.rs"]
mod tests;
