//! What a witness of a history knows by itself, and what must agree with it.
//!
//! It follows what was told, record by record, and counts what truly happened: time, pairs, what
//! was asked.

use crate::controller::{actor::Controller, handle::Rejected, managed::Managed};
use crate::domain::{
    Cause, Command, Event, Evidence, Input, Lane, Name, Record, Rollout, Saved, Share, Stage,
    Timestamp, Window,
    invariants::{self, Checked, holds},
    random::Random,
};
use crate::store::History;

use super::{Counts, Process};

/// What truly happened in a rollout's visit of a stage.
#[derive(Clone, Debug)]
struct Truth {
    /// As what was told makes it.
    rollout: Rollout,
    /// Milliseconds that passed while it ran and so did a process.
    ran_ms: u64,
    /// Which visit that is, and the pairs that were seen in it: ever, and by this process.
    visit: (u32, Timestamp),
    pairs: u64,
    heard: u64,
    /// All pairs that were ever seen: where, when and how many.
    seen: Vec<(Window, Timestamp, u64)>,
}

/// What a step forward that is being written was decided by.
#[derive(Clone, Debug)]
struct Basis {
    record: Record,
    evidence: Evidence,
    truth: Option<Truth>,
}

/// Follows one history.
pub(super) struct Witness {
    names: [Name; 3],
    truths: [Option<Truth>; 3],
    /// All that was told, each with what was true of its rollout before.
    told: Vec<(Record, Option<Truth>)>,
    /// How much of it is said to be durable.
    safe: usize,
    asked: Vec<(Name, Command)>,
    basis: Option<Basis>,
    /// Whether a clock ever went back: what is later than it counts again when it has gone on.
    set_back: bool,
    /// A step forward that failed, of which the disk may hold something.
    refused: Option<Basis>,
}

impl Witness {
    pub(super) fn new(names: &[Name; 3]) -> Self {
        Self {
            names: names.clone(),
            truths: [None, None, None],
            told: Vec::new(),
            safe: 0,
            asked: Vec::new(),
            basis: None,
            set_back: false,
            refused: None,
        }
    }

    /// The key under which a command is asked.
    pub(super) fn asks(&mut self, name: &Name, command: &Command) -> String {
        self.asked.push((name.clone(), command.clone()));
        format!("key-{}", self.asked.len() - 1)
    }

    fn command(&self, key: &str) -> Option<&(Name, Command)> {
        self.asked.get(key.strip_prefix("key-")?.parse::<usize>().ok()?)
    }

    /// Something that was asked and done durably, other than a rollback, of what is there still.
    pub(super) fn done(&self, dice: &mut Random) -> Option<(Name, Command, String)> {
        let done = self.told[..self.safe].iter().enumerate().filter_map(|(index, (record, _))| {
            let (name, command) = self.command(&record.request_id)?;
            let ends = |it: &Record| it.rollout == *name && it.event == Event::Deleted;
            let gone = self.told[index..].iter().any(|(later, _)| ends(later));
            (!gone).then(|| (name.clone(), command.clone(), record.request_id.clone()))
        });
        let done: Vec<_> = done.filter(|it| it.1 != Command::Rollback).collect();
        (!done.is_empty()).then(|| dice.pick(&done))
    }

    /// Time passes.
    pub(super) fn pass(&mut self, process: &Process, ms: u64) {
        for (name, truth) in self.names.iter().zip(&mut self.truths) {
            let runs = process.live(name).is_some_and(invariants::runs);
            if let Some(truth) = truth.as_mut().filter(|_| runs) {
                truth.ran_ms += ms;
            }
        }
    }

    /// So many pairs are seen in the window that holds.
    pub(super) fn see(&mut self, window: &Window, pairs: usize, now: Timestamp) {
        let index = self.index(&window.rollout);
        if let Some(truth) = index.and_then(|it| self.truths[it].as_mut()) {
            let pairs = u64::try_from(pairs).unwrap();
            (truth.pairs, truth.heard) = (truth.pairs + pairs, truth.heard + pairs);
            truth.seen.push((window.clone(), now, pairs));
        }
    }

    fn index(&self, name: &Name) -> Option<usize> {
        self.names.iter().position(|it| it == name)
    }

    /// A write has ended.
    pub(super) fn wrote(&mut self, process: &Process, counts: &mut Counts) -> Checked {
        let len = self.told.len();
        self.hear(process, counts)?;
        if let Some(basis) = self.basis.take() {
            let told = self.told[len..].iter().any(|it| basis.is_of(&it.0));
            let still = process.controller.book.in_flight().iter().any(|it| basis.is_of(it));
            match (told, still) {
                (true, _) => self.refused = None,
                (false, true) => self.basis = Some(basis),
                (false, false) => self.refused = Some(basis),
            }
        }
        self.look(process, counts)
    }

