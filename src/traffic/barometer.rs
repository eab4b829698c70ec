//! The barometer: reads the primary's weather off every call it answers.

use std::sync::Mutex;

use super::lock;
use crate::analysis::{Climate, Pace, Sample, foresee};
use crate::clock::Clock;
use crate::domain::{Call, Foresight, Name, Plan, Timestamp, Weather};

/// Requests before it is said how often they come.
const REQUESTS_MIN: u64 = 20;

/// Counts the primary's calls, whether or not a rollout governs them.
#[derive(Debug)]
pub struct Barometer {
    primary: Name,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    climate: Climate,
    /// Answers to callers, how many there were and since when.
    pace: Pace,
    answers: u64,
    since: Option<Timestamp>,
    /// Whether something may have changed since it was kept last.
    changed: bool,
}

impl Barometer {
    /// A barometer that has seen nothing.
    pub fn new(primary: Name, clock: Clock) -> Self {
        Self { primary, clock, state: Mutex::default() }
    }

    /// Whose weather it reads.
    pub fn primary(&self) -> &Name {
        &self.primary
    }

    /// Takes a call when it has ended; only the primary's count.
    pub fn see(&self, call: &Call) {
        if call.provider == self.primary {
            let mut state = lock(&self.state);
            let ended = state.climate.see(self.clock.now(), &Sample::of(call));
            state.changed |= ended;
        }
    }

    /// Counts an answer to a caller, whoever gave it.
    pub fn answered(&self) {
        let (now, mut state) = (self.clock.now(), lock(&self.state));
        state.since.get_or_insert(now);
        state.answers += 1;
        state.pace.count(now);
    }

    /// What a plan is expected to take at the traffic that came within the last hour.
    pub fn foresee(&self, plan: &Plan) -> Foresight {
        let now = self.clock.now();
        let (climate, per_minute) = {
            let state = lock(&self.state);
            let since = state.since.filter(|_| REQUESTS_MIN <= state.answers);
            (state.climate.clone(), since.map(|it| state.pace.per_minute(it, now)))
        };
        foresee(plan, &climate, per_minute)
    }

    /// What is known by now.
    pub fn weather(&self) -> Vec<Weather> {
        lock(&self.state).climate.weather()
    }

    /// Goes on from what was kept before a restart; says whether it could. What was counted
    /// meanwhile is given up for it.
    pub fn resume(&self, kept: &[u8]) -> bool {
        let Some(climate) = Climate::decode(self.clock.now(), kept) else { return false };
        lock(&self.state).climate = climate;
        true
    }

    /// All of it, to be kept, if half an hour has ended since it was asked last.
    pub fn changed(&self) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        std::mem::take(&mut state.changed).then(|| state.climate.encode())
    }
}
