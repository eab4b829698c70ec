//! What we remember: the journal of rollouts, and the pairs they are judged by.
//!
//! ```text
//! <dir>/journal.log   every event of every rollout; on disk before it is acknowledged
//! <dir>/journal.*.log older events that no rollout needs any more, for audits
//! <dir>/segments/     pairs, bodies, scores, reviews: append-only files of at most an hour each
//! <dir>/sled/         where to find them; can be rebuilt from the segments at any time
//! <dir>/golden/       what providers answered to golden sets; another process writes it
//! ```
//!
//! Two kinds of truth, two prices. The [`Journal`] waits for the disk, because a rollout must
//! not forget what it promised. [`Pairs`] lose up to a second when the power fails, and are
//! dropped and counted when the disk is slow or full, because no caller may wait for them; a
//! review waits for the disk, because somebody has given it their time.
//! Both use one log format (`frame`). Every call here blocks; callers bring their own thread.

mod archive;
mod block;
mod bodies;
mod checkpoints;
mod disk;
mod entry;
mod files;
mod frame;
mod golden;
mod index;
mod journal;
mod json;
mod note;
mod ordered;
mod pair;
mod pairs;
mod pairs_error;
mod past;
mod plan;
mod rebuild;
mod record;
mod recorder;
mod replays;
mod review;
mod segments;

pub use bodies::Bodies;
pub use checkpoints::{CHECKPOINT_LEN_MAX, Checkpoint};
pub use files::FileError;
pub use golden::{Answered, Answers, AnswersError, Asked};
pub use index::usage_key;
pub use journal::{Journal, JournalError};
pub use json::DecodeError;
pub use pairs::{Limits, PAGE_LEN_MAX, Pairs, Query, StoreCounters, Swept};
pub use pairs_error::PairsError;
pub use past::{History, Past};
pub use recorder::{Offered, Recorder, RecorderHandle, RecorderThread};
pub use replays::{GOLDEN_FOLDER, Replays};

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod sim;
