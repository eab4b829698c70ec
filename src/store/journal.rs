//! The journal: every event of every rollout, on disk before anybody is told.
//!
//! ```text
//! journal.log          a header, in a compacted one where every rollout stood, then records
//! journal.<seq>.log    records that a compaction took out, from position <seq> on
//! ```
//!
//! Bytes are only ever added to `journal.log`; everything else puts a whole new file in its
//! place. That happens when the journal is opened, when a write has failed, and when there are
//! so many records that the older ones go to an archive. After a failed write or sync nobody
//! knows what the disk holds behind the last acknowledged record, and a sync that failed once
//! may say yes the next time without having written anything; the new file settles it. So does
//! the one at open, for whatever the process before could not settle; and a full or read-only
//! disk is better known then than at the first rollback.
//!
//! A crash before the new file has its name leaves the old one, after it the new one. Both hold
//! everything acknowledged; a record that was refused is in neither once a later one is written.

use std::{
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{
    archive,
    disk::{Disk, Folder},
    files::{self, FileError, at},
    frame::{self, Format, Found, HeaderFault},
    json::DecodeError,
    past::{History, PastError},
    record,
};
use crate::domain::Record;

pub(super) const FILE_NAME: &str = "journal.log";
/// What we read. Version 2 begins with where rollouts stood.
const FORMAT: Format = Format { magic: *b"xf-jrnal", version: 2 };
/// What we write where nothing was compacted yet. Whether an older program can read the records
/// behind it, each of them says itself.
pub(super) const PLAIN: Format = Format { version: 1, ..FORMAT };

/// How long a journal may get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Records above which it is compacted.
    pub records_max: usize,
    /// Bytes of records above which it is compacted.
    pub bytes_max: usize,
    /// Records that stay then, the newest.
    pub records_kept: usize,
    /// Bytes of records that stay then.
    pub bytes_kept: usize,
    /// Bytes of all archives, above which the oldest is deleted.
    pub archives_bytes_max: u64,
}

/// As many records stay as the controller shows; a compaction is rare, and done in a second.
const BOUNDS: Bounds = Bounds {
    records_max: 20_000,
    bytes_max: 32 << 20,
    records_kept: 10_000,
    bytes_kept: 16 << 20,
    archives_bytes_max: 1 << 30,
};

/// The durable truth of rollouts.
///
/// One process holds it at a time. A record that [`Journal::append`] said yes to is there
/// after a crash and a power loss; one it refused is not written again by itself.
#[derive(Debug)]
pub struct Journal {
    disk: Box<dyn Disk>,
    /// For messages.
    path: PathBuf,
    bounds: Bounds,
    /// Records in the file.
    records_len: usize,
    /// Their bytes.
    bytes_len: usize,
    next_seq: u64,
    tail: Tail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    Trusted,
    /// A write or sync failed: nobody knows what the disk holds behind the last good frame.
    Suspect,
}

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process has it.
    #[error("the journal in `{}` is in use by {}", dir.display(), process(*holder))]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The process, if it said who it is.
        holder: Option<u32>,
    },
    /// The disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// It was changed since it was written. Nothing is repaired by guessing.
    #[error(
        "`{}` is damaged at byte {offset} ({problem}): restore it from a backup, or move it and \
         its archives away to begin anew with the primary serving everything", path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the first damage is.
        offset: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A later version of the program wrote it.
    #[error(
        "`{}` has version {found}, this program reads up to {known}: use a newer program",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The highest version known.
        known: u32,
    },
    /// A record that is not the next one.
    #[error("record {asked} was offered where {next} is next")]
    NotNext {
        /// Its position.
        asked: u64,
        /// The position that is free.
        next: u64,
    },
    /// A record too long to keep.
    #[error(
        "record {seq} has {len} bytes, more than {}: use a smaller plan",
        frame::PAYLOAD_LEN_MAX
    )]
    TooLong {
        /// Its position.
        seq: u64,
        /// Its length.
        len: usize,
    },
}

/// A journal's file, read.
pub(super) struct Log {
    pub(super) history: History,
    /// Where each record begins.
    pub(super) starts: Vec<usize>,
    /// Up to where it is good.
    pub(super) len: usize,
}

