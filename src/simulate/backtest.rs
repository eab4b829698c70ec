//! A backtest: the stored pairs of a rollout, played through a plan again.
//!
//! Its own plan is played with the steps that were taken live, each at its place among what was
//! told: so it knows at each of them what was known live, and says where what is stored does not
//! ask for it. Another plan decides for itself.

use std::borrow::Cow;

use serde::Serialize;

use crate::analysis::{Chances, Said};
use crate::domain::{Approval, Cause, Event, Metric, PairId, Plan, State, Timestamp};

use super::{
    Numbers, Simulation, figures,
    recorded::{Heard, Recorded, Taken},
};

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
    /// `advanced`, `jumped`, `loosened`, `succeeded` or `rolled_back`.
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
    /// Plays it through a plan, or through its own.
    pub fn play(&self, plan: Option<Plan>) -> Backtest {
        plan.map_or_else(|| self.play_as_taken(), |plan| self.play_through(plan))
    }

    /// Plays it with the steps that were taken live.
    fn play_as_taken(&self) -> Backtest {
        let mut player = Player::new(self, self.plan.clone());
        let mut steps = self.steps.iter().peekable();
        for heard in &self.heard {
            while let Some(step) = steps.next_if(|it| it.is_before(heard)) {
                player.follow(step);
            }
            player.now = player.now.max(heard.order.at);
            let counts = !heard.news.is_begin() && player.is_current(heard);
            if player.has_ended() || (counts && player.take(heard)) {
                break;
            }
        }
        for step in steps {
            if !player.has_ended() {
                player.follow(step);
            }
        }
        player.end(self)
    }

    /// Plays it through another plan, which takes its own steps.
    fn play_through(&self, mut plan: Plan) -> Backtest {
        let asking = plan.stages.iter_mut().filter(|it| it.approval == Approval::Needed);
        let asking = asking.map(|it| {
            it.approval = Approval::NotNeeded;
            it.name.as_str()
        });
        let asking = asking.collect::<Vec<_>>().join(", ");
        let unwatched = self.unwatch(&mut plan);
        let mut player = Player::new(self, plan);
        if !asking.is_empty() {
            player.notes.push(format!("approval is taken as given at once: {asking}"));
        }
        player.notes.extend(unwatched);
        player.notes.push(UNSEEN.to_owned());
        player.start();
        let (mut recorded, mut steps) = (&self.plan, self.steps.iter().peekable());
        for heard in &self.heard {
            while let Some(step) = steps.next_if(|it| it.is_before(heard)) {
                recorded = step.event.plan().unwrap_or(recorded);
            }
            player.wait(heard.order.at);
            let drawn = recorded.stages.get(usize::try_from(heard.stage).unwrap_or(usize::MAX));
            let heard = player.as_drawn(heard, drawn.map(Chances::of));
            if heard.is_some_and(|it| player.take(&it)) {
                break;
            }
            player.step();
        }
        player.end(self)
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
}

/// What another plan is not told.
const UNSEEN: &str =
    "missing copies, open breakers, flags and the day's copies held it live and hold nothing here";

struct Player {
    simulation: Simulation,
    /// Requests of which one side was seen, by lots of other shares than those of the stage.
    drawn_otherwise: u64,
    now: Timestamp,
    pair: Option<PairId>,
    pairs: u64,
    scores: u64,
    steps: Vec<Step>,
    notes: Vec<String>,
}

impl Player {
    fn new(recorded: &Recorded, plan: Plan) -> Self {
        let mut notes = Vec::new();
        if recorded.heard.is_empty() {
            notes.push("the store has no pairs of this attempt".to_owned());
        }
        Self {
            simulation: Simulation::new(recorded.name.clone(), plan),
            drawn_otherwise: 0,
            now: recorded.steps.first().map_or_else(Timestamp::default, |it| it.at),
            pair: None,
            pairs: 0,
            scores: 0,
            steps: Vec::new(),
            notes,
        }
    }

    fn start(&mut self) {
        let chances = self.chances(0);
        // A rollout that has not started is never refused its start.
        let started = self.simulation.start(self.now, chances);
        debug_assert!(started.is_ok(), "{started:?}");
    }

    fn has_ended(&self) -> bool {
        self.simulation.rollout().state() == State::RolledBack
    }

    /// Whether it was asked in the stage that holds. What was on its way while a step was being
    /// written was asked in the stage before, and once the step is taken it counts in neither.
    fn is_current(&self, heard: &Heard) -> bool {
        let rollout = self.simulation.rollout();
        let stage = rollout.window().map(|it| it.stage);
        rollout.guarded().is_some() && stage == Some(heard.stage)
    }

