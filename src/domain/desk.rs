//! The desk of a rollout's reviewers: what was drawn, who has it, what they said.

use std::collections::BTreeMap;

use super::{Choice, Counted, Lease, Order, PairId, Preferred, Review, Timestamp, Window};

/// Pairs that wait for a reviewer; of more, the oldest are let go.
const WAITING_LEN_MAX: usize = 1_000;

/// Everything that was drawn of a rollout's pairs.
///
/// It is changed by whole reviews, which whoever holds it has written to disk before.
#[derive(Debug, Default)]
pub struct Desk {
    /// Those that were shown to somebody, and those that wait.
    reviews: BTreeMap<PairId, Review>,
    /// How many of them were never shown.
    waiting: usize,
}

/// Why an answer is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It is evidence already, or its time is over.
    Final,
    /// The same reviewer has answered another one since.
    Passed,
}

/// How far the reviews of a rollout have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pairs that somebody has answered.
    pub reviewed: u64,
    /// Pairs of the window that wait for this reviewer.
    pub waiting: u64,
    /// Pairs that somebody has in hands.
    pub leased: u64,
    /// Who wins by the first reviewer, and by the second of the same pair: rows and columns are
    /// primary, neither, candidate.
    pub second: [[u64; 3]; 3],
}

impl Desk {
    /// A desk with what was shown before.
    pub fn new(shown: impl IntoIterator<Item = Review>) -> Self {
        let reviews = shown.into_iter().map(|it| (it.pair, it)).collect();
        Self { reviews, waiting: 0 }
    }

    /// Whether the pair was drawn.
    pub fn has(&self, pair: PairId) -> bool {
        self.reviews.contains_key(&pair)
    }

    /// The oldest that waits, where an older one would find no room.
    pub fn full_from(&self) -> Option<PairId> {
        let mut waiting = self.reviews.values().filter(|it| it.leases.is_empty());
        waiting.next().filter(|_| WAITING_LEN_MAX <= self.waiting).map(|it| it.pair)
    }

    /// Puts a pair that is drawn where it waits.
    pub fn draw(&mut self, review: Review) {
        self.reviews.insert(review.pair, review);
        self.waiting += 1;
        if WAITING_LEN_MAX < self.waiting {
            let oldest = self.reviews.values().find(|it| it.leases.is_empty()).map(|it| it.pair);
            if let Some(oldest) = oldest {
                self.forget(oldest);
            }
        }
    }

    /// Forgets a pair that was shown to nobody. What somebody may have said of one stays.
    pub fn forget(&mut self, pair: PairId) {
        if self.reviews.get(&pair).is_some_and(|it| it.leases.is_empty()) {
            self.reviews.remove(&pair);
            self.waiting -= 1;
        }
    }

    /// Takes a review as it is now.
    pub fn put(&mut self, review: Review) {
        let before = self.reviews.insert(review.pair, review);
        self.waiting -= usize::from(before.is_some_and(|it| it.leases.is_empty()));
    }

    /// What a reviewer has in hands.
    pub fn held(&self, reviewer: &str, now: Timestamp) -> Option<(&Review, &Lease)> {
        let theirs = |it: &&Lease| it.reviewer == reviewer && it.said.is_none() && now < it.until;
        self.reviews.values().find_map(|it| Some((it, it.leases.iter().find(theirs)?)))
    }

