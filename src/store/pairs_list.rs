//! Pairs read again: one, or many in the order of their ids.

use std::sync::atomic::Ordering::Relaxed;

use super::{PAGE_LEN_MAX, Pairs, PairsError, Query, pair, segments_dir, to};
use crate::domain::{Name, Pair, PairId, Score, Window};
use crate::store::{
    block::Block,
    bodies::Bodies,
    entry::{self, Entry},
    frame,
    segments::{self, Place},
};

impl Pairs {
    /// A pair and its scores, oldest first.
    ///
    /// # Errors
    /// When the index or the disk refuses, or a record is not what was written.
    pub fn get(&self, id: PairId) -> Result<Option<(Pair, Vec<Score>)>, PairsError> {
        let Some(place) = self.0.index.place(id).map_err(to("read a pair"))? else {
            return Ok(None);
        };
        let block = self.frame(place)?.map(|it| self.block(place, &it)).transpose()?;
        let Some(pair) = block.and_then(|it| it.pair(id)) else { return Ok(None) };
        let pair = pair.map_err(|error| PairsError::Record { id, error })?;
        Ok(Some((pair, self.scores(id)?)))
    }

    /// The bodies of a pair; none when there is no such pair any more.
    ///
    /// # Errors
    /// When the disk refuses, or the bodies are not what was written.
    pub fn bodies(&self, id: PairId) -> Result<Option<Bodies>, PairsError> {
        let Some(place) = self.0.index.place(id).map_err(to("read a pair"))? else {
            return Ok(None);
        };
        let Some(bytes) = self.frame(place)? else { return Ok(None) };
        let bodies = frame::payload(&bytes, 0).and_then(|it| entry::bodies(it, id).ok()).flatten();
        bodies.ok_or_else(|| self.damaged(place)).map(Some)
    }

    /// Pairs, newest first. Those of one rollout come by attempt and stage, the last first.
    ///
    /// # Errors
    /// When the index or the disk refuses. What cannot be read is passed over and counted.
    pub fn list(&self, query: &Query) -> Result<Vec<Pair>, PairsError> {
        let len_max = query.len_max.min(PAGE_LEN_MAX);
        if let Some(rollout) = &query.rollout {
            return self.list_of(rollout, query.before, len_max);
        }
        let comes = |it: &Pair| query.before.is_none_or(|before| it.id < before);
        self.page(self.0.index.newest(query.before), comes, len_max)
    }

    fn list_of(
        &self,
        rollout: &Name,
        before: Option<PairId>,
        len_max: usize,
    ) -> Result<Vec<Pair>, PairsError> {
        let last = match before {
            Some(id) => self.get(id)?.map(|it| it.0).filter(|it| it.window.rollout == *rollout),
            None => None,
        };
        let index = &self.0.index;
        match (last, before) {
            (Some(last), _) => {
                let blocks = index.newest_of(rollout, Some((&last.window, last.id)));
                let comes = |it: &Pair| it.window != last.window || it.id < last.id;
                self.page(blocks, comes, len_max)
            }
            // A last pair that is no longer there is made up for by comparing ids.
            (None, Some(before)) => {
                let blocks = index.older_of(rollout, before).map_err(to("list pairs"))?;
                self.page(blocks, |it| it.id < before, len_max)
            }
            (None, None) => self.page(index.newest_of(rollout, None), |_| true, len_max),
        }
    }

    /// So many pairs of some blocks that come, those of a second at a time and newest first.
    pub(in crate::store) fn page(
        &self,
        blocks: impl Iterator<Item = sled::Result<Vec<Place>>>,
        comes: impl Fn(&Pair) -> bool,
        len_max: usize,
    ) -> Result<Vec<Pair>, PairsError> {
        let mut pairs = Vec::new();
        for places in blocks {
            if len_max <= pairs.len() {
                break;
            }
            let second = self.read(&places.map_err(to("list pairs"))?)?;
            pairs.extend(second.into_iter().rev().filter(&comes));
        }
        pairs.truncate(len_max);
        Ok(pairs)
    }

    /// Every pair of a window, oldest first.
    ///
    /// # Errors
    /// When the index or the disk refuses. What cannot be read is passed over and counted.
    pub(in crate::store) fn each_of(
        &self,
        window: &Window,
        each: &mut dyn FnMut(Pair) -> Result<(), PairsError>,
    ) -> Result<(), PairsError> {
        for places in self.0.index.of_window(window) {
            let second = self.read(&places.map_err(to("list pairs"))?)?;
            second.into_iter().try_for_each(&mut *each)?;
        }
        Ok(())
    }

    /// The scores of a pair, oldest first.
    ///
    /// # Errors
    /// When the index refuses. A record that cannot be read is passed over and counted.
    pub fn scores(&self, id: PairId) -> Result<Vec<Score>, PairsError> {
        let mut scores = Vec::new();
        for record in self.0.index.scores(id) {
            let record = record.map_err(to("read scores"))?;
            match pair::decode_score(id, &record) {
                Ok(score) => scores.push(score),
                Err(_) => self.count_unreadable(),
            }
        }
        scores.sort_by_key(|it| it.at);
        Ok(scores)
    }

    /// The pairs of some blocks, by their ids.
    fn read(&self, places: &[Place]) -> Result<Vec<Pair>, PairsError> {
        let mut pairs = Vec::new();
        for place in places {
            // None is left of a segment that was taken away meanwhile.
            let Some(bytes) = self.frame(*place)? else { continue };
            let Ok(block) = self.block(*place, &bytes) else {
                self.count_unreadable();
                continue;
            };
            for pair in block.pairs() {
                match pair {
                    Ok(pair) => pairs.push(pair),
                    Err(_) => self.count_unreadable(),
                }
            }
        }
        pairs.sort_by_key(|it| it.id);
        Ok(pairs)
    }

    fn frame(&self, place: Place) -> Result<Option<Vec<u8>>, PairsError> {
        Ok(segments::read(&segments_dir(&self.0.dir), place)?)
    }

    fn block(&self, place: Place, bytes: &[u8]) -> Result<Block, PairsError> {
        let entry = frame::payload(bytes, 0).and_then(|it| entry::decode(it).ok());
        match entry {
            Some(Entry::Block(block)) => Ok(block),
            Some(Entry::Score(_) | Entry::Notes(_) | Entry::Review(_)) | None => {
                Err(self.damaged(place))
            }
        }
    }

    fn damaged(&self, place: Place) -> PairsError {
        let path = segments::path(&segments_dir(&self.0.dir), place.segment);
        PairsError::Damaged { path, offset: place.offset }
    }

    /// Counts what cannot be read.
    pub(in crate::store) fn count_unreadable(&self) {
        self.0.counters.unreadable.fetch_add(1, Relaxed);
    }
}
