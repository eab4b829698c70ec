//! With what chances each side of a request is seen.

use serde::{Deserialize, Serialize};

use crate::domain::{Share, Stage};

use super::{gate::Stream, ledger::part};

/// The chances that a request shows each side's outcome, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chances {
    /// That it shows the primary's.
    pub primary: f64,
    /// That it shows the candidate's.
    pub candidate: f64,
    /// That the candidate answers it, which is all that is drawn while nothing is copied.
    pub served: f64,
}

impl Default for Chances {
    fn default() -> Self {
        Self::PAIRS
    }
}

impl Chances {
    /// Every request shows both.
    pub(super) const PAIRS: Self = Self { primary: 1.0, candidate: 1.0, served: 0.0 };

    /// The chances of a stage.
    pub fn of(stage: &Stage) -> Self {
        Self::by(stage.serve, stage.mirror)
    }

    /// The chances by shares: what is served says who answers, what is mirrored who does too.
    pub fn by(serve: Share, mirror: Share) -> Self {
        let (serve, mirror) = (part(serve), part(mirror));
        let alone = 1.0 - mirror;
        let (primary, candidate) = (mirror + alone * (1.0 - serve), mirror + alone * serve);
        Self { primary, candidate, served: serve }
    }

    /// The chances while nothing is copied.
    pub(super) fn uncopied(self) -> Self {
        Self { primary: 1.0 - self.served, candidate: self.served, ..self }
    }

    /// Whether both sides are seen at all.
    pub(super) fn compares(self) -> bool {
        0.0 < self.primary && 0.0 < self.candidate
    }

    /// Primary calls seen for each candidate call seen.
    pub(super) fn weight(self) -> f64 {
        if self.compares() { self.primary / self.candidate } else { 1.0 }
    }

    /// How requests come that are seen most.
    pub(super) fn stream(self) -> Stream {
        let pairs = Self { served: self.served, ..Self::PAIRS };
        if self == pairs { Stream::Paired } else { Stream::Drawn }
    }

    /// What a request that was drawn says about candidate minus primary, in parts of
    /// [`spread`](Self::spread): right on average, whichever sides were seen.
    pub(super) fn difference(self, primary: f64, candidate: f64) -> f64 {
        (candidate / self.candidate - primary / self.primary) / self.spread()
    }

    /// The largest difference that one request can show.
    pub(super) fn spread(self) -> f64 {
        self.primary.min(self.candidate).max(1e-6).recip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Ledger, Observation, ledger::tests::plan, tests::Random, tests::call};
    use crate::domain::{Lot, Metric, Outcome, Timestamp, Verdict};

    fn by(serve: u16, mirror: u16) -> Chances {
        let share = |it| Share::from_basis_points(it).unwrap();
        Chances::by(share(serve), share(mirror))
    }

    /// Requests that come while nothing is copied: the candidate serves so many of them, and each
    /// side fails so often (primary, candidate).
    fn uncopied(chances: Chances, served: f64, rates: (f64, f64), requests: u64) -> Ledger {
        let mut ledger = Ledger::new(&plan(&[Metric::ErrorRate]));
        ledger.enter(0, Timestamp(0), chances);
        let mut random = Random(requests);
        for request in 1..=requests {
            let candidate = random.happens(served);
            let fails = random.happens(if candidate { rates.1 } else { rates.0 });
            let outcome = if fails { Outcome::ProviderError } else { Outcome::Ok };
            let seen = |shown: bool| shown.then(|| call(outcome, 900.0));
            let (primary, candidate) = (seen(!candidate), seen(candidate));
            let (lot, watched) = (Some(Lot::Uncopied(None)), String::new());
            let seen = Observation { lot, primary, candidate, watched };
            ledger.observe(Timestamp(request * 10), &seen);
        }
        ledger
    }

    fn verdict(ledger: &Ledger) -> Verdict {
        ledger.evidence().of(Metric::ErrorRate).unwrap().verdict
    }

    #[test]
    fn a_candidate_that_fails_while_nothing_is_copied_is_seen_to() {
        let ledger = uncopied(by(5_000, 10_000), 0.5, (0.01, 0.15), 700);
        assert!(ledger.is_broken(), "{:?}", ledger.evidence());
        assert!(700 <= ledger.evidence().solos);
    }

    /// By the chances of copies a candidate that serves a tenth seems to fail five times too seldom.
    #[test]
    fn sides_are_weighed_as_they_are_drawn_while_nothing_is_copied() {
        let worse = uncopied(by(1_000, 5_000), 0.1, (0.02, 0.06), 6_000);
        assert_ne!(verdict(&worse), Verdict::Pass);
        let equal = uncopied(by(1_000, 5_000), 0.1, (0.02, 0.02), 20_000);
        assert!(!equal.is_broken() && equal.evidence().problem.is_none());
    }

    #[test]
    fn a_side_that_alone_is_ever_seen_is_compared_with_nobody() {
        for (serve, served) in [(0, 0.0), (10_000, 1.0)] {
            let ledger = uncopied(by(serve, 1_000), served, (0.02, 0.02), 5_000);
            let evidence = ledger.evidence();
            assert_eq!((evidence.solos, verdict(&ledger)), (0, Verdict::Undecided));
            assert!(!ledger.is_broken() && evidence.problem.is_none(), "{evidence:?}");
        }
    }

    #[test]
    fn lots_that_fall_otherwise_while_nothing_is_copied_are_a_mismatch() {
        let ledger = uncopied(by(1_000, 10_000), 0.2, (0.0, 0.0), 2_000);
        assert!(ledger.evidence().problem.unwrap().contains("sample ratio mismatch"));
    }
}
