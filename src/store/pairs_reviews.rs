//! Reviews put into the store and read again. They wait for the disk: a person has given their time.

use super::{Index, Pairs, PairsError, number, push, to};
use crate::domain::{Name, Pair, PairId, Review, Timestamp, Window};
use crate::store::review;

impl Pairs {
    /// Stores a review, in the place of what was kept of its pair. It is on disk when this returns.
    ///
    /// # Errors
    /// When the disk or the index refuses, or the disk is too full.
    pub fn put_review(&self, review: &Review, now: Timestamp) -> Result<(), PairsError> {
        self.refuse_when_full()?;
        let mut frames = Vec::new();
        push(&mut frames, review.pair, self.0.packer.review(review))?;
        let mut segments = self.segments();
        let (segment, begin) = segments.append(&(now..=now), &frames)?;
        put_review(&self.0.index, review)?;
        self.indexed(&segments, segment, begin + number(frames.len()))?;
        // The segment alone is enough to find it again.
        Ok(segments.sync()?)
    }

    /// What was shown to people of a rollout's pairs, by attempt, stage and age.
    ///
    /// # Errors
    /// When the index refuses. A record that cannot be read is passed over and counted.
    pub fn reviews(&self, rollout: &Name) -> Result<Vec<Review>, PairsError> {
        self.read_reviews(rollout, None)
    }

    /// What was shown of a pair, if it was.
    ///
    /// # Errors
    /// When the index refuses. A record that cannot be read is passed over and counted.
    pub fn review(&self, pair: &Pair) -> Result<Option<Review>, PairsError> {
        let record = self.0.index.review(&pair.window, pair.id).map_err(to("read a review"))?;
        let review = record.map(|it| review::decode(pair.id, &it));
        if let Some(Err(_)) = review {
            self.count_unreadable();
        }
        Ok(review.and_then(Result::ok))
    }

    /// The same of one window.
    pub(in crate::store) fn reviews_of(&self, window: &Window) -> Result<Vec<Review>, PairsError> {
        self.read_reviews(&window.rollout, Some(window))
    }

    /// Pairs of a window, newest first: those before one of them, so many at most.
    ///
    /// # Errors
    /// When the index or the disk refuses. What cannot be read is passed over and counted.
    pub fn newest_in(
        &self,
        window: &Window,
        before: Option<PairId>,
        len_max: usize,
    ) -> Result<Vec<Pair>, PairsError> {
        let before = before.unwrap_or(PairId(u128::MAX));
        let blocks = self.0.index.newest_of(&window.rollout, Some((window, before)));
        let mut pairs = self.page(blocks, |it| it.window != *window || it.id < before, len_max)?;
        // Behind them are those of earlier windows.
        pairs.retain(|it| it.window == *window);
        Ok(pairs)
    }

    fn read_reviews(
        &self,
        rollout: &Name,
        window: Option<&Window>,
    ) -> Result<Vec<Review>, PairsError> {
        let mut reviews = Vec::new();
        for row in self.0.index.reviews(rollout, window) {
            let (id, record) = row.map_err(to("read reviews"))?;
            match review::decode(id, &record) {
                Ok(review) => reviews.push(review),
                Err(_) => self.count_unreadable(),
            }
        }
        Ok(reviews)
    }
}

/// Puts a review into the index.
pub(in crate::store) fn put_review(index: &Index, review: &Review) -> Result<(), PairsError> {
    let record = review::encode(review);
    index.put_review((&review.window, review.pair), &record).map_err(to("store a review"))
}
