//! The instrument for what callers think of the answers they got: scores of one side each.

use serde::{Deserialize, Serialize};

use crate::domain::{Lot, PairId, Side};

use super::{
    gate::{Shown, Terms},
    lots::Keys,
    score::{Marks, Score},
};

/// Millionths in one.
const MILLION: f64 = 1e6;

/// Bets on whose answers please less.
///
/// No request is answered by both sides, so scores are taken two at a time as they come, and two
/// of different sides are set beside each other. Which two are, is decided by when they came and
/// never by what they say, and lots decided whose answers they are about: either of the two is as
/// likely the candidate's. So the bets keep their level however the mood of the callers changes
/// over a day, and the difference of the two has the mean of the difference of the sides.
///
/// That holds of scores that are sent as they are given. Sorted by score, or one signal after the
/// other where each has one value, equals meet equals and prove nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Opinion {
    pub(super) score: Score,
    /// Who was heard in this stage: somebody who scores all his conversations is one opinion.
    heard: Keys,
    /// The first of two, of whichever side it is.
    primary: Option<f64>,
    candidate: Option<f64>,
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
        self.lot.key().unwrap_or_else(|| own_key(self.request))
    }
}

/// A key that no other request has, as good as never.
pub(super) fn own_key(request: PairId) -> u64 {
    let [high, low] = [request.0 >> 64, request.0 & u128::from(u64::MAX)];
    let parts = [high, low].map(|it| u64::try_from(it).unwrap_or_default());
    parts[0].rotate_left(32) ^ parts[1]
}

impl Opinion {
    pub(super) fn new(terms: Terms) -> Self {
        Self { score: Score::new(terms), heard: Keys::default(), primary: None, candidate: None }
    }

    /// Begins a stage: what waits is of the last one, and the sides may be drawn anew.
    pub(super) fn enter(&mut self, reach: Option<f64>) {
        self.score.enter(reach);
        (self.heard, self.primary, self.candidate) = (Keys::default(), None, None);
    }

    /// Takes a score; the first of each conversation counts.
    pub(super) fn observe(&mut self, scored: Scored) {
        let sane = (0.0..=1.0).contains(&scored.score);
        if !sane || !self.heard.is_first(scored.key()) {
            return;
        }
        let (mut primary, mut candidate) = (self.primary.take(), self.candidate.take());
        let own = match scored.side {
            Side::Primary => &mut primary,
            Side::Candidate => &mut candidate,
        };
        if own.replace(scored.score).is_some() {
            return; // Two of one side tell nothing.
        }
        match (primary, candidate) {
            (Some(primary), Some(candidate)) => {
                self.score.observe(&Marks::unplaced(primary, candidate));
            }
            first => (self.primary, self.candidate) = first,
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

    /// How many of whose answers please, and how often the candidate's are asked for.
    struct World {
        primary: fn(u64) -> f64,
        candidate: fn(u64) -> f64,
        serve: f64,
        /// Turns of a conversation, which one mood scores.
        turns: u64,
    }

    const EVEN: World = World { primary: |_| 0.8, candidate: |_| 0.8, serve: 0.5, turns: 1 };

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
                score = if random.happens(up(thumb)) { 1.0 } else { 0.0 };
            }
            let (request, lot) = (PairId(thumb.into()), Lot::Sticky(key));
            gate.observe(Scored { request, lot, side, score });
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
    fn sides_that_please_alike_stay_so_however_the_mood_of_their_callers_changes() {
        let in_turns: fn(u64) -> f64 = |it| if it / 200 % 2 == 0 { 0.98 } else { 0.1 };
        let by_day: fn(u64) -> f64 = |it| if it % 300 < 200 { 1.0 } else { 0.0 };
        for serve in [0.5, 0.2] {
            for mood in [in_turns, by_day] {
                let world = World { primary: mood, candidate: mood, serve, turns: 1 };
                let harmed = count(Verdict::Breach, 300, &world, 4_200);
                assert!(harmed <= 8, "{harmed} of 300 at {serve}");
            }
        }
    }

    #[test]
    fn somebody_who_is_never_content_is_one_opinion_in_a_stage() {
        let mut harmed = 0;
        for seed in 0..300 {
            let mut random = Random(seed);
            let mut gate = Opinion::new(Terms::of(Risk::default(), 1));
            gate.enter(Some(0.95));
            gate.score.wealth.fund(0.4);
            let users: Vec<(Side, f64)> = (0..40)
                .map(|_| {
                    let side = if random.happens(0.5) { Side::Candidate } else { Side::Primary };
                    (side, if random.happens(0.25) { 0.0 } else { 1.0 })
                })
                .collect();
            // Eight a day for a week, in any order.
            for said in 0..40 * 56 {
                let user = random.uniform().to_bits() % 40;
                let (side, score) = users[usize::try_from(user).unwrap()];
                let (request, lot) = (PairId(said), Lot::Sticky(user));
                gate.observe(Scored { request, lot, side, score });
            }
            assert!(gate.shown().samples <= 20);
            harmed += u64::from(gate.score.wealth.verdict() == Verdict::Breach);
        }
        assert!(harmed <= 8, "{harmed} of 300");
    }

    #[test]
    fn a_candidate_at_the_margin_is_hardly_ever_called_safe() {
        for serve in [0.5, 0.05] {
            let world = World { candidate: |_| 0.95 * 0.8, serve, ..EVEN };
            let passed = count(Verdict::Pass, 300, &world, 3_000);
            // At most 5 % of 300; more than 24 comes about once in a hundred times at that.
            assert!(passed <= 24, "{passed} of 300 at {serve}");
        }
    }

    #[test]
    fn a_candidate_that_displeases_is_called_worse_and_one_that_pleases_safe() {
        let bad = World { candidate: |_| 0.4, ..EVEN };
        let good = World { primary: |_| 0.9, candidate: |_| 0.95, ..EVEN };
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
            gate.observe(Scored { request: PairId(id), lot, side, score });
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
    fn what_is_compared_are_two_in_a_row_of_one_stage_and_a_new_one_hears_all_again() {
        let mut gate = Opinion::new(Terms::of(Risk::default(), 1));
        gate.enter(Some(0.95));
        let say = |gate: &mut Opinion, id, side| {
            gate.observe(Scored { request: PairId(id), lot: Lot::Once, side, score: 1.0 });
            gate.shown().samples
        };
        assert_eq!(say(&mut gate, 1, Side::Primary), 0);
        assert_eq!(say(&mut gate, 2, Side::Primary), 0, "two of one side tell nothing");
        assert_eq!(say(&mut gate, 3, Side::Candidate), 0, "the first of two");
        gate.enter(Some(0.95));
        assert_eq!(say(&mut gate, 1, Side::Primary), 0, "what waited is of the last stage");
        assert_eq!(say(&mut gate, 3, Side::Candidate), 1);
    }
}
