//! Pairs: records in the index, bodies in segments, both bounded by size and age.

use std::{
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    block,
    bodies::Bodies,
    entry::Packer,
    files, frame,
    index::Index,
    json::shortened,
    pair,
    pairs_error::{PairsError, to},
    rebuild,
    segments::{self, Place, Segments},
};
use crate::domain::{Name, Pair, PairId, Score, Timestamp};

/// Longest that what was counted of a day is kept, in milliseconds.
const USAGE_AGE_MS_MAX: u64 = 31 * DAY_MS;
const DAY_MS: u64 = 86_400_000;

/// Most pairs [`Pairs::list`] answers at once.
pub const PAGE_LEN_MAX: usize = 1_000;

/// The pairs of a folder. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Pairs(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    limits: Limits,
    index: Index,
    segments: Mutex<Segments>,
    packer: Packer,
    counters: Counters,
    #[expect(dead_code, reason = "the lock ends with it")]
    lock: File,
}

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of segments and index; the oldest segments go first.
    pub bytes_max: u64,
    /// Age in milliseconds, to the hour.
    pub age_ms_max: u64,
    /// Bytes that stay free on the disk; below, nothing is stored.
    pub free_bytes_min: u64,
    /// Pairs and scores that may wait to be written.
    pub queue_len_max: usize,
}

/// Which pairs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Of this rollout only.
    pub rollout: Option<Name>,
    /// Older than this one: the last pair of the page before.
    pub before: Option<PairId>,
    /// So many at most; more than [`PAGE_LEN_MAX`] are never given.
    pub len_max: usize,
}

/// What the store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounters {
    /// Pairs stored.
    pub pairs: u64,
    /// Scores stored.
    pub scores: u64,
    /// Notes stored.
    pub notes: u64,
    /// Pairs dropped because the queue was full.
    pub dropped: u64,
    /// Pairs and scores lost because the disk or the index refused.
    pub failed: u64,
    /// Records passed over because they could not be read.
    pub unreadable: u64,
    /// Bytes on disk now: segments and index.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    pairs: AtomicU64,
    scores: AtomicU64,
    notes: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
    unreadable: AtomicU64,
    segment_bytes: AtomicU64,
    index_bytes: AtomicU64,
}

