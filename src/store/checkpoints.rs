//! Checkpoints: the evidence of a rollout as it was a moment ago, so that a restart need not
//! count every stored pair again.
//!
//! A checkpoint is a convenience and never a truth. It says itself what it is of, and carries a
//! checksum; one that is lost, torn, of another window or of a later version is none, and the
//! evidence is rebuilt from the pairs instead. It lies in the index beside them, which hands
//! everything to the disk within a second and promises nothing when the power fails.

use serde::{Deserialize, Serialize};

use super::{
    Pairs, PairsError,
    frame::{self, Format},
    json,
};
use crate::domain::{Name, Window};

/// Longest evidence of one rollout, in bytes.
pub const CHECKPOINT_LEN_MAX: usize = frame::PAYLOAD_LEN_MAX - HEAD_LEN_MAX;
/// Longest JSON before it.
const HEAD_LEN_MAX: usize = 1 << 10;
const FORMAT: Format = Format { magic: *b"xf-chkpt", version: 1 };

/// Keeps a checkpoint for each rollout. Every call blocks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Checkpoints(Pairs);

#[derive(Serialize, Deserialize)]
struct HeadJson {
    v: u32,
    rollout: String,
    attempt: u32,
    stage: u32,
}

impl Checkpoints {
    /// The checkpoints beside these pairs.
    pub fn new(pairs: Pairs) -> Self {
        Self(pairs)
    }

    /// Keeps the evidence of a window, in place of what was kept of its rollout.
    ///
    /// # Errors
    /// When the index refuses, or there are more bytes than [`CHECKPOINT_LEN_MAX`].
    pub fn save(&self, window: &Window, bytes: &[u8]) -> Result<(), PairsError> {
        self.0.keep(&key(&window.rollout), &encode(window, bytes)?)
    }

    /// What was kept last of a rollout, with the window it is of; none too when it is damaged,
    /// which is logged.
    pub fn load(&self, rollout: &Name) -> Option<(Window, Vec<u8>)> {
        let kept = self.0.kept(&key(rollout))?;
        let decoded = decode(&kept).filter(|(window, _)| window.rollout == *rollout);
        if decoded.is_none() {
            tracing::warn!(%rollout, "the checkpoint is damaged; evidence comes from the pairs");
        }
        decoded
    }
}

fn key(rollout: &Name) -> String {
    format!("checkpoint/{rollout}")
}

fn encode(window: &Window, bytes: &[u8]) -> Result<Vec<u8>, PairsError> {
    let mut payload = json::encode(&HeadJson {
        v: json::VERSION,
        rollout: window.rollout.as_str().to_owned(),
        attempt: window.attempt,
        stage: window.stage,
    });
    payload.push(b'\n');
    payload.extend(bytes);
    let mut kept = FORMAT.header().to_vec();
    frame::push(&mut kept, &payload).map_err(|it| PairsError::TooLong(it.0))?;
    Ok(kept)
}

fn decode(kept: &[u8]) -> Option<(Window, Vec<u8>)> {
    FORMAT.check(kept).ok()?;
    let payload = frame::payload(kept, frame::HEADER_LEN)?;
    // JSON has no line break of its own.
    let end = payload.iter().position(|it| *it == b'\n')?;
    let head: HeadJson = json::decode(&payload[..end]).ok()?;
    let rollout = head.rollout.parse().ok()?;
    let window = Window { rollout, attempt: head.attempt, stage: head.stage };
    Some((window, payload[end + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    fn window(rollout: &str, stage: u32) -> Window {
        Window { rollout: rollout.parse().unwrap(), attempt: 3, stage }
    }

    #[test]
    fn the_last_checkpoint_of_each_rollout_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Checkpoints::new(Pairs::open(dir.path(), samples::LIMITS).unwrap());
        let checkpoints = open();
        checkpoints.save(&window("chat", 1), b"old").unwrap();
        checkpoints.save(&window("chat", 2), b"new\n\0bytes").unwrap();
        checkpoints.save(&window("search", 0), b"").unwrap();
        let long = vec![0; CHECKPOINT_LEN_MAX];
        checkpoints.save(&window("long", 0), &long).unwrap();
        drop(checkpoints);
        let checkpoints = open();
        let load = |rollout: &str| checkpoints.load(&rollout.parse().unwrap());
        assert_eq!(load("chat"), Some((window("chat", 2), b"new\n\0bytes".to_vec())));
        assert_eq!(load("search"), Some((window("search", 0), Vec::new())));
        assert_eq!(load("long"), Some((window("long", 0), long)));
        assert_eq!(load("other"), None);
    }

    #[test]
    fn a_checkpoint_that_is_cut_or_changed_anywhere_is_none() {
        let whole = encode(&window("chat", 1), b"evidence").unwrap();
        assert!(decode(&whole).is_some());
        for len in 0..whole.len() {
            assert_eq!(decode(&whole[..len]), None, "cut at {len}");
        }
        for (byte, bit) in (0..whole.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut flipped = whole.clone();
            flipped[byte] ^= 1 << bit;
            assert_eq!(decode(&flipped), None, "bit {bit} of byte {byte}");
        }
    }

    #[test]
    fn a_checkpoint_of_another_rollout_or_too_long_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(dir.path(), samples::LIMITS).unwrap();
        pairs.keep("checkpoint/chat", &encode(&window("search", 1), b"x").unwrap()).unwrap();
        let checkpoints = Checkpoints::new(pairs);
        assert_eq!(checkpoints.load(&"chat".parse().unwrap()), None);
        let long = vec![0; frame::PAYLOAD_LEN_MAX];
        let error = checkpoints.save(&window("chat", 1), &long).unwrap_err();
        assert!(matches!(error, PairsError::TooLong { .. }), "{error}");
    }
}
