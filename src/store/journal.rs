//! The journal: every event of every rollout, on disk before anybody is told.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use super::{
    files::{self, FileError, at},
    frame::{self, Format, Found, HeaderFault},
    json::DecodeError,
    record,
};
use crate::domain::Record;

const FILE_NAME: &str = "journal.log";
const FORMAT: Format = Format { magic: *b"xf-jrnal", version: 1 };
/// Bytes written and taken away again at open, to see that the disk takes some.
const PROBE_LEN: usize = 4_096;

/// The durable truth of rollouts.
///
/// One process holds it at a time. A record that [`Journal::append`] said yes to is there
/// after a crash and a power loss; one it refused is not written again by itself.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: File,
    len: usize,
    next_seq: u64,
    tail: Tail,
    #[expect(dead_code, reason = "the lock ends with it")]
    lock: File,
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
    #[error("the journal in `{}` is in use by another process: stop that one first", .0.display())]
    Locked(PathBuf),
    /// The disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// It was changed since it was written. Nothing is repaired by guessing.
    #[error(
        "`{}` is damaged at byte {offset} ({problem}): restore it from a backup, or move it \
         away to begin anew with the primary serving everything", path.display()
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

impl Journal {
    /// Opens the journal of a folder, or begins one, and reads it all.
    ///
    /// A last record that a crash cut short was never acknowledged and is cut off.
    ///
    /// # Errors
    /// When another process has it, a frame in the middle is damaged, positions have holes, a
    /// later version wrote it, or the disk takes no bytes.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Record>), JournalError> {
        files::make_dir(dir)?;
        let Some(lock) = files::lock(&dir.join("journal.lock"))? else {
            return Err(JournalError::Locked(dir.to_owned()));
        };
        let path = dir.join(FILE_NAME);
        if !fs::exists(&path).map_err(at("look for", &path))? {
            files::replace(dir, FILE_NAME, &FORMAT.header())?;
        }
        let bytes = fs::read(&path).map_err(at("read", &path))?;
        let (records, len) = replay(&path, &bytes)?;
        let file = open_for_append(&path)?;
        if len < bytes.len() {
            let cut = bytes.len() - len;
            tracing::warn!(path = %path.display(), cut, "cut off an unfinished last record");
            cut_to(&file, len).map_err(at("cut the unfinished end of", &path))?;
        }
        prove_writable(dir)?;
        file.sync_data().map_err(at("sync", &path))?;
        let next_seq = records.last().map_or(1, |it| it.seq + 1);
        let tail = Tail::Trusted;
        Ok((Self { dir: dir.to_owned(), file, len, next_seq, tail, lock }, records))
    }

    /// Writes a record and waits until it is on disk.
    ///
    /// After a failed write the file is not believed any more: what is known to be good is
    /// copied to a fresh one before anything is added, so a position is never taken twice.
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
            self.renew()?;
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.tail = Tail::Suspect;
            // At once, so that a crash now does not bring back what is refused here. Where
            // this fails too, the next append begins with it.
            if let Err(error) = self.renew() {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the journal cannot be renewed after a failed write");
            }
            return Err(at("write to", &self.dir.join(FILE_NAME))(error).into());
        }
        self.len += bytes.len();
        self.next_seq += 1;
        Ok(())
    }

    /// The position the next record must have.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Puts a fresh file with everything acknowledged in place of the suspect one.
    ///
    /// A sync that failed once may say yes the next time without having written anything.
    fn renew(&mut self) -> Result<(), JournalError> {
        let path = self.dir.join(FILE_NAME);
        let mut bytes = fs::read(&path).map_err(at("read", &path))?;
        bytes.truncate(self.len);
        let (_, len) = replay(&path, &bytes)?;
        if len < self.len {
            let problem = "acknowledged records are gone".to_owned();
            return Err(JournalError::Corrupt { path, offset: len, problem });
        }
        files::replace(&self.dir, FILE_NAME, &bytes)?;
        self.file = open_for_append(&path)?;
        self.tail = Tail::Trusted;
        Ok(())
    }
}