/// What a sweep took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Segments unlinked.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Pairs {
    /// Opens the pairs of a folder, which is made when it is missing.
    ///
    /// What the index does not know yet of the segments is added to it. An index that cannot
    /// be opened is moved aside, to `sled.broken`, and made anew from the segments.
    ///
    /// # Errors
    /// When another process has them or the disk refuses.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, PairsError> {
        files::make_dir(dir)?;
        let Some(lock) = files::lock(&dir.join("pairs.lock"))? else {
            return Err(PairsError::Locked(dir.to_owned()));
        };
        let segments = Segments::open(&segments_dir(dir))?;
        let index = rebuild::open_index(dir)?;
        rebuild::catch_up(&index, &segments, &segments_dir(dir))?;
        let counters = Counters::default();
        counters.segment_bytes.store(segments.bytes(), Relaxed);
        let index_bytes = index.bytes().map_err(to("be measured"))?;
        counters.index_bytes.store(index_bytes, Relaxed);
        let packer = Packer::default();
        let (dir, segments) = (dir.to_owned(), Mutex::new(segments));
        Ok(Self(Arc::new(Shared { dir, limits, index, segments, packer, counters, lock })))
    }

    /// Stores pairs with their bodies.
    ///
    /// # Errors
    /// When the disk or the index refuses, or the disk is too full. All of them are counted, though
    /// some may be found.
    pub fn put_batch(&self, batch: &[(Pair, Bodies)]) -> Result<(), PairsError> {
        let result = self.try_put_batch(batch);
        self.count(&self.0.counters.pairs, batch.len(), result)
    }

    /// Stores a score. A later one by the same source takes its place.
    ///
    /// # Errors
    /// When the disk or the index refuses, or the disk is too full. It is counted.
    pub fn put_score(&self, score: &Score) -> Result<(), PairsError> {
        let result = self.try_put_score(score);
        self.count(&self.0.counters.scores, 1, result)
    }

    /// Hands everything stored to the disk; what came before survives a power loss.
    ///
    /// # Errors
    /// When the disk or the index refuses.
    pub fn flush(&self) -> Result<(), PairsError> {
        // Segments first: the index must not outlive what it points to.
        let synced = self.segments().sync();
        self.0.index.flush().map_err(to("be flushed"))?;
        Ok(synced?)
    }

    /// Takes away what is too old or too much, oldest segments first, never the current one.
    ///
    /// # Errors
    /// When the disk or the index refuses; the next sweep goes on from there. An index that
    /// refuses does not keep the disk from being freed.
    pub fn sweep(&self, now: Timestamp) -> Result<Swept, PairsError> {
        let index_bytes = self.0.index.bytes().map_err(to("be measured"))?;
        self.0.counters.index_bytes.store(index_bytes, Relaxed);
        let sealed = self.segments().seal_if_past(now);
        let (mut swept, mut unindexed) = (Swept::default(), Ok(()));
        while let Some((name, len, before)) = self.surplus(now, index_bytes) {
            // The index first: a crash between the two leaves a file, which the next sweep
            // finds, and no rows without a file.
            unindexed = unindexed.and(self.unindex(name, before));
            self.segments().remove(name)?;
            swept.segments += 1;
            swept.bytes += len;
        }
        self.count_bytes(&self.segments());
        sealed?;
        let first = now.0.saturating_sub(self.0.limits.age_ms_max.min(USAGE_AGE_MS_MAX)) / DAY_MS;
        let forgotten = self.0.index.forget_usage(first).map_err(to("forget what was counted"));
        unindexed.and(forgotten).map(|()| swept)
    }

    /// What was done since opening, and the bytes on disk. Does not block.
    pub fn counters(&self) -> StoreCounters {
        let counters = &self.0.counters;
        StoreCounters {
            pairs: counters.pairs.load(Relaxed),
            scores: counters.scores.load(Relaxed),
            notes: counters.notes.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            unreadable: counters.unreadable.load(Relaxed),
            bytes: counters.segment_bytes.load(Relaxed) + counters.index_bytes.load(Relaxed),
        }
    }

    /// Keeps a small named value, such as the day's count of copies. It is on disk within a
    /// second, and lost when the index has to be rebuilt.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn keep(&self, key: &str, value: &[u8]) -> Result<(), PairsError> {
        self.0.index.keep(key, value).map_err(to("keep a value"))
    }

    /// Removes what is kept under a name. Blocks.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn unkeep(&self, key: &str) -> Result<(), PairsError> {
        self.0.index.unkeep(key).map_err(to("remove a value"))
    }

    /// The value of that name; none too when the index refuses, which is logged.
    pub fn kept(&self, key: &str) -> Option<Vec<u8>> {
        self.0.index.kept(key).unwrap_or_else(|error| {
            tracing::warn!(key, %error, "a kept value cannot be read");
            None
        })
    }

    /// How much may be kept.
    pub(super) fn limits(&self) -> Limits {
        self.0.limits
    }

    /// Counts a pair that found no place in the queue.
    pub(super) fn count_dropped(&self) {
        self.0.counters.dropped.fetch_add(1, Relaxed);
    }

    fn try_put_batch(&self, batch: &[(Pair, Bodies)]) -> Result<(), PairsError> {
        let times = || batch.iter().map(|(pair, _)| pair.at);
        let (Some(oldest), Some(newest)) = (times().min(), times().max()) else {
            return Ok(());
        };
        self.refuse_when_full()?;
        let mut frames = Vec::new();
        let mut rows = Vec::new();
        for block in block::cut(batch) {
            let Some((first, _)) = block.first() else { continue };
            let record = |(pair, bodies): &&(Pair, Bodies)| {
                (pair.id, pair::encode(pair), bodies.clone().cut())
            };
            let records: Vec<_> = block.iter().map(record).collect();
            let begin = frames.len();
            push(&mut frames, first.id, self.0.packer.block(&records))?;
            let ids: Vec<PairId> = records.iter().map(|(id, ..)| *id).collect();
            rows.push((&first.window, ids, number(begin), len_u32(&frames[begin..])));
        }
        let mut segments = self.segments();
        let (segment, begin) = segments.append(&(oldest..=newest), &frames)?;
        for (window, ids, offset, len) in rows {
            let place = Place { segment, offset: begin + offset, len };
            self.0.index.put_block(window, &ids, place).map_err(to("store pairs"))?;
        }
        self.indexed(&segments, segment, begin + number(frames.len()))
    }

    fn try_put_score(&self, score: &Score) -> Result<(), PairsError> {
        self.refuse_when_full()?;
        let mut frames = Vec::new();
        push(&mut frames, score.pair, self.0.packer.score(score))?;
        let mut segments = self.segments();
        let (segment, begin) = segments.append(&(score.at..=score.at), &frames)?;
        put_score(&self.0.index, score)?;
        self.indexed(&segments, segment, begin + number(frames.len()))
    }

    /// The lock on the segments shows that nobody has added to them in between.
    fn indexed(
        &self,
        segments: &MutexGuard<'_, Segments>,
        segment: u64,
        len: u64,
    ) -> Result<(), PairsError> {
        self.count_bytes(segments);
        self.0.index.set_indexed(segment, len).map_err(to("store pairs"))
    }

    /// Removes the rows of a segment: those of pairs before that time.
    fn unindex(&self, segment: u64, before: Timestamp) -> Result<(), PairsError> {
        let removed = self.0.index.remove_before(before);
        removed.and_then(|()| self.0.index.forget(segment)).map_err(to("remove pairs"))
    }

    /// The oldest segment, if it is too old or all are too much.
    fn surplus(&self, now: Timestamp, index_bytes: u64) -> Option<(u64, u64, Timestamp)> {
        let segments = self.segments();
        let oldest = segments.oldest()?;
        let limits = self.0.limits;
        let old = segments::hour_end(oldest.0).saturating_add(limits.age_ms_max) <= now.0;
        let much = limits.bytes_max < segments.bytes() + index_bytes;
        (old || much).then_some(oldest)
    }

    /// The index, for those who read it in other ways.
    pub(super) fn index(&self) -> &Index {
        &self.0.index
    }

    fn refuse_when_full(&self) -> Result<(), PairsError> {
        let (free, min) = (files::free_bytes(&self.0.dir)?, self.0.limits.free_bytes_min);
        if free < min {
            return Err(PairsError::DiskFull { free, min });
        }
        Ok(())
    }

    fn count(
        &self,
        stored: &AtomicU64,
        len: usize,
        result: Result<(), PairsError>,
    ) -> Result<(), PairsError> {
        let counter = if result.is_ok() { stored } else { &self.0.counters.failed };
        counter.fetch_add(number(len), Relaxed);
        result
    }

    fn count_bytes(&self, segments: &Segments) {
        self.0.counters.segment_bytes.store(segments.bytes(), Relaxed);
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.0.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pairs").field(&self.0.dir).finish()
    }
}

/// Puts a score into the index.
pub(super) fn put_score(index: &Index, score: &Score) -> Result<(), PairsError> {
    let source = shortened(&score.source, pair::TEXT_LEN_MAX);
    let record = pair::encode_score(score);
    index.put_score(score.pair, &source, &record).map_err(to("store a score"))
}

fn push(
    frames: &mut Vec<u8>,
    id: PairId,
    payload: std::io::Result<Vec<u8>>,
) -> Result<(), PairsError> {
    let pushed = payload.is_ok_and(|it| frame::push(frames, &it).is_ok());
    if pushed { Ok(()) } else { Err(PairsError::Pack { id }) }
}

pub(super) fn segments_dir(dir: &Path) -> PathBuf {
    dir.join("segments")
}

/// A length in memory as one on disk; both have 64 bits.
pub(super) fn number(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn len_u32(frame: &[u8]) -> u32 {
    u32::try_from(frame.len()).unwrap_or(u32::MAX)
}

#[path = "pairs_list.rs"]
mod list;

#[path = "pairs_notes.rs"]
mod notes;

#[path = "pairs_reviews.rs"]
mod reviews;
pub(super) use reviews::put_review;

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod tests;