impl Journal {
    /// Makes the folder, where it is not there yet.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn make_folder(dir: &Path) -> Result<(), JournalError> {
        Ok(files::make_dir(dir)?)
    }

    /// Opens the journal of a folder, or begins one, and reads it all.
    ///
    /// A last record that a crash cut short was never acknowledged and is cut off.
    ///
    /// # Errors
    /// When another process has it, a frame in the middle is damaged, positions have holes, a
    /// later version wrote it, or the disk takes no bytes.
    pub fn open(dir: &Path) -> Result<(Self, History), JournalError> {
        let lock = dir.join("journal.lock");
        let Some(folder) = Folder::take(dir, &lock)? else {
            return Err(JournalError::Locked { dir: dir.to_owned(), holder: files::holder(&lock) });
        };
        Self::on(Box::new(folder), dir, BOUNDS)
    }

    /// Opens the journal of a disk.
    pub(super) fn on(
        disk: Box<dyn Disk>,
        dir: &Path,
        bounds: Bounds,
    ) -> Result<(Self, History), JournalError> {
        let path = dir.join(FILE_NAME);
        let (records_len, bytes_len, next_seq, tail) = (0, 0, 1, Tail::Suspect);
        let mut journal = Self { disk, path, bounds, records_len, bytes_len, next_seq, tail };
        let history = journal.renew(None)?;
        Ok((journal, history))
    }

    /// Writes a record and waits until it is on disk.
    ///
    /// # Errors
    /// When the disk refuses, or the record is not the next one. It may be offered again.
    pub fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let (asked, next) = (record.seq, self.next_seq);
        if asked != next {
            return Err(JournalError::NotNext { asked, next });
        }
        let mut bytes = Vec::new();
        frame::push(&mut bytes, &record::encode(record))
            .map_err(|it| JournalError::TooLong { seq: asked, len: it.0 })?;
        if self.tail == Tail::Suspect {
            self.renew(Some(next))?;
        }
        if let Err(error) = self.disk.append(FILE_NAME, &bytes) {
            // At once, so that a crash now does not bring back what is refused here. Where
            // this fails too, the next append begins with it.
            self.try_to_renew("after a failed write");
            return Err(at("write to", &self.path)(error).into());
        }
        self.records_len += 1;
        self.bytes_len += bytes.len();
        self.next_seq += 1;
        let Bounds { records_max, bytes_max, .. } = self.bounds;
        if records_max < self.records_len || bytes_max < self.bytes_len {
            self.try_to_renew("to make it shorter");
        }
        Ok(())
    }

    /// Whether the disk may hold something of a record that was refused.
    pub fn is_suspect(&self) -> bool {
        self.tail == Tail::Suspect
    }

    /// Makes sure that nothing that was refused comes back.
    ///
    /// # Errors
    /// When the disk refuses. It may be tried again.
    pub fn settle(&mut self) -> Result<(), JournalError> {
        match self.tail {
            Tail::Trusted => Ok(()),
            Tail::Suspect => self.renew(Some(self.next_seq)).map(drop),
        }
    }

    /// The position the next record must have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    fn try_to_renew(&mut self, why: &'static str) {
        if let Err(error) = self.renew(Some(self.next_seq)) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "the journal cannot be renewed {why}");
        }
    }

    /// Puts a fresh file with everything acknowledged in place of the one that is there.
    ///
    /// That is every record before `next_seq`, or with none, when opening, all there are.
    fn renew(&mut self, next_seq: Option<u64>) -> Result<History, JournalError> {
        self.tail = Tail::Suspect;
        let bytes = match self.disk.read(FILE_NAME) {
            Err(error) if error.kind() == ErrorKind::NotFound && next_seq.is_none() => {
                PLAIN.header().to_vec()
            }
            read => read.map_err(at("read", &self.path))?,
        };
        let mut log = Log::read(&self.path, &bytes)?;
        let cut = bytes.len() - log.len;
        match next_seq {
            None if 0 < cut => {
                tracing::warn!(path = %self.path.display(), cut, "cut off an unfinished last record");
            }
            None => {}
            Some(next_seq) => {
                log.keep_below(next_seq);
                if log.history.last_seq() + 1 != next_seq {
                    let (path, offset) = (self.path.clone(), log.len);
                    let problem = "acknowledged records are gone".to_owned();
                    return Err(JournalError::Corrupt { path, offset, problem });
                }
            }
        }
        let file = self.renewed(&mut log, &bytes);
        self.disk.replace(FILE_NAME, &file).map_err(at("renew", &self.path))?;
        self.tail = Tail::Trusted;
        self.next_seq = log.history.last_seq() + 1;
        Ok(log.history)
    }

    /// The bytes of the new file: the good ones of the old file, or the newest of them behind
    /// where rollouts stood before.
    fn renewed(&mut self, log: &mut Log, bytes: &[u8]) -> Vec<u8> {
        let starts = &log.starts;
        let bytes_from = |index: usize| log.len - starts.get(index).copied().unwrap_or(log.len);
        let Bounds { records_max, bytes_max, records_kept, bytes_kept, .. } = self.bounds;
        (self.records_len, self.bytes_len) = (starts.len(), bytes_from(0));
        if self.records_len <= records_max && self.bytes_len <= bytes_max {
            return bytes[..log.len].to_vec();
        }
        let fits = |index: &usize| {
            starts.len() - index <= records_kept && bytes_from(*index) <= bytes_kept
        };
        let first = (0..starts.len()).find(fits).unwrap_or(starts.len());
        let kept = &bytes[log.len - bytes_from(first)..log.len];
        let taken = &bytes[log.len - bytes_from(0)..log.len - bytes_from(first)];
        let seq = log.history.forgotten + 1;
        let archives_max = self.bounds.archives_bytes_max;
        let compacted = archive::put(&mut *self.disk, seq, taken, archives_max)
            .and_then(|()| compacted(&log.history, first, kept));
        match compacted {
            Ok((history, file)) => {
                tracing::info!(path = %self.path.display(), records = first, "older records went to an archive");
                (self.records_len, self.bytes_len) = (starts.len() - first, kept.len());
                log.history = history;
                file
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "the journal stays long: older records cannot be archived");
                // Not before it has grown by as much again.
                (self.records_len, self.bytes_len) = (0, 0);
                bytes[..log.len].to_vec()
            }
        }
    }
}

