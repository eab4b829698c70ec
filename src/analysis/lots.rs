//! Lots: which requests were drawn to a side, and whether the lots fall as they should.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;

use super::{chances::Chances, float, gate::Stream, interval::ln_mixture};

/// How long a key is remembered at least: longer than people pause in a conversation.
const REMEMBERED_MS: u64 = 3_600_000;
/// Keys remembered at a time. Of more, an even part is left out of the bets.
const KEYS_LEN_MAX: usize = 8_192;
/// Chance that lots that fall as they should are ever called wrong.
const MISMATCH: f64 = 0.001;
/// How many lots the test of the shares has in mind.
const LOTS_TYPICAL: f64 = 100.0;

/// Keys that were seen: all of them, or an even part that does not depend on what they drew.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Keys {
    seen: HashSet<u64>,
    /// Keys whose hash begins with fewer zero bits are left out.
    zeros_min: u32,
}

impl Keys {
    /// Whether this one counts and was not seen before.
    pub(super) fn is_first(&mut self, key: u64) -> bool {
        if zeros(key) < self.zeros_min {
            return false;
        }
        let first = self.seen.insert(key);
        if KEYS_LEN_MAX < self.seen.len() {
            self.zeros_min += 1;
            self.seen.retain(|key| self.zeros_min <= zeros(*key));
            return false;
        }
        first
    }
}

/// What a side was drawn by.
///
/// Requests that stick together share their side and much of their fate, so they are one
/// observation. The first of each key counts, which is known before its side is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lots {
    young: Keys,
    old: HashSet<u64>,
    turned_at_ms: u64,
    /// In this stage, while copies were made and while none were.
    copied: Fallen,
    uncopied: Fallen,
}

/// How lots of the same chances fell.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Fallen {
    chances: Chances,
    /// Lots drawn, and those in which each side was seen.
    drawn: u64,
    primary: u64,
    candidate: u64,
}

impl Lots {
    pub(super) fn new() -> Self {
        Self {
            young: Keys::default(),
            old: HashSet::new(),
            turned_at_ms: 0,
            copied: Fallen::default(),
            uncopied: Fallen::default(),
        }
    }

    /// Begins a stage. Keys stay known: who was seen in the last stage is no fresh draw.
    pub(super) fn enter(&mut self, chances: Chances) {
        self.copied = Fallen { chances, ..Fallen::default() };
        self.uncopied = Fallen { chances: chances.uncopied(), ..Fallen::default() };
    }

    /// Whether this request is the first of its key.
    pub(super) fn is_first(&mut self, at: Timestamp, key: u64) -> bool {
        let age = at.0.saturating_sub(self.turned_at_ms);
        if REMEMBERED_MS <= age {
            self.turned_at_ms = at.0;
            self.old = std::mem::take(&mut self.young.seen);
            if self.old.len() < KEYS_LEN_MAX / 4 {
                self.young.zeros_min = self.young.zeros_min.saturating_sub(1);
            }
        }
        !self.old.contains(&key) && self.young.is_first(key)
    }

    /// Goes on by a clock that was set back by so much.
    pub(super) fn set_back(&mut self, ms: u64) {
        self.turned_at_ms = self.turned_at_ms.saturating_sub(ms);
    }

    /// Counts a lot by the sides that it showed.
    pub(super) fn count(&mut self, stream: Stream, primary: bool, candidate: bool) {
        let fallen = match stream {
            Stream::Drawn | Stream::Paired => &mut self.copied,
            Stream::Uncopied => &mut self.uncopied,
        };
        fallen.drawn += 1;
        fallen.primary += u64::from(primary);
        fallen.candidate += u64::from(candidate);
    }

    /// Why the lots cannot be trusted, if they fall otherwise than they were asked to.
    pub(super) fn problem(&self) -> Option<String> {
        self.copied.problem().or_else(|| self.uncopied.problem())
    }
}

impl Fallen {
    /// Why they cannot be trusted, if so.
    ///
    /// A mixture over all shares bets against the one that was asked for, and may be looked
    /// at as often as one likes (Robbins 1970; Lindon & Malek 2022).
    fn problem(&self) -> Option<String> {
        let sides = [
            ("primary", self.primary, self.chances.primary),
            ("candidate", self.candidate, self.chances.candidate),
        ];
        sides.into_iter().find_map(|(side, seen, chance)| {
            let wrong = if chance <= 0.0 {
                0 < seen
            } else if 1.0 <= chance {
                seen < self.drawn
            } else {
                let prior = (chance * LOTS_TYPICAL, (1.0 - chance) * LOTS_TYPICAL);
                let ln_e = ln_mixture(float(seen), float(self.drawn), chance, prior);
                (2.0 / MISMATCH).ln() <= ln_e
            };
            wrong.then(|| {
                let share = 100.0 * float(seen) / float(self.drawn.max(1));
                format!(
                    "sample ratio mismatch: the {side} was seen in {share:.2}% of {} lots where \
                     {:.2}% were asked for; something drops or adds requests on one side",
                    self.drawn,
                    100.0 * chance
                )
            })
        })
    }
}

