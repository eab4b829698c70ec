//! The index: where things are in the segments, in sled. Pairs are kept in blocks, and a row costs
//! more than a pair, so there is one of each kind for a block.
//!
//! | tree       | key                                                  | value                 |
//! |------------|------------------------------------------------------|-----------------------|
//! | `blocks`   | first id, which sorts by time                        | place, all ids        |
//! | `windows`  | rollout, 0, attempt, stage, first id                 | place                 |
//! | `scores`   | id, source                                           | record                |
//! | `reviews`  | rollout, 0, attempt, stage, id                       | record                |
//! | `notes`    | rollout, 0, attempt, stage, time, place              | frame payload         |
//! | `segments` | name                                                 | bytes of it indexed   |
//! | `kept`     | any                                                  | any                   |
//!
//! All numbers are big endian, so that keys sort as they should. Sled recovers a prefix of
//! what was written; `segments` is written last, so what it calls indexed is.

use std::{any::Any, io, iter, panic, path::Path, thread, time::Duration};

use sled::{Batch, Db, Tree};

use super::{
    block::{first_of, second},
    segments::Place,
};
use crate::domain::{Name, Order, PairId, Timestamp, Window};

const CACHE_BYTES: u64 = 64 << 20;
const FLUSH_EVERY_MS: u64 = 500;
/// How names begin under which is kept what was counted on a day.
const USAGE: &str = "usage/";
/// Records removed at once; each batch blocks writers for a moment.
const REMOVE_LEN_MAX: usize = 256;
/// Sled's own flusher may hold the lock of a closed index a moment longer.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(50);
const ID_LEN: usize = 16;
const PLACE_LEN: usize = 20;
/// Bytes of a time and a place at the end of a key of `notes`, as many as those of an id.
const ORDER_LEN: usize = ID_LEN;

/// An open index.
pub(super) struct Index {
    db: Db,
    blocks: Tree,
    windows: Tree,
    scores: Tree,
    notes: Tree,
    reviews: Tree,
    segments: Tree,
    kept: Tree,
}

/// Why an index does not open.
#[derive(Debug)]
pub(super) enum OpenFault {
    /// Its content makes no sense: rebuild it.
    Broken(String),
    /// The disk or another process is in the way: rebuilding would not help.
    Refused(sled::Error),
}

