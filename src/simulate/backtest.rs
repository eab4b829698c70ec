//! A backtest: the stored pairs of a rollout, played through a plan again.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::analysis::{Chances, Observation};
use crate::domain::{
    Approval, Cause, Event, Metric, Name, Order, PairId, Plan, Rollout, Seen, State, Timestamp,
    Told, Weather, Window,
};
use crate::store::{Journal, JournalError, Limits, Pairs, PairsError};

use super::{Numbers, Simulation, figures};

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
    name: Name,
    plan: Plan,
    attempt: u32,
    started: Timestamp,
    /// In the order in which it came in.
    heard: Vec<Heard>,
}

/// One thing that came in.
#[derive(Clone, Debug)]
struct Heard {
    order: Order,
    /// The pair it is, or is about.
    pair: Option<PairId>,
    /// When the request came, if that is known: it belongs to the stage of that time.
    made: Timestamp,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Request(Observation),
    Noise(Observation),
    Score { watched: String, primary: f64, candidate: f64 },
    CopyLost,
    Weather(Vec<Weather>),
}

/// What came of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct Backtest {
    /// The rollout whose pairs were played.
    pub rollout: String,
    /// Its attempt.
    pub attempt: u32,
    /// The state it ended in: `rolled_back`, `succeeded`, or `running` where the pairs ended first.
    pub outcome: &'static str,
    /// The stage it ended in.
    pub stage: String,
    /// The gate that sent it back; none otherwise, nor where the tripwire did.
    pub gate: Option<&'static str>,
    /// Why it went back, or what it still waits for.
    pub why: String,
    /// Pairs that were played.
    pub pairs: u64,
    /// Scores that were played.
    pub scores: u64,
    /// Every step it would have taken.
    pub steps: Vec<Step>,
    /// What to keep in mind.
    pub notes: Vec<String>,
}