    /// Checks all that can be seen at any time.
    pub(super) fn look(&mut self, process: &Process, counts: &mut Counts) -> Checked {
        self.hear(process, counts)?;
        let Controller { book, managed, board, .. } = &process.controller;
        let flight = book.in_flight();
        if self.basis.is_none() && book.under_way().is_some() {
            let record = flight[0].clone();
            let evidence = managed.get(&record.rollout).map(|it| it.evidence.clone());
            let truth = self.index(&record.rollout).and_then(|it| self.truths[it].clone());
            self.basis = Some(Basis { record, evidence: evidence.unwrap_or_default(), truth });
        }
        let first = flight.iter().map(|it| it.seq).filter(|it| 0 < *it).min();
        self.safe = first.map_or(self.told.len(), |it| usize::try_from(it).unwrap() - 1);
        let mut governed = Vec::new();
        for (name, truth) in self.names.iter().zip(&mut self.truths) {
            let (Some(live), Some(truth)) = (managed.get(name), truth) else { continue };
            truth.follow(&live.rollout);
            let told = flight.is_empty();
            let same = !told || live.rollout.save() == truth.rollout.save();
            holds("INV8", "it stands elsewhere than what was told makes it", same)?;
            let board = board.load();
            let lane = board.snapshot.lanes.iter().find(|it| it.rollout == *name);
            published(live, lane.is_some_and(|it| is_published(live, it)))?;
            if live.rollout.stage().is_some() {
                governed.push(live.rollout.plan().slice.clone());
            }
        }
        let apart = governed
            .iter()
            .enumerate()
            .all(|(index, slice)| governed[..index].iter().all(|it| !it.overlaps(slice)));
        holds("INV12", "two rollouts govern the same requests", apart)
    }

    /// Takes what was told since.
    fn hear(&mut self, process: &Process, counts: &mut Counts) -> Checked {
        let records = &process.controller.records;
        for record in records.iter().skip(self.told.len()) {
            self.enter(record, process.now(), counts)?;
        }
        holds("INV8", "something was told twice", records.len() == self.told.len())
    }

    /// Takes one record, and checks the step that it tells of.
    fn enter(&mut self, record: &Record, now: Timestamp, counts: &mut Counts) -> Checked {
        let next = u64::try_from(self.told.len()).unwrap() + 1;
        holds("INV8", "a position is missing", record.seq == next)?;
        let Some(index) = self.index(&record.rollout) else {
            self.told.push((record.clone(), None));
            return Ok(());
        };
        let before = self.truths[index].clone();
        self.told.push((record.clone(), before.clone()));
        if let Some(before) = before.as_ref().filter(|_| record.event == Event::Deleted) {
            counts.deleted += 1;
            self.truths[index] = None;
            return holds("INV2", "it moved and is gone", before.rollout.stage().is_none());
        }
        let Some(before) = before else {
            let Event::Created(plan) = &record.event else { panic!("{record:?}") };
            let mut rollout = Rollout::new(record.rollout.clone(), (**plan).clone());
            rollout.apply(record.at, &record.event);
            let visit = (0, Timestamp::default());
            let (pairs, heard, seen) = (0, 0, Vec::new());
            self.truths[index] = Some(Truth { rollout, ran_ms: 0, visit, pairs, heard, seen });
            return Ok(());
        };
        let mut after = before.clone();
        after.rollout.apply(record.at, &record.event);
        after.time(&before, &record.event, now.millis_since(record.at));
        after.follow(&after.rollout.clone());
        let mut known = [&self.basis, &self.refused].into_iter().flatten();
        let forward = known.find(|it| it.is_of(record));
        let gates = Evidence { gates: record.evidence.clone(), ..Evidence::default() };
        let evidence = forward.map_or(&gates, |it| &it.evidence);
        let truth = forward.and_then(|it| it.truth.as_ref()).unwrap_or(&before);
        let input = self.input(record);
        let step = invariants::Step {
            before: &before.rollout,
            after: &after.rollout,
            input: &input,
            evidence,
            event: Some(&record.event),
            now: record.at,
            ran_ms: truth.ran_ms,
        };
        invariants::check(&step)?;
        self.fresh(record, &input, truth)?;
        counts.note(&step);
        self.truths[index] = Some(after);
        Ok(())
    }

