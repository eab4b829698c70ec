//! The index: what there is to know about pairs but their bodies, in sled.
//!
//! | tree       | key                                                  | value                 |
//! |------------|------------------------------------------------------|-----------------------|
//! | `pairs`    | id, which sorts by time                              | place, record         |
//! | `windows`  | rollout, 0, attempt, stage, id                       | –                     |
//! | `scores`   | id, source                                           | record                |
//! | `notes`    | rollout, 0, attempt, stage, time, place              | frame payload         |
//! | `segments` | name                                                 | bytes of it indexed   |
//! | `kept`     | any                                                  | any                   |
//!
//! All numbers are big endian, so that keys sort as they should. Sled recovers a prefix of
//! what was written; `segments` is written last, so what it calls indexed is.

use std::{any::Any, io, panic, path::Path, thread, time::Duration};

use sled::{Batch, Db, Tree};

use super::segments::Place;
use crate::domain::{Name, Order, PairId, Timestamp, Window};

const CACHE_BYTES: u64 = 64 << 20;
const FLUSH_EVERY_MS: u64 = 500;
/// Records removed at once; each batch blocks writers for a moment.
const REMOVE_LEN_MAX: usize = 256;
/// Sled's own flusher may hold the lock of a closed index a moment longer.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(50);
const ID_LEN: usize = 16;
const PLACE_LEN: usize = 20;
/// Bytes of a time and a place at the end of a key of `notes`.
const ORDER_LEN: usize = 16;

