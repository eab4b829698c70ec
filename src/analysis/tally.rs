//! What was counted in a stage, what of it was left out, and when that is too much.

use serde::{Deserialize, Serialize};

use crate::domain::{Excluded, Lot, Outcome};

use super::Sample;

/// Candidate calls before their outcomes are held against it, and one in how many may be
/// throttled, or be requests it cannot take.
const CALLS_MIN: u64 = 20;
const TURNED_AWAY_ONE_IN: u64 = 20;
/// One in how many primary calls of a stage may fail before it is no measure for a candidate.
const OUTAGE_ONE_IN: u64 = 10;
/// One in how many copies that were sent may be lost.
const LOST_ONE_IN: u64 = 100;

/// Requests of a stage, by what became of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// What counts.
    pub(super) pairs: u64,
    pub(super) solos: u64,
    /// How calls ended, of the primary and of the candidate.
    outcomes: [[u64; 8]; 2],
    /// What does not.
    same_key: u64,
    not_drawn: u64,
    pub(super) copies_lost: u64,
    pub(super) early: u64,
}

impl Tally {
    /// Counts how the primary's and the candidate's calls ended.
    pub(super) fn see(&mut self, sides: [Option<Sample>; 2]) {
        for (outcomes, side) in self.outcomes.iter_mut().zip(sides) {
            if let Some(count) = side.and_then(|it| outcomes.get_mut(place(it.outcome))) {
                *count += 1;
            }
        }
    }

    /// Counts a request of which one side was seen, and that is left out.
    pub(super) fn leave_out(&mut self, lot: Option<Lot>) {
        *(if lot.is_some() { &mut self.same_key } else { &mut self.not_drawn }) += 1;
    }

    /// Whether so many copies were sent and lost that what came of the others may mislead, in
    /// either direction.
    pub(super) fn has_lost_too_many(&self) -> bool {
        let sent = self.pairs + self.copies_lost;
        CALLS_MIN <= sent && sent < LOST_ONE_IN * self.copies_lost
    }

    /// The same in words.
    pub(super) fn lost(&self) -> Option<String> {
        let Self { pairs, copies_lost, .. } = self;
        self.has_lost_too_many().then(|| {
            format!(
                "how {copies_lost} of {} copies that were sent ended was lost; at most 1% may be",
                pairs + copies_lost
            )
        })
    }

    /// What was left out, and why.
    pub(super) fn excluded(&self) -> Vec<Excluded> {
        let silent = Outcome::ALL.into_iter().filter(|it| !it.counts()).map(|outcome| {
            let count = self.outcomes.iter().filter_map(|it| it.get(place(outcome)));
            Excluded { reason: outcome.as_str(), count: count.sum() }
        });
        let Self { same_key, not_drawn, copies_lost, early, .. } = *self;
        let other = [
            ("initial_delay", early),
            ("conversation_counts_already", same_key),
            ("not_drawn_by_lot", not_drawn),
            ("copy_lost", copies_lost),
        ];
        let other = other.map(|(reason, count)| Excluded { reason, count });
        silent.chain(other).filter(|it| 0 < it.count).collect()
    }

    /// Whether the primary fails so often that a candidate which does not proves nothing by it.
    pub(super) fn outage(&self) -> Option<String> {
        let [primary, _] = &self.outcomes;
        let counts = Outcome::ALL.into_iter().zip(primary).filter(|(it, _)| it.counts());
        let (failed, calls) = counts.fold((0, 0), |(failed, calls), (outcome, count)| {
            (failed + if outcome.failed() { *count } else { 0 }, calls + count)
        });
        let many = CALLS_MIN <= calls && calls < OUTAGE_ONE_IN * failed;
        many.then(|| format!("{failed} of {calls} calls of the primary failed, more than 10%"))
    }

