//! Where rollouts stood before the first record that is kept: the beginning of a compacted journal.
//!
//! ```text
//! {"v":2,"seq":S,"rollouts":n}     every record up to S is in what follows; with the stop of the
//!                                  whole node and the flags, while they hold, and the keys of stops
//! {"v":2,"name":…,"keys":m}        one rollout; n times, each with
//! {"v":2,"key":…,"event":{…}}      what one idempotency key did, m times
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    json::{self, DecodeError, known},
    plan::PlanJson,
    record::{CauseJson, EventJson, RecordJson},
};
use crate::domain::{
    Event, Name, Plan, Record, Requests, Rollout, Saved, Share, State, Timestamp, Visit,
};

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
    /// The plan the configuration asked for last, if it ever did.
    pub wanted: Option<Plan>,
}

/// What a journal remembers: where every rollout stood, and the records since.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Position of the last record that is not kept; 0 when all are.
    pub forgotten: u64,
    /// Every rollout as it stood then.
    pub past: BTreeMap<Name, Past>,
    /// The stop of the whole node that held then.
    pub stopped: Option<Record>,
    /// Idempotency keys of stops that were used up to then.
    pub stops: Requests,
    /// The flags that were in force then, each by the record that set it.
    pub flags: BTreeMap<Name, Record>,
    /// The records after it, without holes.
    pub records: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct HeadJson {
    v: u32,
    seq: u64,
    rollouts: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped: Option<RecordJson>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stops: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    flags: Vec<RecordJson>,
}

#[derive(Serialize, Deserialize)]
struct PastJson {
    v: u32,
    name: String,
    plan: PlanJson,
    plan_revision: u64,
    state: String,
    attempt: u32,
    stage: usize,
    entered: u64,
    visits: Vec<VisitJson>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<u64>,
    overdue: bool,
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<CauseJson>,
    created: u64,
    updated: u64,
    actor: String,
    comment: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wanted: Option<PlanJson>,
    keys: usize,
}

#[derive(Serialize, Deserialize)]
struct VisitJson {
    stage: usize,
    from: u64,
    /// Served and mirrored, in basis points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shares: Option<(u16, u16)>,
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    times: bool,
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
            match (&record.event, self.past.get_mut(&record.rollout)) {
                (Event::Stopped, _) => {
                    self.stops.insert(&record.request_id, &record.event);
                    self.stopped = Some(record);
                }
                (Event::Lifted, _) => self.stopped = None,
                (Event::Flagged(flag), _) => drop(self.flags.insert(flag.name.clone(), record)),
                (Event::Unflagged(name), _) => drop(self.flags.remove(name)),
                (Event::Deleted, _) => drop(self.past.remove(&record.rollout)),
                (_, Some(past)) => past.apply(&record),
                (Event::Created(plan), None) => {
                    let rollout = Rollout::new(record.rollout.clone(), (**plan).clone());
                    let mut past = Past::new(rollout, record.at);
                    past.apply(&record);
                    self.past.insert(record.rollout, past);
                }
                (_, None) => {}
            }
        }
    }

    /// The payloads that say where every rollout stood.
    pub(super) fn encode(&self) -> Vec<Vec<u8>> {
        let v = json::VERSION;
        let stopped = self.stopped.as_ref().map(RecordJson::from);
        let (seq, rollouts) = (self.forgotten, self.past.len());
        let flags = self.flags.values().map(RecordJson::from).collect();
        let stops = self.stops.iter().map(|(key, _)| key.to_owned()).collect();
        let head = HeadJson { v, seq, rollouts, stopped, stops, flags };
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
        let stopped = head.stopped.map(RecordJson::record).transpose()?;
        let mut stops = Requests::default();
        head.stops.iter().for_each(|key| stops.insert(key, &Event::Stopped));
        let mut flags = BTreeMap::new();
        for json in head.flags {
            let record = json.record()?;
            if let Some(name) = record.event.flag().cloned() {
                flags.insert(name, record);
            }
        }
        Ok(Self { forgotten: head.seq, past, stopped, stops, flags, records: Vec::new() })
    }
}

