//! Checkpoints: the bets of a rollout as they were a moment ago, so that a restart goes on from
//! there.
//!
//! A checkpoint says itself what it is of and up to which place everything that was told is in it,
//! and carries a checksum; one that is lost, torn or of a later version is none, and the bets are
//! made anew from the stored pairs instead. It lies in the index beside them, which hands
//! everything to the disk within a second and promises nothing when the power fails.

use serde::{Deserialize, Serialize};

use super::{
    Pairs, PairsError,
    frame::{self, Format},
    json,
};
use crate::domain::{Name, Order, Timestamp};

/// Longest bets of one rollout, in bytes.
pub const CHECKPOINT_LEN_MAX: usize = frame::PAYLOAD_LEN_MAX - HEAD_LEN_MAX;
/// Longest JSON before them.
const HEAD_LEN_MAX: usize = 1 << 10;
const FORMAT: Format = Format { magic: *b"xf-chkpt", version: 1 };

/// The bets of a rollout at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The rollout.
    pub rollout: Name,
    /// Its attempt.
    pub attempt: u32,
    /// When the visit of the stage began that they are of.
    pub visit: Timestamp,
    /// The last thing that is in them.
    pub told: Order,
    /// The bets, as whoever made them encodes them.
    pub bets: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct HeadJson {
    v: u32,
    rollout: String,
    attempt: u32,
    visit_ms: u64,
    seq: u64,
    at_ms: u64,
}

impl Checkpoint {
    /// Keeps it, in place of what was kept of its rollout. Blocks.
    ///
    /// # Errors
    /// When the index refuses, or the bets are longer than [`CHECKPOINT_LEN_MAX`].
    pub fn save(&self, pairs: &Pairs) -> Result<(), PairsError> {
        pairs.keep(&key(&self.rollout), &self.encode()?)
    }

    /// What was kept last of a rollout; none too when it is damaged, which is logged. Blocks.
    pub fn load(pairs: &Pairs, rollout: &Name) -> Option<Self> {
        let kept = pairs.kept(&key(rollout))?;
        let decoded = Self::decode(&kept).filter(|it| it.rollout == *rollout);
        if decoded.is_none() {
            tracing::warn!(%rollout, "the checkpoint is damaged; evidence comes from the pairs");
        }
        decoded
    }

    /// Forgets what was kept of a rollout. Blocks.
    ///
    /// # Errors
    /// When the index refuses.
    pub fn forget(pairs: &Pairs, rollout: &Name) -> Result<(), PairsError> {
        pairs.unkeep(&key(rollout))
    }

    fn encode(&self) -> Result<Vec<u8>, PairsError> {
        let Self { rollout, attempt, visit, told, bets } = self;
        let mut payload = json::encode(&HeadJson {
            v: json::VERSION,
            rollout: rollout.as_str().to_owned(),
            attempt: *attempt,
            visit_ms: visit.0,
            seq: told.seq,
            at_ms: told.at.0,
        });
        payload.push(b'\n');
        payload.extend(bets);
        let mut kept = FORMAT.header().to_vec();
        frame::push(&mut kept, &payload).map_err(|it| PairsError::TooLong(it.0))?;
        Ok(kept)
    }

    fn decode(kept: &[u8]) -> Option<Self> {
        FORMAT.check(kept).ok()?;
        let payload = frame::payload(kept, frame::HEADER_LEN)?;
        // JSON has no line break of its own.
        let end = payload.iter().position(|it| *it == b'\n')?;
        let head: HeadJson = json::decode(&payload[..end]).ok()?;
        Some(Self {
            rollout: head.rollout.parse().ok()?,
            attempt: head.attempt,
            visit: Timestamp(head.visit_ms),
            told: Order { seq: head.seq, at: Timestamp(head.at_ms) },
            bets: payload[end + 1..].to_vec(),
        })
    }
}

fn key(rollout: &Name) -> String {
    format!("checkpoint/{rollout}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    fn checkpoint(rollout: &str, seq: u64, bets: &[u8]) -> Checkpoint {
        Checkpoint {
            rollout: rollout.parse().unwrap(),
            attempt: 3,
            visit: Timestamp(17),
            told: Order { seq, at: Timestamp(99) },
            bets: bets.to_vec(),
        }
    }

    #[test]
    fn the_last_checkpoint_of_each_rollout_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Pairs::open(dir.path(), samples::LIMITS).unwrap();
        let long = checkpoint("long", 0, &vec![0; CHECKPOINT_LEN_MAX]);
        let last = checkpoint("chat", 2, b"new\n\0bytes");
        let pairs = open();
        for it in [&checkpoint("chat", 1, b"old"), &last, &checkpoint("search", 0, b""), &long] {
            it.save(&pairs).unwrap();
        }
        drop(pairs);
        let pairs = open();
        let load = |rollout: &str| Checkpoint::load(&pairs, &rollout.parse().unwrap());
        assert_eq!(load("chat"), Some(last));
        assert_eq!(load("search"), Some(checkpoint("search", 0, b"")));
        assert_eq!(load("long"), Some(long));
        assert_eq!(load("other"), None);
    }

    #[test]
    fn a_checkpoint_that_is_cut_or_changed_anywhere_is_none() {
        let whole = checkpoint("chat", 1, b"evidence").encode().unwrap();
        assert!(Checkpoint::decode(&whole).is_some());
        for len in 0..whole.len() {
            assert_eq!(Checkpoint::decode(&whole[..len]), None, "cut at {len}");
        }
        for (byte, bit) in (0..whole.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << bit;
            assert_eq!(Checkpoint::decode(&flipped), None, "bit {bit} of byte {byte}");
        }
    }

    #[test]
    fn a_checkpoint_of_another_rollout_or_too_long_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(dir.path(), samples::LIMITS).unwrap();
        let other = checkpoint("search", 1, b"x").encode().unwrap();
        pairs.keep("checkpoint/chat", &other).unwrap();
        assert_eq!(Checkpoint::load(&pairs, &"chat".parse().unwrap()), None);
        let long = checkpoint("chat", 1, &vec![0; frame::PAYLOAD_LEN_MAX]);
        let error = long.save(&pairs).unwrap_err();
        assert!(matches!(error, PairsError::TooLong { .. }), "{error}");
    }
}