    /// What nobody asked for takes pairs of this visit, and some that this process saw; what
    /// begins takes that nothing is stopped.
    fn fresh(&self, record: &Record, input: &Input<'_>, truth: &Truth) -> Checked {
        let begins =
            record.event.entered().is_some_and(|(attempt, _)| attempt != truth.rollout.attempt());
        let node = self.told.iter().rev().find(|it| it.0.rollout == Name::every());
        let stopped = node.is_some_and(|it| it.0.event == Event::Stopped);
        holds("INV2", "it began while everything was stopped", !(begins && stopped))?;
        let onward = matches!(
            record.event,
            Event::StageEntered { .. }
                | Event::ApprovalRequested
                | Event::Succeeded(_)
                | Event::Baked
        );
        if !onward || !matches!(input, Input::Tick) || is_regret(record) {
            return Ok(());
        }
        let samples_min = truth.rollout.stage().map_or(0, |it| it.samples_min);
        let enough = samples_min <= truth.pairs || record.event == Event::Baked;
        holds("INV1", "it went on with fewer pairs than it needs", enough)?;
        holds("T3", "it went on before anything was heard", 0 < truth.heard)
    }

    /// What a record came of.
    fn input(&self, record: &Record) -> Input<'_> {
        match record.event.cause() {
            Cause::Stopped => Input::Stopped,
            Cause::Superseded => Input::Superseded,
            Cause::Tripwire => Input::Tripped,
            Cause::Idle => Input::Idle,
            _ => self.command(&record.request_id).map_or(Input::Tick, |it| Input::Command(&it.1)),
        }
    }

    /// An answer is true.
    pub(super) fn answered(&self, process: &mut Process) -> Checked {
        let mut answered = Ok(());
        process.answers.retain_mut(|(command, answer)| {
            let Ok(answer) = answer.try_recv() else { return true };
            match answer {
                Ok(views) => {
                    let open = &self.told[self.safe..];
                    let lies = views
                        .iter()
                        .filter(|it| it.durable)
                        .any(|view| open.iter().any(|(it, _)| it.rollout == *view.rollout.name()));
                    answered = holds("INV4", "what is not durable was said to be", !lies);
                }
                // What was asked may have waited while it was deleted.
                Err(Rejected::Exists(_) | Rejected::Unknown(_)) if self.has_deleted() => {}
                Err(error) if *command == Command::Rollback => {
                    answered = Err(format!("INV10: a rollback was refused: {error}"));
                }
                Err(Rejected::Exists(_) | Rejected::Unknown(_)) => {
                    answered = Err("INV8: it is not known which rollouts there are".to_owned());
                }
                Err(_) => {}
            }
            false
        });
        answered
    }

    fn has_deleted(&self) -> bool {
        self.told.iter().any(|(it, _)| it.event == Event::Deleted)
    }

    /// Another process has begun with what a crash left.
    pub(super) fn reopened(
        &mut self,
        before: &Process,
        now: &Process,
        history: &History,
        counts: &mut Counts,
    ) -> Checked {
        counts.crashes += 1;
        self.set_back |= now.now() < before.now();
        let records = &history.records;
        let mut told = records.iter().zip(&self.told);
        let len = told.position(|(it, told)| *it != told.0);
        let len = len.unwrap_or(records.len().min(self.told.len()));
        holds("C1", "what was durable is gone", self.safe <= len)?;
        let flight = before.controller.book.in_flight();
        let untold = |it: &&Record| it.seq == 0 || len < usize::try_from(it.seq).unwrap();
        let flight: Vec<&Record> = flight.iter().filter(untold).collect();
        let extra = records.iter().skip(len);
        let known = extra.clone().zip(0..).all(|(it, index)| {
            let meant = flight.get(index).is_some_and(|meant| is_same(it, meant));
            meant || self.refused.as_ref().is_some_and(|refused| refused.is_of(it))
        });
        holds("C1", "nobody ever meant what is there now", known)?;
        counts.cut_off += u64::from(len < records.len());
        counts.lost += u64::from(len < self.told.len());
        for (record, truth) in self.told.drain(len..).rev() {
            if let Some(index) = self.names.iter().position(|it| *it == record.rollout) {
                self.truths[index] = truth;
            }
        }
        let written = self.truths.clone();
        for record in extra {
            self.enter(record, before.now(), counts)?;
        }
        (self.basis, self.refused) = (None, None);
        for ((name, truth), written) in self.names.iter().zip(&mut self.truths).zip(&written) {
            let (managed, was) = (now.controller.managed.get(name), before.live(name));
            let there = managed.is_some() == truth.is_some();
            holds("C1", "it is there and was deleted, or the other way", there)?;
            let (Some(live), Some(truth)) = (managed, truth.as_mut()) else { continue };
            // A step that was cut off may be there, and was not to be seen yet.
            let written = written.iter().map(|it| &it.rollout).chain([&live.rollout]);
            let mut stages = written.filter_map(Rollout::stage);
            let seen = was.and_then(Rollout::stage);
            let below = |it: &Stage| stages.any(|written| it.is_below(written));
            // What a step that came late is taken back to was written before that.
            let back = before.controller.book.in_flight();
            let regretted = back.iter().any(|it| it.rollout == *name && is_regret(it));
            let fine = regretted || seen.is_none_or(below);
            holds("INV4", "more was seen than was written", fine)?;
            let same = timeless(&live.rollout) == timeless(&truth.rollout);
            holds("C3", "it stands elsewhere than the journal says", same)?;
            let known = |process: &Process| {
                let managed = process.controller.managed.get(name);
                let managed = managed.filter(|it| it.rollout.guarded().is_some());
                let evidence = managed.map(|it| it.ledger.evidence())?;
                let samples: Vec<u64> = evidence.gates.iter().map(|it| it.samples).collect();
                Some((evidence.pairs, samples))
            };
            let stood = was.is_some_and(|it| timeless(it) == timeless(&live.rollout));
            let other = !stood || self.set_back;
            holds("C3", "its evidence is another", other || known(before) == known(now))?;
            truth.visit = (live.rollout.attempt(), live.rollout.since());
            (truth.rollout, truth.heard) = (live.rollout.clone(), 0);
        }
        Ok(())
    }
}

