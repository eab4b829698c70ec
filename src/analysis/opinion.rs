//! The instrument for what callers think of the answers they got: scores of one side each.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::domain::{Lot, PairId, Side, Timestamp};

use super::{
    gate::{Shown, Terms},
    lots::Lots,
    score::Score,
};

/// Scores of a side that wait for one of the other. Of more, the oldest are given up: what is
/// compared should be of about the same time.
const WAITING_LEN_MAX: usize = 64;
/// Millionths in one.
const MILLION: f64 = 1e6;

/// Bets on whose answers please less.
///
/// No request is answered by both sides, so the newest score of one is set beside the newest of
/// the other that has not been compared yet. Which two are, is decided by when they came and
/// never by what they say, and lots decided whose answers they are about; so the difference of
/// the two has the mean of the difference of the sides, and the bets on pairs of scores keep
/// their level. They know nothing of a score that still waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Opinion {
    pub(super) score: Score,
    /// Who was heard: somebody who scores a whole conversation is one opinion.
    heard: Lots,
    primary: VecDeque<f64>,
    candidate: VecDeque<f64>,
}

/// One score of an answer that a caller got.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The request.
    pub request: PairId,
    /// The lot that drew whose answer it got.
    pub lot: Lot,
    /// Whose answer that was.
    pub side: Side,
    /// 0 to 1.
    pub score: f64,
}

impl Scored {
    /// The score of the answer to a request that this lot drew for that side, in millionths.
    pub(super) fn new(request: PairId, (lot, side): (Lot, Side), score_millionths: u32) -> Self {
        Self { request, lot, side, score: f64::from(score_millionths) / MILLION }
    }

    /// What its score depends on besides the side: the key it sticks to, or itself.
    fn key(&self) -> u64 {
        match self.lot {
            Lot::Sticky(key) => key,
            Lot::Once => {
                let [high, low] = [self.request.0 >> 64, self.request.0 & u128::from(u64::MAX)];
                let parts = [high, low].map(|it| u64::try_from(it).unwrap_or_default());
                parts[0].rotate_left(32) ^ parts[1]
            }
        }
    }
}

