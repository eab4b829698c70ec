//! Segments: append-only files of pairs and scores, one or more an hour, unlinked when old.
//!
//! A segment is named by the time of its first pair, `segments/001795000000000.log`, so its
//! age is known without opening it. Nothing is ever added to a file of an earlier run or to
//! one that failed: a torn tail stays where it is and is passed over.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::RangeInclusive,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    files::{self, FileError, at},
    frame::{self, Format, HeaderFault},
};
use crate::domain::Timestamp;

const FORMAT: Format = Format { magic: *b"xf-pairs", version: 2 };
/// A segment this long is followed by another, also within the hour. It bounds what is lost
/// at once when space runs out, and the memory a rebuild takes.
const SEGMENT_LEN_MAX: u64 = 64 << 20;
pub(super) const HOUR_MS: u64 = 3_600_000;

/// Where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The segment, by its name.
    pub segment: u64,
    /// Where the frame begins.
    pub offset: u64,
    /// Bytes of the frame.
    pub len: u32,
}

/// The segments of a folder, and the one that is written.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    /// Name to length.
    sealed: BTreeMap<u64, u64>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    name: u64,
    file: File,
    len: u64,
    synced: u64,
}

impl Segments {
    /// The segments of a folder, which is made when it is missing.
    pub(super) fn open(dir: &Path) -> Result<Self, FileError> {
        files::make_dir(dir)?;
        let mut sealed = BTreeMap::new();
        for file in fs::read_dir(dir).map_err(at("list", dir))? {
            let file = file.map_err(at("list", dir))?;
            let path = file.path();
            if let Some(name) = name_of(&path) {
                sealed.insert(name, file.metadata().map_err(at("look at", &path))?.len());
            }
        }
        Ok(Self { dir: dir.to_owned(), sealed, current: None })
    }

    /// Adds frames; `times` are those of the oldest and newest. Answers where they begin.
    pub(super) fn append(
        &mut self,
        times: &RangeInclusive<Timestamp>,
        frames: &[u8],
    ) -> Result<(u64, u64), FileError> {
        if !self.current.as_ref().is_some_and(|it| it.takes(times.end().0)) {
            self.seal()?;
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.begin(times)?,
        };
        let begin = current.len;
        if let Err(error) = current.file.write_all(frames) {
            let name = current.name;
            self.give_up(&current);
            return Err(at("write to", &self.path(name))(error));
        }
        current.len += len_of(frames);
        let name = current.name;
        self.current = Some(current);
        Ok((name, begin))
    }

    /// Waits until everything added is on disk.
    pub(super) fn sync(&mut self) -> Result<(), FileError> {
        let Some(mut current) = self.current.take_if(|it| it.synced < it.len) else {
            return Ok(());
        };
        if let Err(error) = current.file.sync_data() {
            self.sealed.insert(current.name, current.len);
            return Err(at("sync", &self.path(current.name))(error));
        }
        current.synced = current.len;
        self.current = Some(current);
        Ok(())
    }

    /// Ends the current segment when its hour is over.
    pub(super) fn seal_if_past(&mut self, now: Timestamp) -> Result<(), FileError> {
        if self.current.as_ref().is_some_and(|it| hour_end(it.name) <= now.0) {
            self.seal()?;
        }
        Ok(())
    }

    /// The oldest segment that is not being written, its length, and the time before which
    /// no other segment has pairs.
    pub(super) fn oldest(&self) -> Option<(u64, u64, Timestamp)> {
        let mut names = self.sealed.iter();
        let (&name, &len) = names.next()?;
        let next = names.next().map(|(next, _)| *next);
        let current = self.current.as_ref().map(|it| it.name);
        let next = next.into_iter().chain(current).min().unwrap_or(u64::MAX);
        Some((name, len, Timestamp(next.min(hour_end(name)))))
    }

    /// Unlinks a sealed segment.
    pub(super) fn remove(&mut self, name: u64) -> Result<(), FileError> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at("remove", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        self.sealed.remove(&name);
        Ok(())
    }

    /// Names and lengths of the segments that are not being written, oldest first.
    pub(super) fn sealed(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.sealed.iter().map(|(name, len)| (*name, *len))
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |it| it.len);
        self.sealed.values().sum::<u64>() + current
    }

    /// Leaves a segment that failed for good, without the frames that were being written.
    fn give_up(&mut self, failed: &Current) {
        // Where cutting fails too, a scan passes over what is left of them.
        if failed.len <= first_offset() {
            drop(fs::remove_file(self.path(failed.name)));
        } else {
            drop(failed.file.set_len(failed.len));
            self.sealed.insert(failed.name, failed.len);
        }
    }

    fn seal(&mut self) -> Result<(), FileError> {
        let synced = self.sync();
        if let Some(current) = self.current.take() {
            self.sealed.insert(current.name, current.len);
        }
        synced
    }

    /// Begins a segment, named by the oldest pair but within the hour of the newest.
    fn begin(&self, times: &RangeInclusive<Timestamp>) -> Result<Current, FileError> {
        let hour_begin = times.end().0 / HOUR_MS * HOUR_MS;
        let mut name = times.start().0.max(hour_begin);
        while fs::exists(self.path(name)).map_err(at("look into", &self.dir))? {
            name += 1;
        }
        let path = self.path(name);
        let mut file = File::options()
            .append(true)
            .create_new(true)
            .open(&path)
            .map_err(at("make the segment", &path))?;
        if let Err(error) = file.write_all(&FORMAT.header()) {
            drop(fs::remove_file(&path));
            return Err(at("write to", &path)(error));
        }
        files::sync_dir(&self.dir)?;
        let len = len_of(&FORMAT.header());
        Ok(Current { name, file, len, synced: 0 })
    }

    fn path(&self, name: u64) -> PathBuf {
        path(&self.dir, name)
    }
}

