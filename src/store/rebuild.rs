//! The index made anew from the segments, or brought up to them.

use std::{fs, io, path::Path};

use super::{
    entry::{self, Entry},
    files::{FileError, at},
    frame::{self, Found, HeaderFault},
    index::{Index, OpenFault},
    pairs::{self, number},
    pairs_error::{PairsError, to},
    segments::{self, Place, Segments},
};

/// The index of a folder; a broken one is moved aside and a new one begun.
pub(super) fn open_index(dir: &Path) -> Result<Index, PairsError> {
    let sled = dir.join("sled");
    match Index::open(&sled) {
        Ok(index) => {
            if index.is_old() {
                tracing::info!(dir = %sled.display(), "an older program made the index; renewing it");
                index.renew().map_err(to("be renewed"))?;
            }
            return Ok(index);
        }
        Err(OpenFault::Refused(error)) => return Err(to("be opened")(error)),
        Err(OpenFault::Broken(problem)) => {
            tracing::warn!(dir = %sled.display(), problem, "the index is broken; rebuilding it");
        }
    }
    move_aside(&sled, &dir.join("sled.broken"))?;
    Index::open(&sled).map_err(|fault| match fault {
        OpenFault::Refused(error) => to("be opened")(error),
        OpenFault::Broken(problem) => PairsError::Broken { dir: sled, problem },
    })
}

/// Adds to the index what it does not know of the segments.
///
/// Usually that is the last half second before a crash; with a new index it is everything.
pub(super) fn catch_up(index: &Index, segments: &Segments, dir: &Path) -> Result<(), PairsError> {
    for (name, len) in segments.sealed() {
        let indexed = index.indexed(name).map_err(to("be read"))?;
        let from = indexed.max(segments::first_offset());
        if from < len {
            match segments::read_from(dir, name, from)? {
                Ok(frames) => add(index, name, from, &frames)?,
                Err(fault) => tell(&segments::path(dir, name), fault),
            }
        }
    }
    Ok(())
}

/// Adds the frames of a segment, which begin at `from` in it.
fn add(index: &Index, segment: u64, from: u64, frames: &[u8]) -> Result<(), PairsError> {
    let mut unreadable = 0_u64;
    for found in frame::scan(frames, 0) {
        let Found::Frame { offset, end, payload } = found else {
            unreadable += 1;
            continue;
        };
        match entry::decode(payload) {
            Ok(Entry::Block(block)) => match block.pairs().find_map(Result::ok) {
                Some(pair) => {
                    let len = u32::try_from(end - offset).unwrap_or(u32::MAX);
                    let place = Place { segment, offset: from + number(offset), len };
                    let ids: Vec<_> = block.ids().collect();
                    index.put_block(&pair.window, &ids, place).map_err(to("store pairs"))?;
                }
                None => unreadable += 1,
            },
            Ok(Entry::Score(score)) => pairs::put_score(index, &score)?,
            Ok(Entry::Review(review)) => pairs::put_review(index, &review)?,
            Ok(Entry::Notes(notes)) => {
                if let Some(first) = notes.first() {
                    let put = index.put_notes(&first.window, first.order, payload);
                    put.map_err(to("store notes"))?;
                }
            }
            Err(_) => unreadable += 1,
        }
    }
    if 0 < unreadable {
        tracing::warn!(segment, unreadable, "parts of a segment cannot be read");
    }
    index.set_indexed(segment, from + number(frames.len())).map_err(to("store pairs"))
}

fn move_aside(sled: &Path, broken: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(broken) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(at("remove", broken)(error));
        }
        Ok(()) | Err(_) => {}
    }
    fs::rename(sled, broken).map_err(at("move aside", sled))
}

fn tell(path: &Path, fault: HeaderFault) {
    let path = path.display();
    match fault {
        HeaderFault::Foreign => tracing::warn!(%path, "not a segment; left as it is"),
        HeaderFault::Newer(version) => {
            tracing::warn!(%path, version, "a newer program wrote this segment; left as it is");
        }
    }
}