/// The records of a log, and the length up to which it is good.
fn replay(path: &Path, log: &[u8]) -> Result<(Vec<Record>, usize), JournalError> {
    let newer =
        |found| JournalError::Version { path: path.to_owned(), found, known: FORMAT.version };
    let corrupt =
        |offset, problem: String| JournalError::Corrupt { path: path.to_owned(), offset, problem };
    FORMAT.check(log).map_err(|fault| match fault {
        HeaderFault::Foreign => corrupt(0, "it does not begin as a journal does".to_owned()),
        HeaderFault::Newer(found) => newer(found),
    })?;
    let (mut records, mut len) = (Vec::new(), frame::HEADER_LEN);
    for (seq, found) in (1..).zip(frame::scan(log, len)) {
        let (offset, payload) = match found {
            Found::Frame { offset, end, payload } => {
                len = end;
                (offset, payload)
            }
            Found::Damage { offset } => {
                return Err(corrupt(offset, "the checksum is wrong".to_owned()));
            }
            Found::Torn { .. } => break,
        };
        let record = record::decode(payload).map_err(|error| match error {
            DecodeError::Newer { found } => newer(found),
            DecodeError::Json(_)
            | DecodeError::Value { .. }
            | DecodeError::Parts
            | DecodeError::Unpack(_) => corrupt(offset, error.to_string()),
        })?;
        if record.seq != seq {
            return Err(corrupt(offset, format!("record {} where {seq} is next", record.seq)));
        }
        records.push(record);
    }
    Ok((records, len))
}

fn open_for_append(path: &Path) -> Result<File, FileError> {
    File::options().append(true).open(path).map_err(at("open", path))
}

fn cut_to(file: &File, len: usize) -> std::io::Result<()> {
    file.set_len(u64::try_from(len).map_err(std::io::Error::other)?)?;
    file.sync_all()
}