impl Index {
    /// Opens or makes the index of a folder.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenFault> {
        for _ in 1..LOCK_TRIES {
            match Self::try_open(dir) {
                Err(OpenFault::Refused(error)) if error.to_string().contains("lock") => {
                    thread::sleep(LOCK_WAIT);
                }
                opened @ (Ok(_) | Err(_)) => return opened,
            }
        }
        Self::try_open(dir)
    }

    /// Sled panics on some broken files where it should return an error.
    fn try_open(dir: &Path) -> Result<Self, OpenFault> {
        let opened = panic::catch_unwind(|| -> sled::Result<Self> {
            let config = sled::Config::new()
                .path(dir)
                .cache_capacity(CACHE_BYTES)
                .flush_every_ms(Some(FLUSH_EVERY_MS));
            let db = config.open()?;
            Ok(Self {
                blocks: db.open_tree("blocks")?,
                windows: db.open_tree("windows")?,
                scores: db.open_tree("scores")?,
                notes: db.open_tree("notes")?,
                reviews: db.open_tree("reviews")?,
                segments: db.open_tree("segments")?,
                kept: db.open_tree("kept")?,
                db,
            })
        });
        Ok(opened.map_err(|panic| OpenFault::Broken(text_of(&*panic)))??)
    }

    /// Whether an older program made it, which kept other rows of pairs.
    pub(super) fn is_old(&self) -> bool {
        self.db.tree_names().iter().any(|it| it == b"pairs")
    }

    /// Forgets where pairs are, and what of the segments is indexed; what only the index has stays.
    pub(super) fn renew(&self) -> sled::Result<()> {
        self.db.drop_tree("pairs")?;
        self.windows.clear()?;
        self.blocks.clear()?;
        self.segments.clear()
    }

    /// Adds a block of pairs of one window and one second, lowest id first. Not as a batch of sled's:
    /// that ends a buffer of its log early, and wakes all its threads for that.
    pub(super) fn put_block(
        &self,
        window: &Window,
        ids: &[PairId],
        place: Place,
    ) -> sled::Result<()> {
        let Some(first) = ids.first() else { return Ok(()) };
        let place = place.to_bytes();
        let ids = ids.iter().flat_map(|it| it.0.to_be_bytes());
        let value: Vec<u8> = place.into_iter().chain(ids).collect();
        self.blocks.insert(first.0.to_be_bytes(), value)?;
        self.windows.insert(window_key(window, *first), &place).map(drop)
    }

    /// Adds a score; one by the same source is replaced.
    pub(super) fn put_score(&self, id: PairId, source: &str, record: &[u8]) -> sled::Result<()> {
        let key = [&id.0.to_be_bytes()[..], source.as_bytes()].concat();
        self.scores.insert(key, record).map(drop)
    }

    /// Adds notes of a window; the first of them stands at this place.
    pub(super) fn put_notes(
        &self,
        window: &Window,
        first: Order,
        payload: &[u8],
    ) -> sled::Result<()> {
        self.notes.insert(notes_key(window, first), payload).map(drop)
    }

    /// The notes of a window, oldest first, and the time of the first of each batch.
    pub(super) fn notes(
        &self,
        window: &Window,
    ) -> impl Iterator<Item = sled::Result<(Timestamp, Vec<u8>)>> + use<> {
        self.notes.scan_prefix(stage_key(window)).map(|row| {
            let (key, payload) = row?;
            let order = key.last_chunk::<ORDER_LEN>().and_then(|it| it.first_chunk());
            let at = order.map_or(0, |it| u64::from_be_bytes(*it));
            Ok((Timestamp(at), payload.to_vec()))
        })
    }

    /// Adds a review; one of the same pair is replaced.
    pub(super) fn put_review(
        &self,
        (window, id): (&Window, PairId),
        record: &[u8],
    ) -> sled::Result<()> {
        self.reviews.insert(window_key(window, id), record).map(drop)
    }

    /// The review of a pair.
    pub(super) fn review(&self, window: &Window, id: PairId) -> sled::Result<Option<sled::IVec>> {
        self.reviews.get(window_key(window, id))
    }

    /// The reviews of a rollout, of one window or of all, by attempt, stage and id.
    pub(super) fn reviews(
        &self,
        rollout: &Name,
        window: Option<&Window>,
    ) -> impl Iterator<Item = sled::Result<(PairId, Vec<u8>)>> + use<> {
        let prefix = window.map_or_else(|| rollout_key(rollout), stage_key);
        self.reviews.scan_prefix(prefix).map(|row| {
            let (key, record) = row?;
            let id = key.last_chunk::<ID_LEN>().copied().unwrap_or_default();
            Ok((PairId(u128::from_be_bytes(id)), record.to_vec()))
        })
    }

    /// Where the block of a pair is.
    pub(super) fn place(&self, id: PairId) -> sled::Result<Option<Place>> {
        let second = first_of(second(id)).0.to_be_bytes();
        for row in self.blocks.range(second..=id.0.to_be_bytes()).rev() {
            let (_, value) = row?;
            if let Some((place, ids)) = split(&value)
                && ids.chunks_exact(ID_LEN).any(|it| it == id.0.to_be_bytes())
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The records of a pair's scores.
    pub(super) fn scores(&self, id: PairId) -> impl Iterator<Item = sled::Result<Vec<u8>>> {
        self.scores.scan_prefix(id.0.to_be_bytes()).values().map(|it| Ok(it?.to_vec()))
    }

    /// Blocks with pairs whose ids are below `before`, newest first, those of a second together.
    pub(super) fn newest(
        &self,
        before: Option<PairId>,
    ) -> impl Iterator<Item = sled::Result<Vec<Place>>> + use<> {
        let range = match before {
            Some(id) => self.blocks.range(..id.0.to_be_bytes()),
            None => self.blocks.iter(),
        };
        by_second(range.rev())
    }

    /// Blocks of a rollout with pairs before one of them, newest first, those of a stage's second
    /// together: the last attempt and stage come first.
    pub(super) fn newest_of(
        &self,
        rollout: &Name,
        before: Option<(&Window, PairId)>,
    ) -> impl Iterator<Item = sled::Result<Vec<Place>>> + use<> {
        let first = rollout_key(rollout);
        let end = match before {
            Some((window, id)) => window_key(window, id),
            // No attempt has this number, so this is behind them all.
            None => [&first[..], &[0xFF; 8 + ID_LEN]].concat(),
        };
        by_second(self.windows.range(first..end).rev())
    }

    /// The same with pairs whose ids are below one that is not there: what is newer is skipped,
    /// window by window, without a look at it.
    pub(super) fn older_of(
        &self,
        rollout: &Name,
        before: PairId,
    ) -> sled::Result<impl Iterator<Item = sled::Result<Vec<Place>>> + use<>> {
        let (first, id) = (rollout_key(rollout), before.0.to_be_bytes());
        let (mut end, mut rows) = ([&first[..], &[0xFF; 8 + ID_LEN]].concat(), Vec::new());
        while let Some(key) = self.windows.range(&first[..]..&end[..]).keys().next_back() {
            let key = key?;
            let window = key.get(..key.len().saturating_sub(ID_LEN)).unwrap_or_default();
            rows.push(self.windows.range(window..&[window, &id].concat()[..]).rev());
            end = window.to_vec();
        }
        Ok(by_second(rows.into_iter().flatten()))
    }

    /// Blocks of a window, oldest first, those of a second together.
    pub(super) fn of_window(
        &self,
        window: &Window,
    ) -> impl Iterator<Item = sled::Result<Vec<Place>>> + use<> {
        by_second(self.windows.scan_prefix(stage_key(window)))
    }

    /// Bytes of a segment that are indexed.
    pub(super) fn indexed(&self, segment: u64) -> sled::Result<u64> {
        let value = self.segments.get(segment.to_be_bytes())?;
        let number = value.as_deref().and_then(|it| it.first_chunk());
        Ok(number.map_or(0, |it| u64::from_be_bytes(*it)))
    }

    /// Remembers that a segment is indexed up to there. Call it after the rows themselves.
    pub(super) fn set_indexed(&self, segment: u64, len: u64) -> sled::Result<()> {
        self.segments.insert(segment.to_be_bytes(), &len.to_be_bytes()).map(drop)
    }

    /// Forgets a segment.
    pub(super) fn forget(&self, segment: u64) -> sled::Result<()> {
        self.segments.remove(segment.to_be_bytes()).map(drop)
    }

    /// Removes everything about pairs whose id is of an earlier time.
    pub(super) fn remove_before(&self, at: Timestamp) -> sled::Result<()> {
        let end = (u128::from(at.0) << 80).to_be_bytes();
        remove(&self.blocks, &[], &end)?;
        remove_of_windows(&self.windows, end)?;
        remove_of_windows(&self.reviews, end)?;
        let mut order = [0; ORDER_LEN];
        order[..8].copy_from_slice(&at.0.to_be_bytes());
        remove_of_windows(&self.notes, order)?;
        remove(&self.scores, &[], &end)
    }

    /// Keeps a named value.
    pub(super) fn keep(&self, key: &str, value: &[u8]) -> sled::Result<()> {
        self.kept.insert(key, value).map(drop)
    }

    /// Removes a named value, if it is there.
    pub(super) fn unkeep(&self, key: &str) -> sled::Result<()> {
        self.kept.remove(key).map(drop)
    }

    /// A named value.
    pub(super) fn kept(&self, key: &str) -> sled::Result<Option<Vec<u8>>> {
        Ok(self.kept.get(key)?.map(|it| it.to_vec()))
    }

    /// Forgets what was counted on days before one.
    pub(super) fn forget_usage(&self, first: u64) -> sled::Result<()> {
        for row in self.kept.scan_prefix(USAGE) {
            let (name, _) = row?;
            let day =
                std::str::from_utf8(&name).ok().and_then(|it| it.strip_prefix(USAGE)?.parse().ok());
            if day.is_some_and(|it: u64| it < first) {
                self.kept.remove(name)?;
            }
        }
        Ok(())
    }

    /// Hands everything to the disk.
    pub(super) fn flush(&self) -> sled::Result<()> {
        self.db.flush().map(drop)
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> sled::Result<u64> {
        self.db.size_on_disk()
    }
}

/// The name under which is kept what was counted on a day since 1970 (UTC).
pub fn usage_key(day: u64) -> String {
    format!("{USAGE}{day}")
}

impl From<sled::Error> for OpenFault {
    fn from(error: sled::Error) -> Self {
        match &error {
            sled::Error::Io(cause) => match cause.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::NotADirectory => Self::Broken(error.to_string()),
                _ => Self::Refused(error),
            },
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => Self::Broken(error.to_string()),
        }
    }
}

impl Place {
    fn to_bytes(self) -> [u8; PLACE_LEN] {
        let mut bytes = [0; PLACE_LEN];
        bytes[..8].copy_from_slice(&self.segment.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_be_bytes());
        bytes[16..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }
}

/// A place, and what follows it.
fn split(value: &[u8]) -> Option<(Place, &[u8])> {
    let (segment, rest) = value.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let place = Place {
        segment: u64::from_be_bytes(*segment),
        offset: u64::from_be_bytes(*offset),
        len: u32::from_be_bytes(*len),
    };
    Some((place, rest))
}

/// The places of rows whose keys end with an id; those of one second and window together.
fn by_second(
    rows: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
) -> impl Iterator<Item = sled::Result<Vec<Place>>> {
    let of = |row: &(sled::IVec, sled::IVec)| {
        let (window, id) = row.0.split_last_chunk::<ID_LEN>()?;
        Some((window.to_vec(), second(PairId(u128::from_be_bytes(*id)))))
    };
    let mut rows = rows.peekable();
    iter::from_fn(move || {
        let first = match rows.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let mut places: Vec<Place> = split(&first.1).map(|it| it.0).into_iter().collect();
        let together = |next: &sled::Result<_>| next.as_ref().is_ok_and(|it| of(it) == of(&first));
        while let Some(Ok((_, value))) = rows.next_if(together) {
            places.extend(split(&value).map(|it| it.0));
        }
        Some(Ok(places))
    })
}

/// Removes rows from a key on, up to an end.
fn remove(tree: &Tree, from: &[u8], end: &[u8]) -> sled::Result<()> {
    loop {
        let mut batch = Batch::default();
        let mut removed = 0;
        for key in tree.range(from..end).keys().take(REMOVE_LEN_MAX) {
            batch.remove(key?);
            removed += 1;
        }
        if removed == 0 {
            return Ok(());
        }
        tree.apply_batch(batch)?;
    }
}

/// Removes the rows of each window up to what their keys end with. Window by window: keys sort by
/// time only inside one.
fn remove_of_windows(tree: &Tree, end: [u8; ORDER_LEN]) -> sled::Result<()> {
    let mut from = Vec::new();
    while let Some(row) = tree.range(from..).keys().next() {
        let key = row?;
        let window = key.get(..key.len().saturating_sub(ORDER_LEN)).unwrap_or_default();
        remove(tree, window, &[window, &end].concat())?;
        from = [window, &[0xFF; ORDER_LEN]].concat();
    }
    Ok(())
}

fn rollout_key(rollout: &Name) -> Vec<u8> {
    [rollout.as_str().as_bytes(), &[0]].concat()
}

fn stage_key(window: &Window) -> Vec<u8> {
    let (attempt, stage) = (window.attempt.to_be_bytes(), window.stage.to_be_bytes());
    [&rollout_key(&window.rollout)[..], &attempt, &stage].concat()
}

fn window_key(window: &Window, id: PairId) -> Vec<u8> {
    [&stage_key(window)[..], &id.0.to_be_bytes()].concat()
}

fn notes_key(window: &Window, order: Order) -> Vec<u8> {
    let (at, seq) = (order.at.0.to_be_bytes(), order.seq.to_be_bytes());
    [&stage_key(window)[..], &at, &seq].concat()
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|it| (*it).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it panicked".to_owned())
}