impl Past {
    fn new(rollout: Rollout, at: Timestamp) -> Self {
        let (actor, comment) = (String::new(), String::new());
        let requests = Requests::default();
        Self { rollout, created: at, updated: at, actor, comment, requests, wanted: None }
    }

    fn apply(&mut self, record: &Record) {
        self.rollout.apply(record.at, &record.event);
        self.updated = record.at;
        if record.moves(&self.rollout) {
            (self.actor, self.comment) = (record.actor.clone(), record.comment.clone());
        }
        self.requests.insert(&record.request_id, &record.event);
        if let Some(plan) = record.wanted() {
            self.wanted = Some(plan.clone());
        }
    }
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_yes(it: &bool) -> bool {
    *it
}

impl From<&Visit> for VisitJson {
    fn from(visit: &Visit) -> Self {
        let Visit { stage, from, shares, times } = *visit;
        let shares = shares.map(|(serve, mirror)| (serve.basis_points(), mirror.basis_points()));
        Self { stage, from: from.0, shares, times }
    }
}

impl From<VisitJson> for Visit {
    fn from(json: VisitJson) -> Self {
        let VisitJson { stage, from, shares, times } = json;
        let share = |it: u16| Share::from_basis_points(it).ok();
        let shares = shares.and_then(|(serve, mirror)| Some((share(serve)?, share(mirror)?)));
        Self { stage, from: Timestamp(from), shares, times }
    }
}

impl From<&Past> for PastJson {
    fn from(past: &Past) -> Self {
        let saved = past.rollout.save();
        Self {
            v: json::VERSION,
            name: saved.name.as_str().to_owned(),
            plan: PlanJson::from(&saved.plan),
            plan_revision: saved.plan_revision,
            state: saved.state.as_str().to_owned(),
            attempt: saved.attempt,
            stage: saved.stage,
            entered: saved.entered.0,
            visits: saved.visits.iter().map(VisitJson::from).collect(),
            held: saved.held.map(|it| it.0),
            overdue: saved.overdue,
            revision: saved.revision,
            cause: saved.cause.map(CauseJson::from),
            created: past.created.0,
            updated: past.updated.0,
            actor: past.actor.clone(),
            comment: past.comment.clone(),
            wanted: past.wanted.as_ref().map(PlanJson::from),
            keys: past.requests.iter().count(),
        }
    }
}

impl PastJson {
    fn past(self) -> Result<Past, DecodeError> {
        let saved = Saved {
            name: json::name("name", &self.name)?,
            plan: self.plan.plan()?,
            plan_revision: self.plan_revision,
            state: known("state", &self.state, State::from_name(&self.state))?,
            attempt: self.attempt,
            stage: self.stage,
            entered: Timestamp(self.entered),
            visits: self.visits.into_iter().map(Visit::from).collect(),
            held: self.held.map(Timestamp),
            overdue: self.overdue,
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
            wanted: self.wanted.map(PlanJson::plan).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    /// Two rollouts that live through everything, and the stops of the node.
    fn lives() -> Vec<Record> {
        let mut lives = samples::life("chat");
        lives.extend(samples::life("search"));
        lives
    }

    /// What a compaction after `count` records leaves of the ones before.
    fn compacted(records: &[Record], count: usize) -> History {
        let mut history = History { records: records.to_vec(), ..History::default() };
        history.forget(count);
        history.records.clear();
        let payloads = history.encode();
        let mut given = payloads.iter().map(Vec::as_slice);
        let back = History::decode(&mut given).unwrap();
        assert!(given.next().is_none());
        assert_eq!(format!("{back:?}"), format!("{history:?}"), "after {count} records");
        back
    }

    #[test]
    fn a_life_has_every_event_but_its_end() {
        let life: Vec<_> = samples::life("chat");
        for event in samples::events().into_iter().filter(|it| *it != Event::Deleted) {
            let kind = std::mem::discriminant(&event);
            let lived = life.iter().any(|it| std::mem::discriminant(&it.event) == kind);
            assert!(lived, "{event:?}");
        }
    }

    #[test]
    fn a_compacted_journal_replays_to_what_the_whole_one_does() {
        let records = lives();
        let mut whole: BTreeMap<Name, Rollout> = BTreeMap::new();
        for record in records.iter().filter(|it| it.rollout != Name::every()) {
            let new = || Rollout::new(record.rollout.clone(), samples::plan());
            whole.entry(record.rollout.clone()).or_insert_with(new).apply(record.at, &record.event);
        }
        let all = compacted(&records, records.len());
        for count in 0..=records.len() {
            let mut history = compacted(&records, count);
            history.records = records[count..].to_vec();
            history.forget(records.len() - count);
            assert_eq!(format!("{history:?}"), format!("{all:?}"), "after {count} records");
            for (name, past) in &history.past {
                assert_eq!(past.rollout.save(), whole[name].save(), "{name} after {count} records");
            }
        }
    }

    #[test]
    fn a_stop_is_remembered_until_it_is_lifted() {
        let records = lives();
        let mut stopped = false;
        for (count, record) in (1..).zip(&records) {
            stopped = record.event == Event::Stopped || (stopped && record.event != Event::Lifted);
            let past = compacted(&records, count).stopped;
            assert_eq!(past.is_some(), stopped, "after {count} records");
        }
    }

    #[test]
    fn flags_are_remembered_until_they_are_cleared() {
        let records = lives();
        let mut set = BTreeMap::new();
        for (count, record) in (1..).zip(&records) {
            match &record.event {
                Event::Flagged(flag) => drop(set.insert(flag.name.clone(), record.clone())),
                Event::Unflagged(name) => drop(set.remove(name)),
                _ => {}
            }
            assert_eq!(compacted(&records, count).flags, set, "after {count} records");
        }
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn what_the_configuration_asked_for_last_is_remembered_through_what_others_asked_for() {
        let mut records = samples::life("chat");
        let wanted = |records: &[Record]| {
            compacted(records, records.len()).past.into_values().next().unwrap().wanted
        };
        assert_eq!(wanted(&records), None);
        records[0].actor = Record::CONFIG.to_owned();
        assert_eq!(wanted(&records), records[0].event.plan().cloned());
        assert!(records.iter().skip(1).any(|it| it.event.plan().is_some()), "others asked");
    }

    #[test]
    fn nothing_of_a_rollout_is_later_than_the_clock() {
        let mut rollout = Rollout::new("chat".parse().unwrap(), samples::plan());
        for record in samples::life("chat") {
            rollout.apply(record.at, &record.event);
            let (saved, now) = (rollout.save(), Timestamp(5));
            assert_eq!(saved.clone().until(record.at), saved);
            let early = saved.until(now);
            assert!(early.entered <= now && early.visits.iter().all(|it| it.from <= now));
            assert_eq!(early.held.is_some(), rollout.save().held.is_some());
            assert!(early.attempt == 0 || Rollout::restore(early).dwelt_ms(now) == 0);
        }
    }

    #[test]
    fn of_what_was_deleted_nothing_is_remembered_and_of_its_namesake_all() {
        let mut records = samples::life("chat");
        let deleted =
            Record { rollout: "chat".parse().unwrap(), ..samples::record(0, Event::Deleted) };
        records.push(deleted);
        let mut history = History { records: records.clone(), ..History::default() };
        history.forget(records.len());
        assert!(history.past.is_empty());
        records.extend(samples::first_life("chat"));
        let again = compacted(&records, records.len()).past.remove(&"chat".parse().unwrap());
        let fresh = samples::first_life("chat");
        let fresh = compacted(&fresh, fresh.len()).past.remove(&"chat".parse().unwrap());
        let saved = |it: Option<Past>| it.unwrap().rollout.save();
        assert_eq!(saved(again), saved(fresh));
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