/// A full or read-only disk is better known now than at the first rollback.
fn prove_writable(dir: &Path) -> Result<(), FileError> {
    let probe = dir.join("journal.probe");
    let written = files::write_synced(&probe, &[b'x'; PROBE_LEN]);
    let removed = fs::remove_file(&probe).map_err(at("remove", &probe));
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::domain::Event;
    use crate::store::samples;

    fn record(seq: u64) -> Record {
        samples::record(seq, Event::Resumed)
    }

    fn journal_of(count: u64) -> (TempDir, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, records) = Journal::open(dir.path()).unwrap();
        assert_eq!(records, []);
        for seq in 1..=count {
            journal.append(&record(seq)).unwrap();
        }
        (dir, journal)
    }

    fn reopened(dir: &Path) -> Vec<u64> {
        let (_, records) = Journal::open(dir).unwrap();
        records.iter().map(|it| it.seq).collect()
    }

    #[test]
    fn what_was_appended_is_there_after_reopening() {
        let (dir, mut journal) = journal_of(0);
        let events = samples::events();
        let records: Vec<Record> =
            (1..).zip(events).map(|(seq, event)| samples::record(seq, event)).collect();
        for record in &records {
            journal.append(record).unwrap();
        }
        drop(journal);
        let (journal, back) = Journal::open(dir.path()).unwrap();
        assert_eq!(back, records);
        assert_eq!(usize::try_from(journal.next_seq()).unwrap(), records.len() + 1);
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_byte_and_writing_goes_on() {
        let (dir, journal) = journal_of(3);
        drop(journal);
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        let (_, second_end) = replay(&path, &whole[..whole.len() - 1]).unwrap();
        for len in second_end..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let (mut journal, records) = Journal::open(dir.path()).unwrap();
            assert_eq!(records.len(), 2, "cut at {len}");
            journal.append(&record(3)).unwrap();
            drop(journal);
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {len}");
        }
    }

    #[test]
    fn every_flipped_bit_before_the_last_frame_is_detected() {
        let (dir, journal) = journal_of(3);
        drop(journal);
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        let (_, second_end) = replay(&path, &whole[..whole.len() - 1]).unwrap();
        for (byte, bit) in (0..second_end).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << bit;
            let error = replay(&path, &flipped).unwrap_err();
            let seen = match &error {
                JournalError::Corrupt { offset, .. } => *offset <= byte,
                other => matches!(other, JournalError::Version { .. }) && (8..12).contains(&byte),
            };
            assert!(seen, "bit {bit} of byte {byte}: {error}");
        }
    }

    #[test]
    fn a_missing_record_is_corruption() {
        let (dir, journal) = journal_of(3);
        drop(journal);
        let path = dir.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        let (_, second_end) = replay(&path, &whole[..whole.len() - 1]).unwrap();
        let (_, first_end) = replay(&path, &whole[..second_end - 1]).unwrap();
        fs::write(&path, [&whole[..first_end], &whole[second_end..]].concat()).unwrap();
        let error = Journal::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("record 3 where 2 is next"), "{error}");
    }

    /// C5
    #[test]
    fn a_failed_write_keeps_the_sequence() {
        let (dir, mut journal) = journal_of(2);
        journal.file = File::options().write(true).open("/dev/full").unwrap();
        let error = journal.append(&record(3)).unwrap_err();
        assert!(error.to_string().contains("could not write to"), "{error}");
        assert_eq!(journal.next_seq(), 3);
        journal.append(&record(3)).unwrap();
        journal.append(&record(4)).unwrap();
        drop(journal);
        assert_eq!(reopened(dir.path()), [1, 2, 3, 4]);
    }

    #[test]
    fn half_a_frame_left_by_a_failed_write_is_gone_before_the_next() {
        let (dir, mut journal) = journal_of(2);
        let path = dir.path().join(FILE_NAME);
        let mut half = Vec::new();
        frame::push(&mut half, &record::encode(&record(3))).unwrap();
        half.truncate(20);
        journal.file.write_all(&half).unwrap();
        journal.file = File::open(&path).unwrap();
        // What keeps the renewal from working, until it is taken away.
        let obstacle = dir.path().join("journal.log.new");
        fs::create_dir(&obstacle).unwrap();
        journal.append(&record(3)).unwrap_err();
        assert_eq!(journal.tail, Tail::Suspect);
        journal.append(&record(3)).unwrap_err();
        fs::remove_dir(&obstacle).unwrap();
        journal.append(&record(3)).unwrap();
        drop(journal);
        assert_eq!(reopened(dir.path()), [1, 2, 3]);
    }

    /// C7
    #[test]
    fn a_second_opener_is_refused() {
        let (dir, journal) = journal_of(1);
        let error = Journal::open(dir.path()).unwrap_err();
        assert!(matches!(error, JournalError::Locked(_)), "{error}");
        drop(journal);
        assert_eq!(reopened(dir.path()), [1]);
    }

    #[test]
    fn a_record_out_of_turn_is_refused() {
        let (_dir, mut journal) = journal_of(1);
        for seq in [1, 3] {
            let error = journal.append(&record(seq)).unwrap_err();
            assert!(matches!(error, JournalError::NotNext { next: 2, .. }), "{error}");
        }
    }

    #[test]
    fn a_later_version_is_refused_and_left_as_it_is() {
        let (dir, journal) = journal_of(1);
        drop(journal);
        let path = dir.path().join(FILE_NAME);
        let mut log = fs::read(&path).unwrap();
        frame::push(&mut log, br#"{"v":99,"seq":2,"whatever":true}"#).unwrap();
        fs::write(&path, &log).unwrap();
        let error = Journal::open(dir.path()).unwrap_err();
        assert!(matches!(error, JournalError::Version { found: 99, .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), log);
    }
}