impl Current {
    /// Whether a pair of that time belongs here. Late ones do, for an hour.
    fn takes(&self, at: u64) -> bool {
        let (hour, mine) = (at / HOUR_MS, self.name / HOUR_MS);
        self.len < SEGMENT_LEN_MAX && (hour == mine || hour + 1 == mine)
    }
}

/// When the hour of a segment ends.
pub(super) fn hour_end(name: u64) -> u64 {
    (name / HOUR_MS).saturating_add(1).saturating_mul(HOUR_MS)
}

/// The bytes of a frame; none when its segment was unlinked, no bytes when it ends before.
pub(super) fn read(dir: &Path, place: Place) -> Result<Option<Vec<u8>>, FileError> {
    let path = path(dir, place.segment);
    let mut frame = vec![0; usize::try_from(place.len).unwrap_or(0)];
    let read = File::open(&path).and_then(|it| it.read_exact_at(&mut frame, place.offset));
    match read {
        Ok(()) => Ok(Some(frame)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // The index may be on disk before what it points to, and the power may fail between.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(Vec::new())),
        Err(error) => Err(at("read", &path)(error)),
    }
}

/// The frames of a segment from `offset` on; why not, when it is not one we can read.
pub(super) fn read_from(
    dir: &Path,
    name: u64,
    offset: u64,
) -> Result<Result<Vec<u8>, HeaderFault>, FileError> {
    let path = path(dir, name);
    let (mut header, mut frames) = (Vec::new(), Vec::new());
    let read = File::open(&path).and_then(|mut file| {
        Read::by_ref(&mut file).take(first_offset()).read_to_end(&mut header)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut frames)
    });
    read.map_err(at("read", &path))?;
    Ok(FORMAT.check(&header).map(|()| frames))
}

/// Where the first frame of a segment begins.
pub(super) fn first_offset() -> u64 {
    len_of(&[0; frame::HEADER_LEN])
}

/// The file of a segment.
pub(super) fn path(dir: &Path, name: u64) -> PathBuf {
    dir.join(format!("{name:015}.log"))
}

fn name_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok()
}

fn len_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(at: u64) -> RangeInclusive<Timestamp> {
        Timestamp(at)..=Timestamp(at)
    }

    #[test]
    fn a_new_hour_and_a_new_run_begin_new_segments() {
        let dir = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(dir.path()).unwrap();
        let (first, offset) = segments.append(&times(HOUR_MS + 5), b"a").unwrap();
        assert_eq!((first, offset), (HOUR_MS + 5, first_offset()));
        assert_eq!(segments.append(&times(HOUR_MS + 9), b"b").unwrap(), (first, offset + 1));
        let (second, _) = segments.append(&times(2 * HOUR_MS), b"c").unwrap();
        assert_eq!(second, 2 * HOUR_MS);
        let late = segments.append(&times(2 * HOUR_MS - 1), b"d").unwrap();
        assert_eq!(late.0, second, "a late pair stays in the current segment");
        drop(segments);
        let mut segments = Segments::open(dir.path()).unwrap();
        assert_eq!(segments.sealed().map(|it| it.0).collect::<Vec<_>>(), [first, second]);
        let (third, _) = segments.append(&times(2 * HOUR_MS), b"e").unwrap();
        assert_eq!(third, second + 1);
    }

    #[test]
    fn a_clock_that_went_back_begins_its_own_segment() {
        let dir = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(dir.path()).unwrap();
        segments.append(&times(9 * HOUR_MS), b"a").unwrap();
        let (name, _) = segments.append(&times(2 * HOUR_MS), b"b").unwrap();
        assert_eq!(name, 2 * HOUR_MS);
    }

    #[test]
    fn a_segment_that_failed_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(dir.path()).unwrap();
        let (first, _) = segments.append(&times(5), b"a").unwrap();
        if let Some(current) = &mut segments.current {
            current.file = File::options().write(true).open("/dev/full").unwrap();
        }
        segments.append(&times(6), b"b").unwrap_err();
        let (second, offset) = segments.append(&times(6), b"b").unwrap();
        assert_ne!(second, first);
        assert_eq!(offset, first_offset());
        if let Some(current) = &mut segments.current {
            current.file = File::options().write(true).open("/dev/full").unwrap();
            current.len = first_offset();
        }
        segments.append(&times(6), b"c").unwrap_err();
        let left: Vec<u64> = Segments::open(dir.path()).unwrap().sealed().map(|it| it.0).collect();
        assert_eq!(left, [first], "a segment without frames is not left behind");
    }

    #[test]
    fn the_current_segment_is_never_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(dir.path()).unwrap();
        segments.append(&times(5), b"a").unwrap();
        assert_eq!(segments.oldest(), None);
        segments.seal_if_past(Timestamp(HOUR_MS - 1)).unwrap();
        assert_eq!(segments.oldest(), None);
        segments.seal_if_past(Timestamp(HOUR_MS)).unwrap();
        let (name, _, before) = segments.oldest().unwrap();
        assert_eq!((name, before), (5, Timestamp(HOUR_MS)));
    }
}