/// Zero bits in front of a key's hash, mixed anew, so that who is left out has nothing to do
/// with who was drawn.
fn zeros(key: u64) -> u32 {
    let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29) ^ key;
    mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9).leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::tests::Random;

    #[test]
    fn a_conversation_counts_once_an_hour_or_more() {
        let mut lots = Lots::new();
        assert!(lots.is_first(Timestamp(0), 7));
        for minute in 1..60 {
            assert!(!lots.is_first(Timestamp(minute * 60_000), 7));
        }
        assert!(lots.is_first(Timestamp(0), 8));
        assert!(!lots.is_first(Timestamp(REMEMBERED_MS + 1), 7));
        assert!(lots.is_first(Timestamp(3 * REMEMBERED_MS), 9));
        assert!(lots.is_first(Timestamp(4 * REMEMBERED_MS), 7));
    }

    #[test]
    fn more_keys_than_can_be_remembered_are_thinned_and_never_counted_twice() {
        let (mut lots, mut random) = (Lots::new(), Random(1));
        let keys: Vec<u64> = (0..50_000).map(|_| random.uniform().to_bits()).collect();
        let mut firsts = 0;
        for turn in 0..3 {
            let first = keys.iter().filter(|key| lots.is_first(Timestamp(turn), **key)).count();
            assert!(turn == 0 || first == 0, "{first} in turn {turn}");
            firsts += first;
        }
        assert!((KEYS_LEN_MAX..3 * KEYS_LEN_MAX).contains(&firsts), "{firsts}");
        assert!(lots.young.seen.len() <= KEYS_LEN_MAX && 1 <= lots.young.zeros_min);
    }

    #[test]
    fn as_many_keys_as_can_be_remembered_are_not_thinned_and_one_more_is() {
        let mut lots = Lots::new();
        for key in (0..).take(KEYS_LEN_MAX) {
            assert!(lots.is_first(Timestamp(0), key));
        }
        assert_eq!(lots.young.zeros_min, 0);
        assert!(!lots.is_first(Timestamp(0), u64::MAX) && lots.young.zeros_min == 1);
    }

    #[test]
    fn each_thinning_leaves_out_half_of_the_keys() {
        let mut random = Random(5);
        let keys: Vec<u64> = (0..10_000).map(|_| random.uniform().to_bits()).collect();
        let left = |zeros_min| keys.iter().filter(|it| zeros_min <= zeros(**it)).count();
        assert!((4_800..5_200).contains(&left(1)), "{}", left(1));
        assert!((2_300..2_700).contains(&left(2)), "{}", left(2));
    }

    #[test]
    fn a_side_that_every_lot_shows_or_none_is_right_until_one_does_otherwise() {
        let mut lots = Lots::new();
        lots.enter(Chances { primary: 1.0, candidate: 0.0, ..Chances::PAIRS });
        for _ in 0..1_000 {
            lots.count(Stream::Drawn, true, false);
        }
        assert_eq!(lots.problem(), None);
        lots.count(Stream::Drawn, true, true);
        assert!(lots.problem().unwrap().contains("candidate was seen in 0.10%"));
    }

    #[test]
    fn thinning_is_taken_back_after_an_hour_with_few_keys() {
        let few = KEYS_LEN_MAX / 4;
        for (len, left) in [(few - 1, 0), (few, 1), (few + 1, 1)] {
            let mut lots = Lots::new();
            lots.young = Keys { zeros_min: 1, seen: (0..).take(len).collect() };
            lots.is_first(Timestamp(REMEMBERED_MS), u64::MAX);
            assert_eq!(lots.young.zeros_min, left, "after {len} keys");
        }
    }

    /// E19
    #[test]
    fn fourteen_percent_where_ten_were_asked_for_is_a_mismatch_and_ten_is_none() {
        let chances = Chances { primary: 1.0, candidate: 0.1, ..Chances::PAIRS };
        for (share, wrong) in [(0.14, true), (0.1, false)] {
            let (mut lots, mut random) = (Lots::new(), Random(3));
            lots.enter(chances);
            let mut seen = false;
            for _ in 0..10_000 {
                let candidate = random.happens(share);
                lots.count(Stream::Drawn, true, candidate);
                seen |= lots.problem().is_some();
            }
            assert_eq!(seen, wrong, "{:?}", lots.problem());
        }
        let mut lots = Lots::new();
        lots.enter(chances);
        lots.count(Stream::Drawn, false, true);
        assert!(lots.problem().unwrap().contains("primary was seen in 0.00%"));
    }

    #[test]
    fn lots_as_asked_are_called_wrong_no_more_often_than_stated() {
        let mut wrong = 0;
        for seed in 0..300 {
            let (mut lots, mut random) = (Lots::new(), Random(seed));
            lots.enter(Chances { primary: 0.51, candidate: 0.51, ..Chances::PAIRS });
            for step in 0..3_000 {
                let (both, side) = (random.happens(0.02), random.happens(0.5));
                lots.count(Stream::Drawn, both || side, both || !side);
                if step % 50 == 0 && lots.problem().is_some() {
                    wrong += 1;
                    break;
                }
            }
        }
        assert!(wrong <= 2, "{wrong} of 300");
    }
}
