//! Conversations under way, and the share of callers that the candidate served when they began.

use crate::domain::{Share, Timestamp};

/// Conversations remembered of one attempt, at 24 bytes each.
const CONVERSATIONS_MAX: usize = 65_536;
/// Places in which one may stand.
const WAYS: usize = 8;
/// One that says nothing for so long is over, in seconds.
const IDLE_S_MAX: u32 = 60 * 60;
/// And one that lasts so long is taken for another: some keys never end.
const LIFE_S_MAX: u32 = 24 * 60 * 60;

/// A table like the cache of a processor: each conversation has a few places to stand in, and takes
/// that of one that is over, else of one that was seen once, else of the one that is silent longest.
/// So keys that come once and never again cannot push out those that do.
#[derive(Debug, Default)]
pub(super) struct Conversations(Vec<Option<Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    key: u64,
    began_s: u32,
    seen_s: u32,
    share: Share,
    turns: Turns,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turns {
    One,
    More,
}

impl Conversations {
    /// A turn under this share; the least one that it has been seen under.
    pub(super) fn see(&mut self, key: u64, share: Share, now: Timestamp) -> Share {
        if self.0.is_empty() {
            self.0 = vec![None; CONVERSATIONS_MAX];
        }
        let now_s = u32::try_from(now.0 / 1_000).unwrap_or(u32::MAX);
        let sets = u64::try_from(CONVERSATIONS_MAX / WAYS).unwrap_or(1);
        let at = usize::try_from(key % sets).unwrap_or(0) * WAYS;
        let Some(ways) = self.0.get_mut(at..at + WAYS) else { return share };
        let fresh = Known { key, began_s: now_s, seen_s: now_s, share, turns: Turns::One };
        let lives = |it: &Known| it.lives(now_s);
        if let Some(known) = ways.iter_mut().flatten().find(|it| it.key == key) {
            *known = if lives(known) { known.next(share, now_s) } else { fresh };
            return known.share;
        }
        let worth = |it: &&mut Option<Known>| it.filter(lives).map(|it| (it.turns, it.seen_s));
        if let Some(least) = ways.iter_mut().min_by_key(worth) {
            *least = Some(fresh);
        }
        share
    }
}

impl Known {
    fn lives(&self, now_s: u32) -> bool {
        now_s.saturating_sub(self.seen_s) < IDLE_S_MAX
            && now_s.saturating_sub(self.began_s) < LIFE_S_MAX
    }

    fn next(self, share: Share, now_s: u32) -> Self {
        Self { seen_s: now_s, share: self.share.min(share), turns: Turns::More, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 60 * 60 * 1_000;

    fn share(percent: u16) -> Share {
        Share::from_basis_points(percent * 100).unwrap()
    }

    #[test]
    fn a_conversation_keeps_the_least_share_it_was_seen_under_until_it_is_over() {
        let mut all = Conversations::default();
        let mut see = |percent, now_ms| all.see(7, share(percent), Timestamp(now_ms));
        assert_eq!(see(5, HOUR_MS), share(5));
        assert_eq!(see(20, 2 * HOUR_MS - 1_000), share(5));
        assert_eq!(see(1, 2 * HOUR_MS), share(1), "a flag lowers it");
        assert_eq!(see(20, 2 * HOUR_MS), share(1));
        assert_eq!(see(20, 3 * HOUR_MS), share(20), "it was silent for an hour");
        for half_hours in 1..48 {
            let now_ms = 3 * HOUR_MS + half_hours * HOUR_MS / 2;
            assert_eq!(see(100, now_ms), share(20), "{half_hours}");
        }
        assert_eq!(see(100, 27 * HOUR_MS), share(100), "no key lasts for ever");
    }

    #[test]
    fn keys_that_come_once_push_out_no_conversation_and_take_no_more_room() {
        let mut all = Conversations::default();
        let talks: Vec<u64> = (0..1_000).collect();
        for turn in 0..2 {
            for key in &talks {
                all.see(*key, share(5), Timestamp(HOUR_MS + turn));
            }
        }
        for once in 0..1_000_000 {
            all.see(1_000_000 + once, share(5), Timestamp(HOUR_MS + 1_000));
        }
        assert_eq!(all.0.len(), CONVERSATIONS_MAX);
        assert!(size_of::<Option<Known>>() <= 24);
        for key in talks {
            assert_eq!(all.see(key, share(50), Timestamp(HOUR_MS + 2_000)), share(5), "{key}");
        }
    }
}
