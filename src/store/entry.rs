//! What a frame of a segment carries: one pair with its bodies, one score, or notes of a window.
//!
//! `kind u8 | pair id u128 BE | zstd(parts)`, each part as `len u32 LE | bytes`: first the
//! record, then for a pair its three bodies. The id of notes is 0. So a segment alone is enough to find a pair again.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use zstd::bulk::Compressor;

use super::{json::DecodeError, note, pair};
use crate::domain::{Note, Pair, PairId, Score, Window};

/// Most bytes kept of each body.
pub(super) const BODY_LEN_MAX: usize = 256 << 10;
/// What ends a body that was longer.
pub(super) const CUT_MARK: &[u8] = b"\n[cut here: longer than what is kept]";

const ZSTD_LEVEL: i32 = 3;
/// Most bytes of unpacked parts: three bodies, and a record with ample room.
const PARTS_BYTES_MAX: usize = 3 * BODY_LEN_MAX + (64 << 10);
const PAIR: u8 = 1;
const SCORE: u8 = 2;
const NOTES: u8 = 3;

/// What was asked and what both sides said.
///
/// A body longer than 256 KiB is kept up to there, and then ends with a mark that says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bodies {
    /// The request as the caller sent it.
    pub request: Bytes,
    /// The primary's answer as JSON: `text`, `tool_calls`, `refusal`.
    pub primary: Bytes,
    /// The candidate's answer, in the same form.
    pub candidate: Bytes,
}

impl Bodies {
    /// Whether one of them is only its beginning.
    pub fn is_cut(&self) -> bool {
        [&self.request, &self.primary, &self.candidate].iter().any(|it| it.ends_with(CUT_MARK))
    }

    /// Whether there are none: whoever keeps the pair is not cleared for its data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bodies as they are kept. One that is cut lets go of the memory of the whole.
    pub(super) fn cut(self) -> Self {
        let Self { request, primary, candidate } = self;
        Self { request: cut(request), primary: cut(primary), candidate: cut(candidate) }
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        self.request.len() + self.primary.len() + self.candidate.len()
    }
}

fn cut(body: Bytes) -> Bytes {
    if body.len() <= BODY_LEN_MAX {
        return body;
    }
    let room = BODY_LEN_MAX - CUT_MARK.len();
    let continues = |at: &usize| body.get(*at).is_some_and(|byte| byte & 0xC0 == 0x80);
    // At most three bytes back lies the beginning of a character, if this is UTF-8 at all.
    let end = (room - 3..=room).rev().find(|at| !continues(at)).unwrap_or(room);
    [&body[..end], CUT_MARK].concat().into()
}

/// One frame's content.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    /// A pair and its bodies.
    Pair(Box<Pair>, Bodies),
    /// A score of a pair kept earlier.
    Score(Score),
    /// Notes of one window.
    Notes(Vec<Note>),
}