    /// The pairs of the window, asked since then, that a reviewer is to be shown: oldest first.
    pub fn waiting_for<'a>(
        &'a self,
        reviewer: &'a str,
        (window, since): (&'a Window, Timestamp),
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Review> {
        self.of(window, since).filter(move |it| it.waits_for(reviewer, now))
    }

    fn of<'a>(&'a self, window: &'a Window, since: Timestamp) -> impl Iterator<Item = &'a Review> {
        self.reviews.values().filter(move |it| it.window == *window && since <= it.pair.at())
    }

    /// A lease by its id.
    pub fn find(&self, lease: u128) -> Option<(&Review, &Lease)> {
        let of = |it: &&Lease| it.id == lease;
        self.reviews.values().find_map(|it| Some((it, it.leases.iter().find(of)?)))
    }

    /// The review with what a reviewer says of it; as it is when that was said before.
    ///
    /// # Errors
    /// When something else was said before, and cannot be changed any more.
    pub fn said(
        &self,
        lease: u128,
        (choice, comment): (Choice, &str),
        now: Timestamp,
    ) -> Option<Result<Review, Late>> {
        let (review, own) = self.find(lease)?;
        let mut review = review.clone();
        if own.said.is_some_and(|it| it.0 == choice) && own.comment == comment {
            return Some(Ok(review));
        }
        if let Some((_, at)) = own.said {
            let counted = review.counted.is_some_and(|it| it.lease == lease);
            if counted || own.until <= now {
                return Some(Err(Late::Final));
            }
            if at < self.last(&own.reviewer) {
                return Some(Err(Late::Passed));
            }
        }
        // Of two answers of one moment the later is the later one all the same.
        let said_at = Timestamp(now.0.max(self.last(&own.reviewer).0 + 1));
        for it in review.leases.iter_mut().filter(|it| it.id == lease) {
            it.said = Some((choice, said_at));
            comment.clone_into(&mut it.comment);
        }
        Some(Ok(review))
    }

    /// When a reviewer last answered.
    fn last(&self, reviewer: &str) -> Timestamp {
        let theirs = self.leases().filter(|it| it.reviewer == reviewer);
        theirs.filter_map(|it| it.said).map(|it| it.1).max().unwrap_or_default()
    }

    fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.reviews.values().flat_map(|it| &it.leases)
    }

    /// The reviews that are to be evidence now: what was said first of them can be changed no
    /// more. Their place is still to be given.
    pub fn due(&self, now: Timestamp) -> Vec<Review> {
        let mut last: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for (lease, at) in self.leases().filter_map(|it| Some((it, it.said?.1))) {
            let known = last.entry(&lease.reviewer).or_default();
            *known = at.max(*known);
        }
        let stands = |it: &Lease| {
            let passed = it.said.is_some_and(|(_, at)| last.get(&*it.reviewer) > Some(&at));
            passed || it.until <= now
        };
        let open = self.reviews.values().filter(|it| it.counted.is_none());
        let due = open.filter_map(|it| {
            let (lease, _) = it.answered().next().filter(|(lease, _)| stands(lease))?;
            let counted = Counted { lease: lease.id, order: Order::FIRST };
            Some(Review { counted: Some(counted), ..it.clone() })
        });
        due.collect()
    }

    /// Who won by the first reviewer of each pair that was answered, newest first.
    pub fn winners(&self) -> impl Iterator<Item = (&Review, Preferred)> {
        let reviews = self.reviews.values().rev();
        reviews.filter_map(|it| Some((it, it.answered().next()?.1)))
    }

    /// How far it has come, for this reviewer in this window.
    pub fn progress(
        &self,
        reviewer: &str,
        window: Option<(&Window, Timestamp)>,
        now: Timestamp,
    ) -> Progress {
        let mut progress = Progress::default();
        for review in self.reviews.values() {
            let mut said = review.answered().map(|it| it.1);
            let (first, second) = (said.next(), said.next());
            progress.reviewed += u64::from(first.is_some());
            if let (Some(first), Some(second)) = (first, second) {
                progress.second[first.place()][second.place()] += 1;
            }
            let held = review.leases.iter().any(|it| it.said.is_none() && now < it.until);
            progress.leased += u64::from(held);
        }
        let waits = window.map_or(0, |within| self.waiting_for(reviewer, within, now).count());
        Progress { waiting: u64::try_from(waits).unwrap_or(u64::MAX), ..progress }
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
