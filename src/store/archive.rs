//! Archives: records that a compaction took out of the journal, kept for whoever audits.
//!
//! An archive is a journal without a beginning, named by its first position. Nothing here reads
//! it again. All of them together have a bound; the oldest is deleted beyond it.

use std::io;

use super::{disk::Disk, journal::PLAIN};

/// Puts frames of records in an archive that begins with position `seq`, and deletes the oldest
/// archives beyond `bytes_max` in all.
///
/// A crash, or a failure behind it, may leave it where its records are still in the journal. The
/// next one begins with the same record then, and takes its place.
pub(super) fn put(disk: &mut dyn Disk, seq: u64, frames: &[u8], bytes_max: u64) -> io::Result<()> {
    // So many zeros that names sort as positions do.
    disk.replace(&format!("journal.{seq:020}.log"), &[&PLAIN.header()[..], frames].concat())?;
    let mut archives: Vec<_> =
        disk.files()?.into_iter().filter(|(name, _)| is_archive(name)).collect();
    archives.sort();
    let mut bytes: u64 = archives.iter().map(|it| it.1).sum();
    for (name, len) in archives {
        if bytes <= bytes_max {
            break;
        }
        tracing::warn!(name, len, "deleting the oldest archive of the journal");
        if let Err(error) = disk.remove(&name) {
            tracing::warn!(name, %error, "an old archive of the journal cannot be deleted");
            break;
        }
        bytes -= len;
    }
    Ok(())
}

/// Whether a file is one of ours.
pub(super) fn is_archive(name: &str) -> bool {
    let seq = name.strip_prefix("journal.").and_then(|it| it.strip_suffix(".log"));
    seq.is_some_and(|it| it.len() == 20 && it.bytes().all(|byte| byte.is_ascii_digit()))
}
