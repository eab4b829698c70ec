//! Rollouts tried out under virtual time: the real machine, bets and tripwire, nothing else.
//!
//! No socket, no clock and no journal: whoever plays says what was seen and when, and is told
//! what the controller would do. [`stream()`] plays what another program made up, line by line;
//! a [`Backtest`] plays what a rollout has stored, by its own plan or another.

mod backtest;
#[cfg(test)]
mod levels;
mod line;
mod recorded;
mod stream;
#[cfg(test)]
mod tests;

pub use backtest::{Backtest, Step};
pub use recorded::{BacktestError, Recorded};
pub use stream::{StreamError, stream};

use crate::analysis::{Chances, Ledger, News, Said, Sample, Tripwire};
use crate::domain::{
    Cause, Command, Event, Evidence, GateEvidence, Input, Metric, Name, Plan, Refusal, Rollout,
    State, Timestamp, Verdict, Weather,
};

/// The plan that is tried unless another is given.
pub const PLAN: &str = include_str!("../../config/simulate.toml");

/// One attempt of a rollout under virtual time.
#[derive(Debug)]
pub struct Simulation {
    rollout: Rollout,
    ledger: Ledger,
    wire: Tripwire,
    /// What was known when it went back.
    evidence: Evidence,
}

/// Whether to tell the numbers of gates that are not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// They are told.
    Told,
    /// Only the names of the gates are.
    Spared,
}

impl Simulation {
    /// A rollout that has not started.
    pub fn new(name: Name, plan: Plan) -> Self {
        let (ledger, wire) = (Ledger::new(&plan), Tripwire::new());
        Self { rollout: Rollout::new(name, plan), ledger, wire, evidence: Evidence::default() }
    }

    /// The rollout as it stands.
    pub fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// What is known now; of a rollout that went back, what was known then.
    pub fn evidence(&self) -> Evidence {
        match self.rollout.state() {
            State::RolledBack => self.evidence.clone(),
            State::Pending
            | State::Running
            | State::Paused
            | State::AwaitingApproval
            | State::Succeeded
            | State::Baked => self.ledger.evidence(),
        }
    }

    /// Starts the attempt at the first stage.
    ///
    /// # Errors
    /// When it has started already.
    pub fn start(&mut self, at: Timestamp, chances: Chances) -> Result<(), Refusal> {
        let start = Input::Command(&Command::Start);
        if let Some(event) = self.rollout.decide(at, &start, &Evidence::default())? {
            self.apply(at, &event, chances);
        }
        Ok(())
    }

    /// Takes the weather that the primary is known to have when a stage begins.
    pub fn tell_weather(&mut self, weather: &[Weather]) {
        self.ledger.tell_weather(weather);
    }

    /// Takes what was told. True when it sends the rollout back: at once, as it would live.
    pub fn hear(&mut self, news: &News) -> bool {
        if self.rollout.window().is_none() {
            return false;
        }
        self.ledger.hear(news);
        let Said::Request(seen) = &news.said else { return self.flinch(news.at) };
        let well = |sample: Sample| sample.outcome.counts().then_some(!sample.outcome.failed());
        let sides = [seen.primary, seen.candidate].map(|it| it.and_then(well));
        let tripped = self.wire.see(news.at, sides[0], sides[1]);
        if tripped { self.go_back(news.at, &Input::Tripped) } else { self.flinch(news.at) }
    }

    /// What the controller would do now by the evidence alone, or what keeps it from doing
    /// anything. Changes nothing.
    ///
    /// # Errors
    /// What it waits for. To tell the numbers of a gate costs far more than to see that it is
    /// not proven: `numbers` says whether they are wanted.
    pub fn decide(&self, at: Timestamp, numbers: Numbers) -> Result<Event, String> {
        if numbers == Numbers::Spared
            && let Some(obvious) = self.obvious_obstacle(at)
        {
            return Err(obvious);
        }
        let (evidence, waits) = (self.ledger.evidence(), |it: Refusal| it.to_string());
        let event = self.rollout.decide(at, &Input::Tick, &evidence).map_err(waits)?;
        event.ok_or_else(|| self.rollout.obstacle(at, &evidence).map_or_else(String::new, waits))
    }

    /// What plainly keeps the stage from being left: gates, else time.
    fn obvious_obstacle(&self, at: Timestamp) -> Option<String> {
        let unproven: Vec<&str> = self.ledger.unproven().map(Metric::as_str).collect();
        if !unproven.is_empty() {
            return Some(format!("not proven: {}", unproven.join(", ")));
        }
        let stage = self.rollout.stage()?;
        let left_ms = stage.duration_ms_min.saturating_sub(self.rollout.dwelt_ms(at));
        let stage = stage.name.clone();
        (0 < left_ms).then(|| Refusal::TooEarly { stage, left_ms }.to_string())
    }

    /// Makes an event so, and opens the window that follows it. `chances` are those of the
    /// stage it enters, or of the guard that begins with it.
    pub fn apply(&mut self, at: Timestamp, event: &Event, chances: Chances) {
        self.rollout.apply(at, event);
        if let Some((_, stage)) = event.entered() {
            self.ledger.enter(stage, at, chances);
        } else if matches!(event, Event::Succeeded(_)) {
            self.ledger.guard(at, chances);
        } else {
            self.ledger.follow(&self.rollout, at, event);
        }
    }

    /// Why it went back: the tripwire, or each broken gate with its numbers. Empty before.
    pub fn epitaph(&self) -> String {
        if self.rollout.cause() == Some(Cause::Tripwire) {
            return "tripwire".to_owned();
        }
        let broken = self.evidence.gates.iter().filter(|it| it.verdict == Verdict::Breach);
        broken.map(figures).collect::<Vec<_>>().join("; ")
    }

    /// Goes back if the evidence says so.
    fn flinch(&mut self, at: Timestamp) -> bool {
        self.ledger.is_broken() && self.go_back(at, &Input::Tick)
    }

    fn go_back(&mut self, at: Timestamp, input: &Input<'_>) -> bool {
        let evidence = self.ledger.evidence();
        let Ok(Some(event @ Event::RolledBack(_))) = self.rollout.decide(at, input, &evidence)
        else {
            return false;
        };
        self.evidence = evidence;
        self.rollout.apply(at, &event);
        true
    }
}

/// The numbers of a gate in one line, its name first.
fn figures(gate: &GateEvidence) -> String {
    format!("{}: {}", gate.name(), gate.figures())
}
