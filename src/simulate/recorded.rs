//! What a store holds of one attempt of a rollout: the steps it took, and all that was told.

use std::path::{Path, PathBuf};

use crate::analysis::News;
use crate::domain::{
    Cause, Event, Name, Order, PairId, Plan, Record, Rollout, Seen, Timestamp, Told, Visit,
    Weather, Window,
};
use crate::store::{History, Journal, JournalError, Limits, Pairs, PairsError};

/// Nothing is written, so nothing has to be kept small.
const LIMITS: Limits =
    Limits { bytes_max: u64::MAX, age_ms_max: u64::MAX, free_bytes_min: 0, queue_len_max: 1 };

/// Why a rollout's pairs cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    /// There is no store.
    #[error("there is no store in `{}`: name its folder by --store", .0.display())]
    NoStore(PathBuf),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The pairs cannot be read.
    #[error(transparent)]
    Pairs(#[from] PairsError),
    /// No such rollout.
    #[error("the store has no rollout `{asked}`; it has {known}")]
    NoRollout {
        /// What was asked for.
        asked: Name,
        /// What there is.
        known: String,
    },
    /// No such attempt.
    #[error("`{rollout}` has no attempt {asked}; its last is {last}")]
    NoAttempt {
        /// The rollout.
        rollout: Name,
        /// What was asked for.
        asked: u32,
        /// The last one; 0 when it was never started.
        last: u32,
    },
}

/// What is stored of one attempt of a rollout.
#[derive(Debug)]
pub struct Recorded {
    pub(super) name: Name,
    /// The plan with which it began.
    pub(super) plan: Plan,
    pub(super) attempt: u32,
    /// How it began, and each step it took since.
    pub(super) steps: Vec<Taken>,
    /// In the order in which it came in.
    pub(super) heard: Vec<Heard>,
}

/// A step that was taken live.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) at: Timestamp,
    pub(super) event: Event,
    /// How many samples of each gate the decision knew.
    pub(super) samples: Vec<(String, u64)>,
    /// The place of the last that was told before the evidence began anew, where it did.
    pub(super) after: Option<u64>,
    /// The weather in which it began anew.
    pub(super) weather: Vec<Weather>,
}

/// One thing that came in.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) order: Order,
    /// The stage in which that was asked which it is about.
    pub(super) stage: u32,
    /// The pair it is, or is about.
    pub(super) pair: Option<PairId>,
    pub(super) news: News,
}

impl Recorded {
    /// Reads an attempt of a rollout from a store, the last one unless `attempt` says.
    ///
    /// The store must not be in use.
    ///
    /// # Errors
    /// When there is no such store, rollout or attempt, or another process has the store.
    pub fn read(dir: &Path, name: &Name, attempt: Option<u32>) -> Result<Self, BacktestError> {
        if !dir.join("journal.log").is_file() {
            return Err(BacktestError::NoStore(dir.to_owned()));
        }
        let (_journal, history) = Journal::open(dir)?;
        let mut rollout = history.past.get(name).map(|it| it.rollout.clone());
        let wanted = |it: &Rollout| 0 < it.attempt() && attempt.is_none_or(|at| at == it.attempt());
        // Of what stands in an archive the visits of stages are known, and the plan that holds.
        let mut recorded = rollout.as_ref().filter(|it| wanted(it)).map(Self::of_past);
        let mut deleted = false;
        for record in history.records.iter().filter(|it| it.rollout == *name) {
            if record.event == Event::Deleted {
                // What comes is a namesake.
                (rollout, recorded, deleted) = (None, None, true);
            }
            if let (None, Event::Created(plan)) = (&rollout, &record.event) {
                rollout = Some(Rollout::new(name.clone(), (**plan).clone()));
            }
            let Some(rollout) = &mut rollout else { continue };
            let before = rollout.attempt();
            rollout.apply(record.at, &record.event);
            if rollout.attempt() != before && wanted(rollout) {
                recorded = Some(Self::beginning(rollout));
            }
            if let Some(recorded) = recorded.as_mut().filter(|it| it.attempt == rollout.attempt()) {
                recorded.steps.push(Taken::of(record));
            }
        }
        let Some(rollout) = rollout else { return Err(unknown(name, &history)) };
        let Some(mut recorded) = recorded else {
            let (asked, last) = (attempt.unwrap_or(1), rollout.attempt());
            return Err(BacktestError::NoAttempt { rollout: name.clone(), asked, last });
        };
        recorded.hear(&Pairs::open(dir, LIMITS)?)?;
        recorded.leave_out_overtaken();
        if deleted {
            // A namesake had attempts too.
            let begun = recorded.steps.first().map_or_else(Timestamp::default, |it| it.at);
            recorded.heard.retain(|it| begun <= it.order.at);
        }
        Ok(recorded)
    }