/// One step of a rollout.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// `advanced`, `succeeded` or `rolled_back`.
    pub step: &'static str,
    /// The stage it left.
    pub stage: String,
    /// When, as RFC 3339.
    pub at: String,
    /// The last pair it knew of, by itself or by its score; none before the first.
    pub pair: Option<String>,
    /// Pairs that counted in the stage.
    pub pairs: u64,
    /// Pairs that were played since the attempt began.
    pub pairs_played: u64,
    /// The gates' numbers.
    pub gates: Vec<String>,
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
        let records = &history.records;
        let mut rollout = history.past.get(name).map(|it| it.rollout.clone());
        // Of an attempt whose start is in an archive no more than its present stage is played.
        let mut begun = rollout
            .as_ref()
            .filter(|it| attempt.is_none_or(|asked| asked == it.attempt()) && 0 < it.attempt())
            .map(|it| (it.attempt(), it.entered(), it.plan().clone()));
        for record in records.iter().filter(|it| it.rollout == *name) {
            if let (None, Event::Created(plan)) = (&rollout, &record.event) {
                rollout = Some(Rollout::new(name.clone(), (**plan).clone()));
            }
            let Some(rollout) = &mut rollout else { continue };
            rollout.apply(record.at, &record.event);
            if let Event::StageEntered { attempt: now, stage: 0, .. } = record.event
                && attempt.is_none_or(|it| it == now)
            {
                begun = Some((now, record.at, rollout.plan().clone()));
            }
        }
        let Some(rollout) = rollout else {
            let past = history.past.keys().map(Name::as_str);
            let mut known: Vec<&str> =
                records.iter().map(|it| it.rollout.as_str()).chain(past).collect();
            known.sort_unstable();
            known.dedup();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(BacktestError::NoRollout { asked: name.clone(), known });
        };
        let Some((attempt, started, plan)) = begun else {
            let (asked, last) = (attempt.unwrap_or(1), rollout.attempt());
            return Err(BacktestError::NoAttempt { rollout: name.clone(), asked, last });
        };
        let mut recorded = Self { name: name.clone(), plan, attempt, started, heard: Vec::new() };
        recorded.hear(&Pairs::open(dir, LIMITS)?)?;
        Ok(recorded)
    }

    /// Reads all that came in, in its order.
    fn hear(&mut self, pairs: &Pairs) -> Result<(), BacktestError> {
        for stage in (0..).take(self.plan.stages.len()) {
            let window = Window { rollout: self.name.clone(), attempt: self.attempt, stage };
            pairs.of_window(&window, &mut |seen| self.heard.extend(heard(&seen)))?;
        }
        self.heard.sort_by_key(|it| it.order);
        Ok(())
    }

    /// Plays it through a plan, or through its own.
    pub fn play(&self, plan: Option<Plan>) -> Backtest {
        let mut plan = plan.unwrap_or_else(|| self.plan.clone());
        let mut notes = self.notes(&plan);
        notes.extend(self.unwatch(&mut plan));
        for stage in &mut plan.stages {
            stage.approval = Approval::NotNeeded;
        }
        let mut player = Player {
            simulation: Simulation::new(self.name.clone(), plan),
            since: self.started,
            now: self.started,
            pair: None,
            pairs: 0,
            scores: 0,
            steps: Vec::new(),
        };
        let chances = player.chances(0);
        // A rollout that has not started is never refused its start.
        let started = player.simulation.start(self.started, chances);
        debug_assert!(started.is_ok(), "{started:?}");
        for heard in &self.heard {
            player.wait(heard.order.at);
            player.take(heard);
            if player.simulation.rollout().state() == State::RolledBack {
                break;
            }
        }
        player.end(self, notes)
    }

    /// Leaves out the slices that nobody told apart when this was recorded, and says so.
    fn unwatch(&self, plan: &mut Plan) -> Option<String> {
        let watched = plan.watched.as_mut()?;
        let recorded = self.plan.watched.as_ref().filter(|it| it.by == watched.by);
        let known = |it: &String| recorded.is_some_and(|known| known.values.contains(it));
        let (kept, unknown): (Vec<_>, Vec<_>) = watched.values.drain(..).partition(known);
        watched.values = kept;
        if watched.values.is_empty() {
            plan.watched = None;
        }
        let names = unknown.join(", ");
        (!unknown.is_empty()).then(|| {
            format!("slices that were not watched when this was recorded are left out: {names}")
        })
    }

    /// What anybody should know before believing it.
    fn notes(&self, plan: &Plan) -> Vec<String> {
        let mut notes = Vec::new();
        let asking = plan.stages.iter().filter(|it| it.approval == Approval::Needed);
        let asking: Vec<&str> = asking.map(|it| it.name.as_str()).collect();
        if !asking.is_empty() {
            notes.push(format!("approval is taken as given at once: {}", asking.join(", ")));
        }
        if self.heard.is_empty() {
            notes.push("the store has no pairs of this attempt".to_owned());
        }
        notes
    }
}

/// What was stored, as it counts; none for what only says that a stage began.
fn heard(seen: &Seen) -> Option<Heard> {
    let order = seen.order();
    let (pair, made, what) = match seen {
        Seen::Pair(pair) => (Some(pair.id), pair.at, What::Request(Observation::of(pair))),
        Seen::Score(score) => {
            let (primary, candidate) = (score.primary, score.candidate);
            let watched = score.watched.clone();
            (Some(score.pair), score.pair.at(), What::Score { watched, primary, candidate })
        }
        Seen::Note(note) => match &note.told {
            Told::Solo { lot, side, call, watched } => {
                let began = Timestamp(order.at.0.saturating_sub(u64::from(call.total_ms)));
                let seen = Observation::solo(*lot, *side, call, watched);
                (None, began, What::Request(seen))
            }
            Told::Noise { served, again, watched } => {
                let total_ms = u64::from(served.total_ms.max(again.total_ms));
                let began = Timestamp(order.at.0.saturating_sub(total_ms));
                (None, began, What::Noise(Observation::noise(served, again, watched)))
            }
            Told::CopyLost => (None, order.at, What::CopyLost),
            Told::Entered(weather) => (None, order.at, What::Weather(weather.clone())),
            Told::ScoreLost | Told::Guarded => return None,
        },
    };
    Some(Heard { order, pair, made, what })
}