impl Opinion {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            score: Score::new(terms),
            heard: Lots::new(),
            primary: VecDeque::new(),
            candidate: VecDeque::new(),
        }
    }

    /// Begins a stage: what waits is of the last one, and who was heard stays so.
    pub(super) fn enter(&mut self, reach: Option<f64>) {
        self.score.enter(reach);
        self.primary.clear();
        self.candidate.clear();
    }

    /// Takes a score; the first of each conversation counts.
    pub(super) fn observe(&mut self, at: Timestamp, scored: Scored) {
        let sane = (0.0..=1.0).contains(&scored.score);
        if !sane || !self.heard.is_first(at, scored.key()) {
            return;
        }
        let waiting = match scored.side {
            Side::Primary => &mut self.primary,
            Side::Candidate => &mut self.candidate,
        };
        if WAITING_LEN_MAX <= waiting.len() {
            waiting.pop_front();
        }
        waiting.push_back(scored.score);
        if !self.primary.is_empty()
            && !self.candidate.is_empty()
            && let (Some(primary), Some(candidate)) =
                (self.primary.pop_back(), self.candidate.pop_back())
        {
            self.score.observe(primary, candidate);
        }
    }

    pub(super) fn shown(&self) -> Shown {
        // That everybody is content is no fault of an instrument.
        Shown { problem: None, ..self.score.shown() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::Random;
    use crate::domain::{Risk, Verdict};

    /// Whose answers get these scores, and how often the candidate's are asked for.
    struct World {
        primary: f64,
        candidate: f64,
        serve: f64,
        /// Turns of a conversation, which one mood scores.
        turns: u64,
    }

    const EVEN: World = World { primary: 0.8, candidate: 0.8, serve: 0.5, turns: 1 };

    /// Thumbs until there is a verdict; which, and after how many.
    fn verdict(seed: u64, world: &World, thumbs: u64) -> (Verdict, u64) {
        let mut random = Random(seed);
        let mut gate = Opinion::new(Terms::of(Risk::default(), 1));
        gate.enter(Some(0.95));
        gate.score.wealth.fund(0.4);
        let (mut side, mut score) = (Side::Primary, 0.0);
        for thumb in 0..thumbs {
            let (key, turn) = (thumb / world.turns, thumb % world.turns);
            if turn == 0 {
                let candidate = random.happens(world.serve);
                side = if candidate { Side::Candidate } else { Side::Primary };
                let up = if candidate { world.candidate } else { world.primary };
                score = if random.happens(up) { 1.0 } else { 0.0 };
            }
            let (request, lot) = (PairId(thumb.into()), Lot::Sticky(key));
            gate.observe(Timestamp(thumb * 1_000), Scored { request, lot, side, score });
            let verdict = gate.score.wealth.verdict();
            if verdict != Verdict::Undecided {
                return (verdict, thumb);
            }
        }
        (Verdict::Undecided, thumbs)
    }

    fn count(of: Verdict, seeds: u64, world: &World, thumbs: u64) -> usize {
        (0..seeds).filter(|it| verdict(*it, world, thumbs).0 == of).count()
    }

    #[test]
    fn sides_that_please_alike_are_hardly_ever_called_worse_whoever_answers_more() {
        for (serve, turns) in [(0.5, 1), (0.05, 1), (0.5, 20)] {
            let world = World { serve, turns, ..EVEN };
            let harmed = count(Verdict::Breach, 300, &world, 3_000);
            // At most 1 % of 300; more than 8 comes about once in two hundred times at that.
            assert!(harmed <= 8, "{harmed} of 300 at {serve}, {turns} turns");
        }
    }

    #[test]
    fn a_candidate_at_the_margin_is_hardly_ever_called_safe() {
        for serve in [0.5, 0.05] {
            let world = World { candidate: 0.95 * EVEN.primary, serve, ..EVEN };
            let passed = count(Verdict::Pass, 300, &world, 3_000);
            // At most 5 % of 300; more than 24 comes about once in a hundred times at that.
            assert!(passed <= 24, "{passed} of 300 at {serve}");
        }
    }

    #[test]
    fn a_candidate_that_displeases_is_called_worse_and_one_that_pleases_safe() {
        let bad = World { candidate: 0.4, ..EVEN };
        let good = World { primary: 0.9, candidate: 0.95, ..EVEN };
        for seed in 0..50 {
            let (found, after) = verdict(seed, &bad, 3_000);
            assert_eq!(found, Verdict::Breach, "seed {seed}");
            assert!(after < 600, "{after} thumbs");
            assert_eq!(verdict(seed, &good, 20_000).0, Verdict::Pass, "seed {seed}");
        }
    }

    #[test]
    fn the_first_word_about_a_conversation_counts_and_what_is_no_score_does_not() {
        let mut gate = Opinion::new(Terms::of(Risk::default(), 1));
        gate.enter(Some(0.95));
        let mut say = |id, lot, side, score| {
            gate.observe(Timestamp(0), Scored { request: PairId(id), lot, side, score });
            gate.shown().samples
        };
        assert_eq!(say(1, Lot::Once, Side::Primary, 1.0), 0, "it waits");
        assert_eq!(say(2, Lot::Sticky(9), Side::Candidate, f64::NAN), 0);
        assert_eq!(say(2, Lot::Sticky(9), Side::Candidate, 0.0), 1);
        assert_eq!(say(1, Lot::Once, Side::Primary, 0.0), 1, "said again");
        assert_eq!(say(3, Lot::Sticky(9), Side::Candidate, 0.0), 1, "the same conversation");
        assert_eq!(say(4, Lot::Sticky(8), Side::Candidate, 0.0), 1, "it waits");
        assert_eq!(say(5, Lot::Once, Side::Primary, 0.5), 2);
        let shown = gate.shown();
        assert!((shown.primary - 0.75).abs() < 1e-12 && shown.candidate.abs() < 1e-12);
    }

    #[test]
    fn what_waits_is_bounded_and_of_the_stage() {
        let mut gate = Opinion::new(Terms::of(Risk::default(), 1));
        gate.enter(Some(0.95));
        for id in 0..1_000 {
            let (request, lot, side) = (PairId(id), Lot::Once, Side::Primary);
            gate.observe(Timestamp(0), Scored { request, lot, side, score: 1.0 });
        }
        assert_eq!(gate.primary.len(), WAITING_LEN_MAX);
        gate.enter(Some(0.95));
        assert!(gate.primary.is_empty());
    }
}
