//! A rollout as plain values, for whoever keeps it without its events.

use super::{Cause, Name, Plan, Rollout, State, Timestamp};

/// Everything a rollout is. A new field of [`Rollout`] does not compile before it stands here.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    /// See [`Rollout::name`].
    pub name: Name,
    /// See [`Rollout::plan`].
    pub plan: Plan,
    /// See [`Rollout::state`].
    pub state: State,
    /// See [`Rollout::attempt`].
    pub attempt: u32,
    /// See [`Rollout::stage_index`].
    pub stage: usize,
    /// See [`Rollout::entered`].
    pub entered: Timestamp,
    /// Since when it is paused, if it is.
    pub paused: Option<Timestamp>,
    /// See [`Rollout::revision`].
    pub revision: u64,
    /// See [`Rollout::cause`].
    pub cause: Option<Cause>,
}

impl Rollout {
    /// The rollout as plain values.
    pub fn save(&self) -> Saved {
        let Self { name, plan, state, attempt, stage, entered, paused, revision, cause } = self;
        Saved {
            name: name.clone(),
            plan: plan.clone(),
            state: *state,
            attempt: *attempt,
            stage: *stage,
            entered: *entered,
            paused: *paused,
            revision: *revision,
            cause: *cause,
        }
    }

    /// The rollout of these values.
    pub fn restore(saved: Saved) -> Self {
        let Saved { name, plan, state, attempt, stage, entered, paused, revision, cause } = saved;
        Self { name, plan, state, attempt, stage, entered, paused, revision, cause }
    }
}