/// Makes payloads. What it packs with is large and costs time to make, so it is kept.
#[derive(Default)]
pub(super) struct Packer(Mutex<Option<Compressor<'static>>>);

impl Packer {
    /// The payload of a pair with this record.
    pub(super) fn pair(
        &self,
        id: PairId,
        record: &[u8],
        bodies: &Bodies,
    ) -> std::io::Result<Vec<u8>> {
        let bodies = bodies.clone().cut();
        self.pack(PAIR, id, &[record, &bodies.request, &bodies.primary, &bodies.candidate])
    }

    /// The payload of a score.
    pub(super) fn score(&self, score: &Score) -> std::io::Result<Vec<u8>> {
        self.pack(SCORE, score.pair, &[&pair::encode_score(score)])
    }

    /// The payload of notes of one window, as many as can be unpacked again.
    pub(super) fn notes(&self, window: &Window, notes: &[Note]) -> std::io::Result<Vec<u8>> {
        self.pack(NOTES, PairId(0), &[&note::encode(window, notes)])
    }

    fn pack(&self, kind: u8, id: PairId, parts: &[&[u8]]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(parts.iter().map(|it| it.len() + 4).sum());
        for part in parts {
            let len = u32::try_from(part.len()).map_err(std::io::Error::other)?;
            plain.extend(len.to_le_bytes());
            plain.extend(*part);
        }
        if PARTS_BYTES_MAX < plain.len() {
            return Err(std::io::Error::other("more than what can be unpacked again"));
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let compressor = match &mut *kept {
            Some(compressor) => compressor,
            none @ None => none.insert(Compressor::new(ZSTD_LEVEL)?),
        };
        let packed = compressor.compress(&plain)?;
        Ok([&[kind], &id.0.to_be_bytes()[..], &packed].concat())
    }
}

/// What a payload carries.
pub(super) fn decode(payload: &[u8]) -> Result<Entry, DecodeError> {
    let (kind, rest) = payload.split_first().ok_or(DecodeError::Parts)?;
    let (id, packed) = rest.split_first_chunk().ok_or(DecodeError::Parts)?;
    let id = PairId(u128::from_be_bytes(*id));
    let parts = zstd::bulk::decompress(packed, PARTS_BYTES_MAX).map_err(DecodeError::Unpack)?;
    let mut parts = Bytes::from(parts);
    match *kind {
        PAIR => {
            let pair = pair::decode(id, &take(&mut parts)?)?;
            let (request, primary) = (take(&mut parts)?, take(&mut parts)?);
            let candidate = take(&mut parts)?;
            Ok(Entry::Pair(Box::new(pair), Bodies { request, primary, candidate }))
        }
        SCORE => Ok(Entry::Score(pair::decode_score(id, &take(&mut parts)?)?)),
        NOTES => Ok(Entry::Notes(note::decode(&take(&mut parts)?)?)),
        other => Err(DecodeError::Value { field: "kind", value: other.to_string() }),
    }
}

fn take(parts: &mut Bytes) -> Result<Bytes, DecodeError> {
    let len = parts.first_chunk().map(|it| u32::from_le_bytes(*it)).ok_or(DecodeError::Parts)?;
    let end = usize::try_from(len).ok().and_then(|it| it.checked_add(4));
    match end {
        Some(end) if end <= parts.len() => Ok(parts.split_to(end).split_off(4)),
        Some(_) | None => Err(DecodeError::Parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    fn packed(pair: &Pair, bodies: &Bodies) -> Vec<u8> {
        Packer::default().pair(pair.id, &pair::encode(pair), bodies).unwrap()
    }

    #[test]
    fn entries_read_back() {
        let (pair, bodies) = (samples::pair("chat", 1_000, 1), samples::bodies("hello"));
        let payload = packed(&pair, &bodies);
        assert_eq!(decode(&payload).unwrap(), Entry::Pair(Box::new(pair.clone()), bodies));
        let score = samples::score(&pair, "judge:m@r");
        let payload = Packer::default().score(&score).unwrap();
        assert_eq!(decode(&payload).unwrap(), Entry::Score(score));
        let notes = samples::notes(&pair, 1, 3);
        let payload = Packer::default().notes(&pair.window, &notes).unwrap();
        assert_eq!(decode(&payload).unwrap(), Entry::Notes(notes));
    }

    #[test]
    fn long_bodies_are_cut_between_characters_and_marked() {
        let request = Bytes::from("€".repeat(BODY_LEN_MAX));
        let bodies = Bodies { request, ..samples::bodies("short") };
        assert!(!bodies.is_cut());
        let payload = packed(&samples::pair("chat", 1_000, 1), &bodies);
        let Entry::Pair(_, kept) = decode(&payload).unwrap() else { panic!("not a pair") };
        assert!(kept.is_cut() && kept.request.len() <= BODY_LEN_MAX);
        assert!(std::str::from_utf8(&kept.request).is_ok());
        assert_eq!(kept.primary, bodies.primary);
    }

    #[test]
    fn the_largest_entry_fits_a_frame() {
        let mut seed = 1_u64;
        let mut noise = || {
            let bytes = std::iter::repeat_with(|| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_le_bytes()
            });
            Bytes::from(bytes.take(BODY_LEN_MAX / 4).flatten().collect::<Vec<u8>>())
        };
        let bodies = Bodies { request: noise(), primary: noise(), candidate: noise() };
        let payload = packed(&samples::pair("chat", 1_000, 1), &bodies);
        assert!(payload.len() < crate::store::frame::PAYLOAD_LEN_MAX);
        assert!(decode(&payload).is_ok());
    }

    #[test]
    fn a_payload_that_does_not_add_up_is_an_error() {
        let payload = packed(&samples::pair("chat", 1_000, 1), &Bodies::default());
        for end in 0..payload.len() {
            assert!(decode(&payload[..end]).is_err(), "cut at {end}");
        }
        let other = [&[9], &payload[1..]].concat();
        assert_eq!(decode(&other).unwrap_err().to_string(), "`kind` cannot be `9`");
    }
}
