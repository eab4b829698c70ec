//! What is missing of a rollout's traffic: copies that never became pairs, and what flags withhold.

use crate::domain::{Caps, Slice, Timestamp};

use super::managed::Managed;

/// Copies that must be due before their coverage is judged.
const COVERAGE_DUE_MIN: u64 = 20;
/// Most of the copies due that may be missing, in percent.
const COVERAGE_MISSING_PERCENT_MAX: u64 = 1;

impl Managed {
    /// Why it goes no further: operators let the candidate serve less than its stage does. What
    /// is about a part of the traffic alone holds nothing up; that part is not bet on by lots.
    pub(super) fn flagged(&self) -> Option<String> {
        let serve = self.rollout.stage()?.serve;
        let most = self.most().serve;
        (most < serve).then(|| {
            format!("a flag lets it serve {most} of the stage's {serve}; `crossfade flag list`")
        })
    }

    /// The most that flags let any of its traffic see.
    pub(super) fn most(&self) -> Caps {
        let (slice, every) = (&self.rollout.plan().slice, Slice::default());
        let stage = self.rollout.stage().map_or(&every, |it| &it.slice);
        self.flags.most(self.rollout.name(), slice, stage)
    }

    /// Why its copies cannot be trusted: too many are missing.
    pub(super) fn coverage_problem(&mut self, now: Timestamp) -> Option<String> {
        let (mut due, mut missing) = self.live.coverage();
        if self.ledger.is_early(now) {
            self.early = (due, missing);
        }
        (due, missing) = (due.saturating_sub(self.early.0), missing.saturating_sub(self.early.1));
        let too_many = due * COVERAGE_MISSING_PERCENT_MAX < missing * 100;
        (COVERAGE_DUE_MIN <= due && too_many).then(|| {
            format!("{missing} of {due} copies that were due never became a pair; at most {COVERAGE_MISSING_PERCENT_MAX}% may be missing")
        })
    }
}
