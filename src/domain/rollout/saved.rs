//! A rollout as plain values, for whoever keeps it without its events.

use crate::domain::{Cause, Name, Plan, Rollout, State, Timestamp, Visit};

/// Everything a rollout is. A new field of [`Rollout`] does not compile before it stands here.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// See [`Rollout::name`].
    pub name: Name,
    /// See [`Rollout::plan`].
    pub plan: Plan,
    /// See [`Rollout::plan_revision`].
    pub plan_revision: u64,
    /// See [`Rollout::state`].
    pub state: State,
    /// See [`Rollout::attempt`].
    pub attempt: u32,
    /// See [`Rollout::stage_index`].
    pub stage: usize,
    /// See [`Rollout::entered`].
    pub entered: Timestamp,
    /// See [`Rollout::visits`].
    pub visits: Vec<Visit>,
    /// Since when the stage's timer stands still, if it does.
    pub held: Option<Timestamp>,
    /// See [`Rollout::is_overdue`].
    pub overdue: bool,
    /// See [`Rollout::revision`].
    pub revision: u64,
    /// See [`Rollout::cause`].
    pub cause: Option<Cause>,
}

impl Saved {
    /// The same with nothing later than `now`: where the wall clock went back since, time spent
    /// is nothing and never less.
    #[must_use]
    pub fn until(mut self, now: Timestamp) -> Self {
        self.entered = self.entered.min(now);
        self.held = self.held.map(|it| it.min(now));
        for visit in &mut self.visits {
            visit.from = visit.from.min(now);
        }
        self
    }

    /// The same with so much time spent in the stage by `now`, in milliseconds: what passed
    /// while no process ran, or was put into the clock, is none of it.
    #[must_use]
    pub fn dwelt(mut self, now: Timestamp, ms: u64) -> Self {
        self.entered = Timestamp(self.held.unwrap_or(now).0.saturating_sub(ms));
        self
    }
}

impl Rollout {
    /// The rollout as plain values.
    pub fn save(&self) -> Saved {
        let Self {
            name,
            plan,
            plan_revision,
            state,
            attempt,
            stage,
            entered,
            visits,
            held,
            overdue,
            revision,
            cause,
        } = self.clone();
        Saved {
            name,
            plan,
            plan_revision,
            state,
            attempt,
            stage,
            entered,
            visits,
            held,
            overdue,
            revision,
            cause,
        }
    }

    /// The rollout of these values.
    pub fn restore(saved: Saved) -> Self {
        let Saved {
            name,
            plan,
            plan_revision,
            state,
            attempt,
            stage,
            entered,
            visits,
            held,
            overdue,
            revision,
            cause,
        } = saved;
        Self {
            name,
            plan,
            plan_revision,
            state,
            attempt,
            stage,
            entered,
            visits,
            held,
            overdue,
            revision,
            cause,
        }
    }
}