fn process(id: Option<u32>) -> String {
    id.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}

/// The file that begins behind the first `count` records, and what it says.
fn compacted(history: &History, count: usize, kept: &[u8]) -> io::Result<(History, Vec<u8>)> {
    let mut history = history.clone();
    history.forget(count);
    let mut file = FORMAT.header().to_vec();
    for payload in history.encode() {
        let pushed = frame::push(&mut file, &payload);
        pushed.map_err(|it| io::Error::other(format!("a rollout takes {} bytes", it.0)))?;
    }
    file.extend(kept);
    Ok((history, file))
}

impl Log {
    /// What a journal's file holds, up to where it is good.
    pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Self, JournalError> {
        let newer =
            |found| JournalError::Version { path: path.to_owned(), found, known: FORMAT.version };
        let corrupt = |offset, problem: String| JournalError::Corrupt {
            path: path.to_owned(),
            offset,
            problem,
        };
        let undecoded = |offset: usize, error: DecodeError| match error {
            DecodeError::Newer { found } => newer(found),
            DecodeError::Json(_)
            | DecodeError::Value { .. }
            | DecodeError::Parts
            | DecodeError::Unpack(_) => corrupt(offset, error.to_string()),
        };
        FORMAT.check(bytes).map_err(|fault| match fault {
            HeaderFault::Foreign => corrupt(0, "it does not begin as a journal does".to_owned()),
            HeaderFault::Newer(found) => newer(found),
        })?;
        let mut log = Self::beginning(bytes).map_err(|(offset, error)| match error {
            PastError::Short => corrupt(offset, "its beginning does not add up".to_owned()),
            PastError::Decode(error) => undecoded(offset, error),
        })?;
        for found in frame::scan(bytes, log.len) {
            let (offset, end, payload) = match found {
                Found::Frame { offset, end, payload } => (offset, end, payload),
                Found::Damage { offset } => {
                    return Err(corrupt(offset, "the checksum is wrong".to_owned()));
                }
                Found::Torn { .. } => break,
            };
            let record = record::decode(payload).map_err(|error| undecoded(offset, error))?;
            let next = log.history.last_seq() + 1;
            if record.seq != next {
                return Err(corrupt(offset, format!("record {} where {next} is next", record.seq)));
            }
            log.history.records.push(record);
            log.starts.push(offset);
            log.len = end;
        }
        Ok(log)
    }

    /// What comes before the first record. It was put there whole, so it is whole or damaged.
    fn beginning(bytes: &[u8]) -> Result<Self, (usize, PastError)> {
        let (mut len, starts) = (frame::HEADER_LEN, Vec::new());
        if PLAIN.check(bytes).is_ok() {
            return Ok(Self { history: History::default(), starts, len });
        }
        let mut payloads = frame::scan(bytes, len).map_while(|found| match found {
            Found::Frame { end, payload, .. } => {
                len = end;
                Some(payload)
            }
            Found::Damage { .. } | Found::Torn { .. } => None,
        });
        let history = History::decode(&mut payloads);
        drop(payloads);
        Ok(Self { history: history.map_err(|error| (len, error))?, starts, len })
    }

    /// Forgets records that were refused.
    fn keep_below(&mut self, next_seq: u64) {
        let kept = self.history.records.partition_point(|it| it.seq < next_seq);
        self.history.records.truncate(kept);
        self.len = self.starts.get(kept).copied().unwrap_or(self.len);
        self.starts.truncate(kept);
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "journal_faults.rs"]
mod faults;