    fn beginning(rollout: &Rollout) -> Self {
        Self {
            name: rollout.name().clone(),
            plan: rollout.plan().clone(),
            attempt: rollout.attempt(),
            steps: Vec::new(),
            heard: Vec::new(),
        }
    }

    fn of_past(rollout: &Rollout) -> Self {
        let attempt = rollout.attempt();
        let step = |visit: &Visit| Taken {
            at: visit.from,
            event: Event::StageEntered { attempt, stage: visit.stage, cause: Cause::Operator },
            samples: Vec::new(),
            after: None,
            weather: Vec::new(),
        };
        Self { steps: rollout.visits().iter().map(step).collect(), ..Self::beginning(rollout) }
    }

    /// Reads all that came in, in its order.
    fn hear(&mut self, pairs: &Pairs) -> Result<(), BacktestError> {
        for stage in (0..).take(self.plan.stages.len()) {
            let window = Window { rollout: self.name.clone(), attempt: self.attempt, stage };
            pairs.of_window(&window, &mut |seen| {
                if let Seen::Note(note) = &seen {
                    match &note.told {
                        Told::Entered(weather) => self.place(note.order, weather),
                        Told::Guarded => self.place(note.order, &[]),
                        Told::Solo { .. }
                        | Told::Noise { .. }
                        | Told::Feedback { .. }
                        | Told::CopyLost
                        | Told::ScoreLost
                        | Told::JudgeFailed => {}
                    }
                }
                self.heard.push(Heard::of(&seen));
            })?;
        }
        self.heard.sort_by_key(|it| it.order);
        Ok(())
    }

    /// Leaves out the steps forward that a rollback overtook while they were written: nobody ever
    /// saw them. What takes effect notes that its evidence begins; notes are removed oldest first,
    /// so where an earlier one is kept, one that is missing was never made.
    fn leave_out_overtaken(&mut self) {
        let mut noted = false;
        let next = self.steps.iter().skip(1).map(|it| matches!(it.event, Event::RolledBack(_)));
        let next: Vec<bool> = next.chain([false]).collect();
        let mut next = next.into_iter();
        self.steps.retain(|step| {
            let goes_back = next.next() == Some(true);
            let missing = noted && step.after.is_none() && step.begins_stage();
            noted |= step.after.is_some();
            !(goes_back && missing)
        });
    }

    /// Says after which place evidence began anew with the step of that time.
    fn place(&mut self, order: Order, weather: &[Weather]) {
        for step in self.steps.iter_mut().filter(|it| it.at == order.at && it.begins_anew()) {
            (step.after, step.weather) = (Some(order.seq), weather.to_vec());
        }
    }
}

impl Heard {
    fn of(seen: &Seen) -> Self {
        let pair = match seen {
            Seen::Pair(pair) => Some(pair.id),
            Seen::Score(score) => Some(score.pair),
            Seen::Review(_) | Seen::Note(_) => None,
        };
        let (order, stage) = (seen.order(), seen.window().stage);
        Self { order, stage, pair, news: News::of(seen) }
    }
}

impl Taken {
    fn of(record: &Record) -> Self {
        let samples = record.evidence.iter().map(|it| (it.name(), it.samples)).collect();
        let (at, event) = (record.at, record.event.clone());
        Self { at, event, samples, after: None, weather: Vec::new() }
    }

    /// Whether evidence may have begun anew with it.
    fn begins_anew(&self) -> bool {
        self.begins_stage() || matches!(self.event, Event::Revised(_))
    }

    /// Whether evidence began anew with it, if it took effect.
    fn begins_stage(&self) -> bool {
        use Event::{Loosened, StageEntered, Succeeded};
        matches!(self.event, StageEntered { .. } | Succeeded(_) | Loosened(_))
    }

    /// Whether it was taken before that was told.
    pub(super) fn is_before(&self, heard: &Heard) -> bool {
        self.after.map_or(self.at < heard.order.at, |place| place < heard.order.seq)
    }
}

fn unknown(asked: &Name, history: &History) -> BacktestError {
    let named = history.records.iter().map(|it| it.rollout.as_str());
    let mut known: Vec<&str> = named.chain(history.past.keys().map(Name::as_str)).collect();
    known.sort_unstable();
    known.dedup();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    BacktestError::NoRollout { asked: asked.clone(), known }
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