    /// Takes a step that was taken live, and notes it where what is stored does not ask for it.
    fn follow(&mut self, taken: &Taken) {
        // Its own time, though more was told while it was being written.
        self.now = taken.at;
        let left = self.stage_name();
        let first = self.simulation.rollout().state() == State::Pending;
        let step = match taken.event {
            Event::StageEntered { cause: Cause::Jump, .. } => Some("jumped"),
            Event::StageEntered { .. } if first => None,
            Event::StageEntered { .. } => Some("advanced"),
            Event::Succeeded(_) => Some("succeeded"),
            Event::Loosened(_) => Some("loosened"),
            Event::RolledBack(_) => Some("rolled_back"),
            _ => None,
        };
        self.doubt(taken);
        if let Event::RolledBack(Cause::Breach(_)) = taken.event {
            return;
        }
        if let Some(step) = step {
            self.note(step, left);
        }
        let chances = self.chances_after(&taken.event);
        self.simulation.apply(self.now, &taken.event, chances);
        if !taken.weather.is_empty() {
            self.simulation.tell_weather(&taken.weather);
        }
    }

    /// Notes where a step that was taken live does not follow from what is stored.
    fn doubt(&mut self, taken: &Taken) {
        let (evidence, at) = (self.simulation.evidence(), time(taken.at));
        let known = |name: &String| {
            let gate = evidence.gates.iter().find(|it| it.name() == *name);
            gate.map_or(0, |it| it.samples)
        };
        for (gate, samples) in &taken.samples {
            let stored = known(gate);
            if stored < *samples {
                let lost = samples - stored;
                let note = format!(
                    "{at}: live {gate} had {samples} samples; {lost} of them were not stored"
                );
                self.notes.push(note);
            }
        }
        let goes_on = matches!(taken.event, Event::StageEntered { .. } | Event::Succeeded(_));
        match taken.event.cause() {
            Cause::GatesPassed if goes_on => {
                if let Err(why) = self.simulation.decide(self.now, Numbers::Told) {
                    self.notes
                        .push(format!("{at}: live it went on; what is stored does not: {why}"));
                }
            }
            Cause::Breach(metric) => {
                let metric = metric.as_str();
                self.notes.push(format!(
                    "{at}: live {metric} was proven broken; what is stored does not prove it"
                ));
            }
            Cause::Tripwire => self.notes.push(format!(
                "{at}: live the tripwire sent it back, which also sees calls that are no pair"
            )),
            _ => {}
        }
    }

    /// What was told, as it counts in the stage that holds here. Where that has other shares than
    /// those by which it was drawn, a pair is still a pair, and one side alone says nothing.
    fn as_drawn<'a>(&mut self, heard: &'a Heard, drawn: Option<Chances>) -> Option<Cow<'a, Heard>> {
        let here = self.chances(self.simulation.rollout().stage_index());
        if drawn == Some(here) {
            return Some(Cow::Borrowed(heard));
        }
        let Some(news) = heard.news.clone().undrawn() else {
            self.drawn_otherwise += 1;
            return None;
        };
        Some(Cow::Owned(Heard { news, ..heard.clone() }))
    }

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

    /// Takes what was told. True when it sends the rollout back.
    fn take(&mut self, heard: &Heard) -> bool {
        // Late news of an earlier visit counts no more.
        if heard.news.made < self.simulation.rollout().since() {
            return false;
        }
        self.pair = heard.pair.or(self.pair);
        let left = self.stage_name();
        match heard.news.said {
            Said::Request(_) => self.pairs += u64::from(heard.pair.is_some()),
            Said::Score { .. } => self.scores += 1,
            Said::Noise(_)
            | Said::Opinion { .. }
            | Said::Comparison { .. }
            | Said::ScoreLost
            | Said::JudgeFailed
            | Said::CopyLost
            | Said::Entered(_)
            | Said::Guarded => {}
        }
        let back = self.simulation.hear(&heard.news);
        if back {
            self.note("rolled_back", left);
        }
        back
    }

    /// Takes the step that the evidence asks for, if any.
    fn step(&mut self) {
        if self.simulation.rollout().state() != State::Running {
            return;
        }
        let Ok(event) = self.simulation.decide(self.now, Numbers::Spared) else { return };
        let left = self.stage_name();
        let step = if event.entered().is_some() { "advanced" } else { "succeeded" };
        let chances = self.chances_after(&event);
        self.note(step, left);
        self.simulation.apply(self.now, &event, chances);
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

    fn end(mut self, recorded: &Recorded) -> Backtest {
        if 0 < self.drawn_otherwise {
            self.notes.push(format!(
                "{} requests of which one side was seen are left out: they were drawn by other \
                 shares than this plan's, and count by their pairs alone",
                self.drawn_otherwise
            ));
        }
        let ended_in = self.stage_name();
        let rollout = self.simulation.rollout();
        let state = rollout.state();
        let why = match state {
            State::RolledBack => Some(self.simulation.epitaph())
                .filter(|it| !it.is_empty())
                .unwrap_or_else(|| "it was sent back live, not by a gate".to_owned()),
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
            notes: self.notes,
        }
    }

    /// The chances of the stage that an event leads to; after success that is the last one, also
    /// where the ladder was ended early.
    fn chances_after(&self, event: &Event) -> Chances {
        let last = self.simulation.rollout().plan().stages.len().saturating_sub(1);
        self.chances(event.entered().map_or(last, |(_, stage)| stage))
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