/// An open index.
pub(super) struct Index {
    db: Db,
    pairs: Tree,
    windows: Tree,
    scores: Tree,
    notes: Tree,
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

/// A record of a pair and where its frame is.
pub(super) struct Row {
    /// The pair.
    pub id: PairId,
    /// Its evidence.
    pub window: Window,
    /// Its frame.
    pub place: Place,
    /// Its record.
    pub record: Vec<u8>,
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
                pairs: db.open_tree("pairs")?,
                windows: db.open_tree("windows")?,
                scores: db.open_tree("scores")?,
                notes: db.open_tree("notes")?,
                segments: db.open_tree("segments")?,
                kept: db.open_tree("kept")?,
                db,
            })
        });
        Ok(opened.map_err(|panic| OpenFault::Broken(text_of(&*panic)))??)
    }

    /// Adds pairs. Not as a batch of sled's: each of those ends a buffer of its log early, and wakes
    /// all its threads for that, which costs more than the pairs.
    pub(super) fn put_pairs(&self, rows: &[Row]) -> sled::Result<()> {
        for row in rows {
            let value = [&row.place.to_bytes()[..], &row.record].concat();
            self.pairs.insert(row.id.0.to_be_bytes(), value)?;
            self.windows.insert(window_key(&row.window, row.id), &[])?;
        }
        Ok(())
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

    /// Where a pair's frame is, and its record.
    pub(super) fn pair(&self, id: PairId) -> sled::Result<Option<(Place, Vec<u8>)>> {
        let value = self.pairs.get(id.0.to_be_bytes())?;
        Ok(value.as_deref().and_then(split))
    }

    /// The records of a pair's scores.
    pub(super) fn scores(&self, id: PairId) -> impl Iterator<Item = sled::Result<Vec<u8>>> {
        self.scores.scan_prefix(id.0.to_be_bytes()).values().map(|it| Ok(it?.to_vec()))
    }

    /// Records of pairs with ids below `before`, newest first.
    pub(super) fn newest(
        &self,
        before: Option<PairId>,
    ) -> impl Iterator<Item = sled::Result<(PairId, Vec<u8>)>> {
        let range = match before {
            Some(id) => self.pairs.range(..id.0.to_be_bytes()),
            None => self.pairs.iter(),
        };
        range.rev().filter_map(|row| match row {
            Ok((key, value)) => Some(Ok((id_of(&key)?, split(&value)?.1))),
            Err(error) => Some(Err(error)),
        })
    }

    /// Ids of a rollout's pairs before one of them, newest first: the last attempt and stage
    /// come first.
    pub(super) fn newest_of(
        &self,
        rollout: &Name,
        before: Option<(&Window, PairId)>,
    ) -> impl Iterator<Item = sled::Result<PairId>> {
        let first = rollout_key(rollout);
        let end = match before {
            Some((window, id)) => window_key(window, id),
            // No attempt has this number, so this is behind them all.
            None => [&first[..], &[0xFF; 8 + ID_LEN]].concat(),
        };
        ids(self.windows.range(first..end).rev())
    }

    /// Ids of the pairs of a window, oldest first.
    pub(super) fn of_window(&self, window: &Window) -> impl Iterator<Item = sled::Result<PairId>> {
        ids(self.windows.scan_prefix(stage_key(window)))
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

    /// Removes everything about pairs whose id is of an earlier time. `window` reads the
    /// window off a record.
    pub(super) fn remove_before(
        &self,
        at: Timestamp,
        window: impl Fn(PairId, &[u8]) -> Option<Window>,
    ) -> sled::Result<()> {
        let end = (u128::from(at.0) << 80).to_be_bytes();
        loop {
            let (mut pairs, mut windows) = (Batch::default(), Batch::default());
            let mut removed = 0;
            for row in self.pairs.range(..end).take(REMOVE_LEN_MAX) {
                let (key, value) = row?;
                let record = split(&value);
                if let (Some(id), Some((_, record))) = (id_of(&key), record)
                    && let Some(window) = window(id, &record)
                {
                    windows.remove(window_key(&window, id));
                }
                pairs.remove(key);
                removed += 1;
            }
            if removed == 0 {
                break;
            }
            self.windows.apply_batch(windows)?;
            self.pairs.apply_batch(pairs)?;
        }
        self.remove_notes_before(at)?;
        self.remove_scores_before(&end)
    }

    /// Window by window: their keys sort by time only inside one.
    fn remove_notes_before(&self, at: Timestamp) -> sled::Result<()> {
        let mut from = Vec::new();
        while let Some(row) = self.notes.range(from..).keys().next() {
            let key = row?;
            let window = key.get(..key.len().saturating_sub(ORDER_LEN)).unwrap_or_default();
            let end = [window, &at.0.to_be_bytes()[..], &[0; 8]].concat();
            for key in self.notes.range(window..&end[..]).keys() {
                self.notes.remove(key?)?;
            }
            from = [window, &[0xFF; ORDER_LEN]].concat();
        }
        Ok(())
    }

    fn remove_scores_before(&self, end: &[u8; ID_LEN]) -> sled::Result<()> {
        loop {
            let mut scores = Batch::default();
            let mut removed = 0;
            for key in self.scores.range(..&end[..]).keys().take(REMOVE_LEN_MAX) {
                scores.remove(key?);
                removed += 1;
            }
            if removed == 0 {
                return Ok(());
            }
            self.scores.apply_batch(scores)?;
        }
    }

    /// Keeps a named value.
    pub(super) fn keep(&self, key: &str, value: &[u8]) -> sled::Result<()> {
        self.kept.insert(key, value).map(drop)
    }

    /// A named value.
    pub(super) fn kept(&self, key: &str) -> sled::Result<Option<Vec<u8>>> {
        Ok(self.kept.get(key)?.map(|it| it.to_vec()))
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

/// A value of `pairs` in its two parts.
fn split(value: &[u8]) -> Option<(Place, Vec<u8>)> {
    let (segment, rest) = value.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (len, record) = rest.split_first_chunk()?;
    let place = Place {
        segment: u64::from_be_bytes(*segment),
        offset: u64::from_be_bytes(*offset),
        len: u32::from_be_bytes(*len),
    };
    Some((place, record.to_vec()))
}

fn ids(
    rows: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
) -> impl Iterator<Item = sled::Result<PairId>> {
    rows.filter_map(|row| row.map(|(key, _)| id_of(&key)).transpose())
}

/// The id at the end of a key.
fn id_of(key: &[u8]) -> Option<PairId> {
    key.last_chunk().map(|it| PairId(u128::from_be_bytes(*it)))
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