    /// Whether the candidate turns so many requests away that those it takes say too little.
    pub(super) fn turned_away(&self) -> Option<String> {
        let [_, candidate] = &self.outcomes;
        let calls: u64 = candidate.iter().sum();
        let classes = [
            (Outcome::Throttled, "raise its quota, or lower the shares"),
            (Outcome::Incompatible, "narrow the slice to requests it can take, or map its model"),
        ];
        classes.into_iter().find_map(|(outcome, remedy)| {
            let count = candidate.get(place(outcome)).copied().unwrap_or(0);
            let many = CALLS_MIN <= calls && calls < TURNED_AWAY_ONE_IN * count;
            many.then(|| {
                format!(
                    "{count} of {calls} candidate calls were {}, more than 5%: {remedy}",
                    outcome.as_str()
                )
            })
        })
    }
}

/// The place of an outcome among all.
fn place(outcome: Outcome) -> usize {
    Outcome::ALL.iter().position(|it| *it == outcome).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::call;

    /// Calls of the primary and of the candidate that ended so.
    fn tally(seen: &[(u32, Outcome, Outcome)]) -> Tally {
        let mut tally = Tally::default();
        for (times, primary, candidate) in seen {
            for _ in 0..*times {
                tally.see([primary, candidate].map(|it| Some(call(*it, 900.0))));
            }
        }
        tally
    }

    #[test]
    fn one_lost_copy_in_a_hundred_is_borne_and_more_are_not() {
        for (pairs, copies_lost, many) in
            [(0, 0, false), (99, 1, false), (98, 1, true), (198, 2, false), (197, 2, true)]
        {
            let tally = Tally { pairs, copies_lost, ..Tally::default() };
            assert_eq!(tally.has_lost_too_many(), many, "{copies_lost} beside {pairs}");
        }
    }

    #[test]
    fn a_primary_that_fails_more_than_one_call_in_ten_is_no_measure() {
        use Outcome::{Abandoned, Ok, ProviderError, Timeout};
        let outage = |well, failed, silent| {
            let seen = [(well, Ok, Ok), (failed, Timeout, Ok), (silent, Abandoned, ProviderError)];
            tally(&seen).outage()
        };
        for (well, failed) in [(0, 0), (0, 19), (18, 2), (27, 3), (180, 20)] {
            assert_eq!(outage(well, failed, 50), None, "{failed} beside {well}");
        }
        let told = |of: &str| Some(format!("{of} calls of the primary failed, more than 10%"));
        assert_eq!(outage(17, 3, 50), told("3 of 20"));
        assert_eq!(outage(26, 3, 0), told("3 of 29"));
    }

    #[test]
    fn a_candidate_that_turns_more_than_one_call_in_twenty_away_says_too_little() {
        for (outcome, remedy) in
            [(Outcome::Throttled, "raise its quota"), (Outcome::Incompatible, "narrow the slice")]
        {
            let turned_away = |taken, turned| {
                let primary = Outcome::Throttled;
                tally(&[(taken, primary, Outcome::Timeout), (turned, primary, outcome)])
                    .turned_away()
            };
            for (taken, turned) in [(0, 0), (0, 19), (19, 1), (38, 2)] {
                assert_eq!(turned_away(taken, turned), None, "{turned} beside {taken}");
            }
            let told = turned_away(18, 2).unwrap();
            let start = format!("2 of 20 candidate calls were {}", outcome.as_str());
            assert!(told.starts_with(&start) && told.contains(remedy), "{told}");
            assert!(turned_away(37, 2).is_some());
        }
    }

    #[test]
    fn what_is_left_out_is_told_by_its_reason_and_nothing_where_there_is_none() {
        let mut tally = tally(&[
            (1, Outcome::Ok, Outcome::Refused),
            (2, Outcome::Abandoned, Outcome::Timeout),
            (3, Outcome::Incompatible, Outcome::Abandoned),
        ]);
        tally.see([None, None]);
        tally.leave_out(None);
        for _ in 0..2 {
            tally.leave_out(Some(Lot::Sticky(7)));
        }
        let excluded = tally.excluded();
        let told: Vec<_> = excluded.iter().map(|it| (it.reason, it.count)).collect();
        let expected = [
            ("incompatible", 3),
            ("abandoned", 5),
            ("conversation_counts_already", 2),
            ("not_drawn_by_lot", 1),
        ];
        assert_eq!(told, expected);
    }
}