struct Player {
    simulation: Simulation,
    /// When the stage began.
    since: Timestamp,
    now: Timestamp,
    pair: Option<PairId>,
    pairs: u64,
    scores: u64,
    steps: Vec<Step>,
}

impl Player {
    /// Lets time pass. A stage that waits for nothing but its end is left at that moment.
    fn wait(&mut self, until: Timestamp) {
        let rollout = self.simulation.rollout();
        let lasts = rollout.stage().map_or(0, |it| it.duration_ms_min);
        let due = Timestamp(rollout.entered().0.saturating_add(lasts)).max(self.now);
        if due <= until {
            self.now = due;
            self.step();
        }
        self.now = self.now.max(until);
    }

    fn take(&mut self, heard: &Heard) {
        // Late news of an earlier stage counts no more.
        if heard.made < self.since {
            return;
        }
        self.pair = heard.pair.or(self.pair);
        let back = match &heard.what {
            What::Request(seen) => {
                self.pairs += u64::from(heard.pair.is_some());
                self.simulation.observe(self.now, heard.made, seen)
            }
            What::CopyLost | What::Score { .. } | What::Noise(_)
                if self.simulation.is_early(heard.made) =>
            {
                false
            }
            What::Noise(seen) => {
                self.simulation.observe_noise(self.now, seen);
                false
            }
            What::CopyLost => {
                self.simulation.copy_lost(self.now);
                false
            }
            What::Weather(weather) => {
                self.simulation.tell_weather(weather);
                false
            }
            What::Score { watched, primary, candidate } => {
                self.scores += 1;
                self.simulation.score(self.now, watched, *primary, *candidate)
            }
        };
        if back {
            let stage = self.stage_name();
            self.note("rolled_back", stage);
        } else {
            self.step();
        }
    }

    /// Takes the step that the evidence asks for, if any.
    fn step(&mut self) {
        if self.simulation.rollout().state() != State::Running {
            return;
        }
        let Ok(event) = self.simulation.decide(self.now, Numbers::Spared) else { return };
        let left = self.stage_name();
        let mut chances = Chances::default();
        let mut step = "succeeded";
        if let Event::StageEntered { stage, .. } = event {
            (chances, step) = (self.chances(stage), "advanced");
        }
        self.note(step, left);
        self.simulation.apply(self.now, &event, chances);
        if step == "advanced" {
            self.since = self.now;
        }
    }

    fn note(&mut self, step: &'static str, stage: String) {
        let evidence = self.simulation.evidence();
        self.steps.push(Step {
            step,
            stage,
            at: time(self.now),
            pair: self.pair.map(|it| it.to_string()),
            pairs: evidence.pairs,
            pairs_played: self.pairs,
            gates: evidence.gates.iter().map(figures).collect(),
        });
    }

    fn end(self, recorded: &Recorded, notes: Vec<String>) -> Backtest {
        let ended_in = self.stage_name();
        let rollout = self.simulation.rollout();
        let state = rollout.state();
        let why = match state {
            State::RolledBack => self.simulation.epitaph(),
            State::Succeeded | State::Baked => "every gate is proven".to_owned(),
            State::Pending | State::Running | State::Paused | State::AwaitingApproval => {
                self.simulation.decide(self.now, Numbers::Told).err().unwrap_or_default()
            }
        };
        let gate = rollout.cause().and_then(Cause::metric).map(Metric::as_str);
        Backtest {
            rollout: recorded.name.to_string(),
            attempt: recorded.attempt,
            outcome: state.as_str(),
            stage: ended_in,
            gate,
            why,
            pairs: self.pairs,
            scores: self.scores,
            steps: self.steps,
            notes,
        }
    }

    fn chances(&self, stage: usize) -> Chances {
        let stages = &self.simulation.rollout().plan().stages;
        stages.get(stage).map_or_else(Chances::default, Chances::of)
    }

    fn stage_name(&self) -> String {
        let rollout = self.simulation.rollout();
        let stage = rollout.plan().stages.get(rollout.stage_index());
        stage.map_or_else(String::new, |it| it.name.clone())
    }
}

fn time(at: Timestamp) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at.0);
    humantime::format_rfc3339_millis(at).to_string()
}