impl Basis {
    fn is_of(&self, record: &Record) -> bool {
        is_same(&self.record, record)
    }
}

/// Whether it takes back a step that came late.
fn is_regret(record: &Record) -> bool {
    record.comment.contains("held the step up")
}

fn is_same(one: &Record, other: &Record) -> bool {
    let key = |it: &Record| (it.rollout.clone(), it.event.clone(), it.at, it.request_id.clone());
    key(one) == key(other)
}

impl Truth {
    /// Takes the visit that it is in now. What was asked in its stage since it was decided is of
    /// it, also where the step was still being written.
    fn follow(&mut self, live: &Rollout) {
        let visit = (live.attempt(), live.since());
        if self.visit != visit {
            let window = live.window();
            let seen = self.seen.iter().filter(|it| window.as_ref() == Some(&it.0));
            let pairs = seen.filter(|it| live.since() <= it.1).map(|it| it.2).sum();
            (self.visit, self.pairs, self.heard) = (visit, pairs, 0);
        }
    }

    /// Counts the time in the stage after a step that was taken so long ago.
    fn time(&mut self, before: &Self, event: &Event, ago_ms: u64) {
        let begins =
            matches!(event, Event::StageEntered { .. } | Event::Loosened(_) | Event::Succeeded(_));
        let goes_on = invariants::runs(&self.rollout) && !invariants::runs(&before.rollout);
        if begins {
            self.ran_ms = ago_ms;
        } else if goes_on {
            self.ran_ms += ago_ms;
        }
    }
}

/// All of a rollout but its times, which a clock that goes back moves.
fn timeless(rollout: &Rollout) -> Saved {
    let mut saved = rollout.save();
    (saved.entered, saved.held) = (Timestamp::default(), saved.held.map(|_| Timestamp::default()));
    saved.visits.iter_mut().for_each(|it| it.from = Timestamp::default());
    saved
}

/// What callers see is where it stands, and harm that is known is gone.
fn published(live: &Managed, same: bool) -> Checked {
    holds("INV4", "another share is published than its state's", same)?;
    let harmless = live.rollout.guarded().is_none() || live.evidence.breach().is_none();
    holds("INV10", "harm is known and it stays", harmless)
}

fn is_published(live: &Managed, lane: &Lane) -> bool {
    let stage = live.rollout.stage();
    let serve = stage.map_or(Share::NONE, |it| it.serve);
    let slice = stage.map(|it| it.slice.clone()).unwrap_or_default();
    (&lane.window, lane.serve) == (&live.rollout.window(), serve)
        && lane.mirror == live.rollout.mirror()
        && lane.stage_slice == slice
}

impl Counts {
    fn note(&mut self, step: &invariants::Step<'_>) {
        let (before, after) = (invariants::served(step.before), invariants::served(step.after));
        self.rises += u64::from(before < after);
        self.falls += u64::from(after < before);
        match step.event {
            Some(Event::RolledBack(Cause::Breach(_))) => self.breaches += 1,
            Some(Event::StageEntered { cause, .. } | Event::Succeeded(cause)) => {
                self.proven += u64::from(*cause == Cause::GatesPassed);
            }
            Some(_) | None => {}
        }
    }
}
