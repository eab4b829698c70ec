//! What can go wrong with pairs.

use std::path::PathBuf;

use super::{files::FileError, frame, json::DecodeError};
use crate::domain::PairId;

/// Why pairs cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PairsError {
    /// Another process has them.
    #[error("the pairs in `{}` are in use by another process: stop that one first", .0.display())]
    Locked(PathBuf),
    /// The disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The index refused.
    #[error(
        "the index cannot {tried}; if this stays, stop, delete `sled` and start: it is rebuilt"
    )]
    Index {
        /// What was tried, as a verb.
        tried: &'static str,
        /// What the index said.
        #[source]
        error: sled::Error,
    },
    /// The index is broken, and so is the one begun in its place.
    #[error("the index cannot be rebuilt in `{}`: {problem}", dir.display())]
    Broken {
        /// Its folder.
        dir: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The disk is too full to store pairs.
    #[error("{free} bytes are free and {min} must stay so: free some space or lower the limit")]
    DiskFull {
        /// Bytes free.
        free: u64,
        /// Bytes that must be.
        min: u64,
    },
    /// A stored frame has changed since it was written.
    #[error("the frame at byte {offset} of `{}` is damaged", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the frame begins.
        offset: u64,
    },
    /// A record cannot be read.
    #[error("the record of pair {id} cannot be read")]
    Record {
        /// The pair.
        id: PairId,
        /// What is wrong with it.
        #[source]
        error: DecodeError,
    },
    /// Evidence too long for a checkpoint.
    #[error("evidence of {0} bytes is too long for a checkpoint")]
    TooLong(usize),
    /// A pair or score cannot be packed, or is too long to keep.
    #[error("pair {id} cannot be packed into a frame of at most {} bytes", frame::PAYLOAD_LEN_MAX)]
    Pack {
        /// The pair.
        id: PairId,
    },
}

/// Says what was tried with the index: for `map_err`.
pub(super) fn to(tried: &'static str) -> impl FnOnce(sled::Error) -> PairsError {
    move |error| PairsError::Index { tried, error }
}
