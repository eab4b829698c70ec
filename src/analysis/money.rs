//! The money put on harm: a matter of time alone, so that it cannot follow the data.

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

use super::float;

/// Money on harm when an attempt starts, over the starts of later stages, soon after the first
/// start, and bit by bit. The last two are kept back for a fault that comes late.
/// Together 1: more would break the promise of the level.
const MONEY_START: f64 = 0.2;
const MONEY_STAGES: f64 = 0.1;
const MONEY_KEPT: f64 = 0.5;
const MONEY_TRICKLED: f64 = 0.2;
/// The trickle is evenly spread over the logarithm of time, from about this on ...
const TRICKLE_FROM_MS: f64 = 3_600_000.0;
/// ... to here, when it ends: an attempt of half a year is a fault in itself.
const TRICKLE_TO_MS: f64 = 180.0 * 86_400_000.0;
/// While guarding, the money of a whole attempt is put in again in so long, and for a start
/// as much as flows in a day.
const GUARD_MS: u64 = 7 * DAY_MS;
const DAY_MS: u64 = 86_400_000;

/// What is left to put on harm, and how it flows.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Money {
    stages: f64,
    left: f64,
    since_ms: u64,
    /// What has trickled since then.
    given: f64,
    flow: Flow,
}

/// How money flows between the starts of stages.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Flow {
    /// Not at all: no stage has begun.
    Dry,
    /// Fast at first and never dry, so that a fault after a long good time finds fresh money.
    Slowing,
    /// Evenly and without end.
    Even,
}

impl Money {
    /// The money of an attempt with so many stages.
    pub(super) fn new(stages: usize) -> Self {
        let stages = float(u64::try_from(stages).unwrap_or(u64::MAX)).max(1.0);
        Self { stages, left: 1.0, since_ms: 0, given: 0.0, flow: Flow::Dry }
    }

    /// Begins a stage, and gives the money for its start.
    pub(super) fn enter(&mut self, at: Timestamp) -> f64 {
        match self.flow {
            Flow::Dry => {
                (self.since_ms, self.flow) = (at.0, Flow::Slowing);
                self.take(MONEY_START)
            }
            Flow::Slowing | Flow::Even => self.take(MONEY_STAGES / (self.stages - 1.0).max(1.0)),
        }
    }

    /// Begins to guard with money that never ends, and gives some for the start.
    pub(super) fn guard(&mut self, at: Timestamp) -> f64 {
        self.left = f64::INFINITY;
        (self.since_ms, self.given, self.flow) = (at.0, 0.0, Flow::Even);
        self.take(float(DAY_MS) / float(GUARD_MS))
    }

    /// What has flowed since it was last asked.
    pub(super) fn due(&mut self, now: Timestamp) -> f64 {
        let elapsed = float(now.0.saturating_sub(self.since_ms));
        let total = match self.flow {
            Flow::Dry => 0.0,
            Flow::Slowing => {
                let part = (elapsed / TRICKLE_FROM_MS).ln_1p();
                let whole = (TRICKLE_TO_MS / TRICKLE_FROM_MS).ln_1p();
                MONEY_KEPT + MONEY_TRICKLED * (part / whole).min(1.0)
            }
            Flow::Even => elapsed / float(GUARD_MS),
        };
        let money = self.take((total - self.given).max(0.0));
        self.given += money;
        money
    }

    /// Goes on by a clock that was set back by so much.
    pub(super) fn set_back(&mut self, ms: u64) {
        self.since_ms = self.since_ms.saturating_sub(ms);
    }

    fn take(&mut self, money: f64) -> f64 {
        let money = money.min(self.left);
        self.left -= money;
        money
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_never_spends_more_than_there_is() {
        for (stages, entries) in [(1, 1), (5, 5), (5, 60)] {
            let mut money = Money::new(stages);
            let mut spent = 0.0;
            for hour in 0..entries {
                spent += money.enter(Timestamp(hour));
            }
            spent += money.due(Timestamp(u64::MAX / 2));
            assert!(0.85 < spent && spent < 1.0 + 1e-9, "{spent} with {stages} stages");
        }
    }

    #[test]
    fn later_stages_share_what_is_meant_for_them() {
        let mut money = Money::new(5);
        let given = [0, 1, 2, 3].map(|hour| format!("{:.3}", money.enter(Timestamp(hour))));
        assert_eq!(given, ["0.200", "0.025", "0.025", "0.025"]);
    }

    #[test]
    fn how_often_it_is_asked_changes_nothing() {
        let (mut often, mut once) = (Money::new(5), Money::new(5));
        often.enter(Timestamp(0));
        once.enter(Timestamp(0));
        let bits: f64 = (0..=1_000).map(|it| often.due(Timestamp(it * 21_600))).sum();
        assert!((bits - once.due(Timestamp(21_600_000))).abs() < 1e-12);
        assert!((0.53..0.56).contains(&bits), "{bits}");
    }

    #[test]
    fn a_week_of_guarding_costs_the_money_of_one_attempt() {
        let mut money = Money::new(5);
        let start = money.guard(Timestamp(0));
        let flow = money.due(Timestamp(6 * DAY_MS));
        assert!((start - 1.0 / 7.0).abs() < 1e-12 && (start + flow - 1.0).abs() < 1e-12);
    }
}
