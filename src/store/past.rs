//! Where rollouts stood before the first record that is kept: the beginning of a compacted journal.
//!
//! ```text
//! {"v":1,"seq":S,"rollouts":n}     every record up to S is in what follows
//! {"v":1,"name":…,"keys":m}        one rollout; n times, each with
//! {"v":1,"key":…,"event":{…}}      what one idempotency key did, m times
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    json::{self, DecodeError, known},
    plan::PlanJson,
    record::{CauseJson, EventJson},
};
use crate::domain::{Event, Name, Record, Requests, Rollout, Saved, State, Timestamp};

/// One rollout as the records up to some position made it.
#[derive(Clone, Debug)]
pub struct Past {
    /// The rollout.
    pub rollout: Rollout,
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub updated: Timestamp,
    /// Who took the last step.
    pub actor: String,
    /// What was said about it.
    pub comment: String,
    /// Idempotency keys that were used.
    pub requests: Requests,
}

/// What a journal remembers: where every rollout stood, and the records since.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Position of the last record that is not kept; 0 when all are.
    pub forgotten: u64,
    /// Every rollout as it stood then.
    pub past: BTreeMap<Name, Past>,
    /// The records after it, without holes.
    pub records: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct HeadJson {
    v: u32,
    seq: u64,
    rollouts: usize,
}

#[derive(Serialize, Deserialize)]
struct PastJson {
    v: u32,
    name: String,
    plan: PlanJson,
    state: String,
    attempt: u32,
    stage: usize,
    entered: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paused: Option<u64>,
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<CauseJson>,
    created: u64,
    updated: u64,
    actor: String,
    comment: String,
    keys: usize,
}

#[derive(Serialize, Deserialize)]
struct KeyJson {
    v: u32,
    key: String,
    event: EventJson,
}

/// Why the beginning of a journal cannot be read.
#[derive(Debug)]
pub(super) enum PastError {
    /// It ends too early, or its frames do not add up.
    Short,
    /// A frame holds something else.
    Decode(DecodeError),
}

impl From<DecodeError> for PastError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl History {
    /// Position of the last record.
    pub fn last_seq(&self) -> u64 {
        self.records.last().map_or(self.forgotten, |it| it.seq)
    }

    /// Takes the first `count` records into the past.
    pub(super) fn forget(&mut self, count: usize) {
        for record in self.records.drain(..count) {
            self.forgotten = record.seq;
            if let Some(past) = self.past.get_mut(&record.rollout) {
                past.apply(&record);
            } else if let Event::Created(plan) = &record.event {
                let mut past =
                    Past::new(Rollout::new(record.rollout.clone(), (**plan).clone()), record.at);
                past.apply(&record);
                self.past.insert(record.rollout.clone(), past);
            }
        }
    }

    /// The payloads that say where every rollout stood.
    pub(super) fn encode(&self) -> Vec<Vec<u8>> {
        let v = json::VERSION;
        let head = HeadJson { v, seq: self.forgotten, rollouts: self.past.len() };
        let mut payloads = vec![json::encode(&head)];
        for past in self.past.values() {
            payloads.push(json::encode(&PastJson::from(past)));
            let key = |(key, event): (&str, &Event)| {
                json::encode(&KeyJson { v, key: key.to_owned(), event: EventJson::from(event) })
            };
            payloads.extend(past.requests.iter().map(key));
        }
        payloads
    }

    /// What such payloads say. Takes no more of them than belong to it.
    pub(super) fn decode<'a>(
        payloads: &mut impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, PastError> {
        let mut next = || payloads.next().ok_or(PastError::Short);
        let head: HeadJson = json::decode(next()?)?;
        let mut past = BTreeMap::new();
        for _ in 0..head.rollouts {
            let mut json: PastJson = json::decode(next()?)?;
            let keys = std::mem::take(&mut json.keys);
            let mut one = json.past()?;
            for _ in 0..keys {
                let used: KeyJson = json::decode(next()?)?;
                one.requests.insert(&used.key, &used.event.event()?);
            }
            past.insert(one.rollout.name().clone(), one);
        }
        Ok(Self { forgotten: head.seq, past, records: Vec::new() })
    }
}

impl Past {
    fn new(rollout: Rollout, at: Timestamp) -> Self {
        let (actor, comment) = (String::new(), String::new());
        let requests = Requests::default();
        Self { rollout, created: at, updated: at, actor, comment, requests }
    }

    fn apply(&mut self, record: &Record) {
        self.rollout.apply(record.at, &record.event);
        self.updated = record.at;
        (self.actor, self.comment) = (record.actor.clone(), record.comment.clone());
        self.requests.insert(&record.request_id, &record.event);
    }
}

impl From<&Past> for PastJson {
    fn from(past: &Past) -> Self {
        let Saved { name, plan, state, attempt, stage, entered, paused, revision, cause } =
            past.rollout.save();
        Self {
            v: json::VERSION,
            name: name.as_str().to_owned(),
            plan: PlanJson::from(&plan),
            state: state.as_str().to_owned(),
            attempt,
            stage,
            entered: entered.0,
            paused: paused.map(|it| it.0),
            revision,
            cause: cause.map(CauseJson::from),
            created: past.created.0,
            updated: past.updated.0,
            actor: past.actor.clone(),
            comment: past.comment.clone(),
            keys: past.requests.iter().count(),
        }
    }
}

impl PastJson {
    fn past(self) -> Result<Past, DecodeError> {
        let saved = Saved {
            name: json::name("name", &self.name)?,
            plan: self.plan.plan()?,
            state: known("state", &self.state, State::from_name(&self.state))?,
            attempt: self.attempt,
            stage: self.stage,
            entered: Timestamp(self.entered),
            paused: self.paused.map(Timestamp),
            revision: self.revision,
            cause: self.cause.map(|it| it.cause()).transpose()?,
        };
        Ok(Past {
            rollout: Rollout::restore(saved),
            created: Timestamp(self.created),
            updated: Timestamp(self.updated),
            actor: self.actor,
            comment: self.comment,
            requests: Requests::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    #[test]
    fn a_past_reads_back_after_any_number_of_records() {
        let mut records = samples::life("chat");
        records.extend(samples::life("search"));
        for count in 0..=records.len() {
            let mut history = History { records: records.clone(), ..History::default() };
            history.forget(count);
            history.records.clear();
            let payloads = history.encode();
            let mut given = payloads.iter().map(Vec::as_slice);
            let back = History::decode(&mut given).unwrap();
            assert!(given.next().is_none());
            assert_eq!(format!("{back:?}"), format!("{history:?}"), "after {count} records");
        }
    }

    #[test]
    fn a_past_that_is_cut_short_is_no_past() {
        let mut history = History { records: samples::life("chat"), ..History::default() };
        history.forget(history.records.len());
        let payloads = history.encode();
        for count in 0..payloads.len() {
            let given = &mut payloads[..count].iter().map(Vec::as_slice);
            assert!(matches!(History::decode(given), Err(PastError::Short)), "{count} payloads");
        }
    }
}
