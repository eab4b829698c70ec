//! Visits of stages: which times of an attempt are evidence of which stage.

use super::Rollout;
use crate::domain::{Share, Timestamp};

/// A time in which evidence of one stage was gathered under the same terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// Position of the stage.
    pub stage: usize,
    /// When it began.
    pub from: Timestamp,
    /// The shares that were served and mirrored in it; none where that was not kept.
    pub shares: Option<(Share, Share)>,
    /// Whether the stage's time began with it.
    pub times: bool,
}

/// Most visits remembered of an attempt. A ladder has 20 stages at most; more than this only
/// people make, and what is forgotten was evidence of long ago.
const VISITS_LEN_MAX: usize = 256;

impl Rollout {
    /// When the evidence that counts now began: what came before is of an earlier visit of the
    /// stage, or of other terms.
    pub fn since(&self) -> Timestamp {
        self.visits.last().map_or_else(Timestamp::default, |it| it.from)
    }

    /// Since when the time in the stage counts, by the visit with which it began.
    pub fn timed_since(&self) -> Timestamp {
        let mut visits = self.visits.iter().rev();
        visits.find(|it| it.times).map_or_else(Timestamp::default, |it| it.from)
    }

    /// The visits of stages in this attempt, oldest first. Each lasts until the next begins.
    pub fn visits(&self) -> &[Visit] {
        &self.visits
    }

    pub(super) fn visit(&mut self, from: Timestamp, times: bool) {
        if VISITS_LEN_MAX <= self.visits.len() {
            self.visits.remove(0);
        }
        let shares = self.plan.stages.get(self.stage).map(|it| (it.serve, it.mirror));
        self.visits.push(Visit { stage: self.stage, from, shares, times });
    }
}
