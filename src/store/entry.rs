//! What a frame of a segment carries: a block of pairs, one score, one review, or notes of a window.
//!
//! `kind u8 | id u128 BE | rest`. The id of a block is that of its first pair, the id of a score or
//! review that of its pair, and the id of notes 0. The rest of a block is told in `block`; of the others
//! it is one record, packed.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use zstd::bulk::{Compressor, Decompressor};

use super::{
    block::Block,
    bodies::{BODY_LEN_MAX, Bodies},
    json::DecodeError,
    note, pair, review,
};
use crate::domain::{Note, PairId, Review, Score, Window};

/// The level that packs the most for what it costs: the next ones take twice the time for some
/// hundredths of the bytes.
const ZSTD_LEVEL: i32 = 1;
/// Most bytes of unpacked parts: three bodies of one pair, and a record with ample room.
pub(super) const PARTS_BYTES_MAX: usize = 3 * BODY_LEN_MAX + (64 << 10);

/// A pair alone, as older programs wrote it: its record and its bodies, packed together.
const PAIR: u8 = 1;
const SCORE: u8 = 2;
const NOTES: u8 = 3;
const BLOCK: u8 = 4;
const REVIEW: u8 = 5;

/// One frame's content.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    /// Pairs of one window.
    Block(Block),
    /// A score of a pair kept earlier.
    Score(Score),
    /// Notes of one window.
    Notes(Vec<Note>),
    /// A pair that people were shown, as it was then.
    Review(Review),
}

/// Makes payloads. What it packs with is large and costs time to make, so it is kept.
#[derive(Default)]
pub(super) struct Packer(Mutex<Option<Compressor<'static>>>);

impl Packer {
    /// The payload of pairs of one window, whose records these are.
    pub(super) fn block(&self, records: &[(PairId, Vec<u8>, Bodies)]) -> io::Result<Vec<u8>> {
        let first = records.first().map_or(PairId(0), |(id, ..)| *id);
        Ok(payload(BLOCK, first, &Block::encode(self, records)?))
    }

    /// The payload of a score.
    pub(super) fn score(&self, score: &Score) -> io::Result<Vec<u8>> {
        let mut record = Vec::new();
        push(&mut record, &pair::encode_score(score))?;
        Ok(payload(SCORE, score.pair, &self.pack(&record)?))
    }

    /// The payload of a review.
    pub(super) fn review(&self, of: &Review) -> io::Result<Vec<u8>> {
        let mut record = Vec::new();
        push(&mut record, &review::encode(of))?;
        Ok(payload(REVIEW, of.pair, &self.pack(&record)?))
    }

    /// The payload of notes of one window, as many as can be unpacked again.
    pub(super) fn notes(&self, window: &Window, notes: &[Note]) -> io::Result<Vec<u8>> {
        let mut record = Vec::new();
        push(&mut record, &note::encode(window, notes))?;
        Ok(payload(NOTES, PairId(0), &self.pack(&record)?))
    }

    /// Packs what can be unpacked again.
    pub(super) fn pack(&self, parts: &[u8]) -> io::Result<Vec<u8>> {
        if PARTS_BYTES_MAX < parts.len() {
            return Err(io::Error::other("more than what can be unpacked again"));
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let compressor = match &mut *kept {
            Some(compressor) => compressor,
            none @ None => none.insert(Compressor::new(ZSTD_LEVEL)?),
        };
        compressor.compress(parts)
    }
}

fn payload(kind: u8, id: PairId, rest: &[u8]) -> Vec<u8> {
    [&[kind], &id.0.to_be_bytes()[..], rest].concat()
}

/// What a payload carries.
pub(super) fn decode(payload: &[u8]) -> Result<Entry, DecodeError> {
    let (kind, id, rest) = split(payload)?;
    match kind {
        BLOCK => Ok(Entry::Block(Block::decode(rest)?)),
        PAIR => Ok(Entry::Block(Block::alone(id, take(&mut &unpack(rest)?[..])?))),
        SCORE => Ok(Entry::Score(pair::decode_score(id, take(&mut &unpack(rest)?[..])?)?)),
        REVIEW => Ok(Entry::Review(review::decode(id, take(&mut &unpack(rest)?[..])?)?)),
        NOTES => Ok(Entry::Notes(note::decode(take(&mut &unpack(rest)?[..])?)?)),
        other => Err(DecodeError::Value { field: "kind", value: other.to_string() }),
    }
}

/// The bodies of a pair of a payload; none when it is not in it.
pub(super) fn bodies(payload: &[u8], of: PairId) -> Result<Option<Bodies>, DecodeError> {
    let (kind, id, rest) = split(payload)?;
    match kind {
        BLOCK => Block::bodies(rest, of),
        PAIR if id == of => {
            let parts = unpack(rest)?;
            let mut parts = &parts[..];
            take(&mut parts)?;
            Bodies::take(&mut parts).map(Some)
        }
        _ => Ok(None),
    }
}

fn split(payload: &[u8]) -> Result<(u8, PairId, &[u8]), DecodeError> {
    let (kind, rest) = payload.split_first().ok_or(DecodeError::Parts)?;
    let (id, rest) = rest.split_first_chunk().ok_or(DecodeError::Parts)?;
    Ok((*kind, PairId(u128::from_be_bytes(*id)), rest))
}

/// Parts that were packed together.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, DecodeError> {
    // What it says of its length is what is allocated, within the bound.
    let len = Decompressor::<'_>::upper_bound(packed).unwrap_or(PARTS_BYTES_MAX);
    let len = len.min(PARTS_BYTES_MAX);
    zstd::bulk::decompress(packed, len).map_err(DecodeError::Unpack)
}

/// Adds a part, as `len u32 LE | bytes`.
pub(super) fn push(parts: &mut Vec<u8>, part: &[u8]) -> io::Result<()> {
    parts.extend(u32::try_from(part.len()).map_err(io::Error::other)?.to_le_bytes());
    parts.extend(part);
    Ok(())
}

/// Takes the next part.
pub(super) fn take<'a>(parts: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let (len, rest) = parts.split_first_chunk().ok_or(DecodeError::Parts)?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| DecodeError::Parts)?;
    let (part, rest) = rest.split_at_checked(len).ok_or(DecodeError::Parts)?;
    *parts = rest;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::Pair;
    use crate::store::samples;

    fn packed(pairs: &[(Pair, Bodies)]) -> Vec<u8> {
        let record =
            |(pair, bodies): &(Pair, Bodies)| (pair.id, pair::encode(pair), bodies.clone());
        Packer::default().block(&pairs.iter().map(record).collect::<Vec<_>>()).unwrap()
    }

    fn three() -> Vec<(Pair, Bodies)> {
        let pair = |n| (samples::pair("chat", 1_000 + n, n), samples::bodies(&n.to_string()));
        (1..=3).map(pair).collect()
    }

    #[test]
    fn entries_read_back() {
        let pairs = three();
        let payload = packed(&pairs);
        let Entry::Block(block) = decode(&payload).unwrap() else { panic!("not a block") };
        assert_eq!(block.pairs().map(Result::unwrap).collect::<Vec<_>>(), pairs_of(&pairs));
        for (pair, kept) in &pairs {
            assert_eq!(bodies(&payload, pair.id).unwrap().as_ref(), Some(kept));
        }
        assert_eq!(bodies(&payload, PairId(7)).unwrap(), None);
        let score = samples::score(&pairs[0].0, "judge:m@r");
        let payload = Packer::default().score(&score).unwrap();
        assert_eq!(decode(&payload).unwrap(), Entry::Score(score));
        let notes = samples::notes(&pairs[0].0, 1, 3);
        let payload = Packer::default().notes(&pairs[0].0.window, &notes).unwrap();
        assert_eq!(decode(&payload).unwrap(), Entry::Notes(notes));
    }

    fn pairs_of(pairs: &[(Pair, Bodies)]) -> Vec<Pair> {
        pairs.iter().map(|(pair, _)| pair.clone()).collect()
    }

    #[test]
    fn a_pair_that_an_older_program_wrote_reads_back() {
        let (pair, kept) = three().remove(0);
        let mut parts = Vec::new();
        for part in [&pair::encode(&pair)[..], &kept.request, &kept.primary, &kept.candidate] {
            push(&mut parts, part).unwrap();
        }
        let payload = payload(PAIR, pair.id, &Packer::default().pack(&parts).unwrap());
        let Entry::Block(block) = decode(&payload).unwrap() else { panic!("not a block") };
        assert_eq!(block.pairs().map(Result::unwrap).next().as_ref(), Some(&pair));
        assert_eq!(bodies(&payload, pair.id).unwrap(), Some(kept));
        assert_eq!(bodies(&payload, PairId(7)).unwrap(), None);
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
        let kept = Bodies { request: noise(), primary: noise(), candidate: noise() };
        let payload = packed(&[(samples::pair("chat", 1_000, 1), kept.cut())]);
        assert!(payload.len() < crate::store::frame::PAYLOAD_LEN_MAX);
        assert!(decode(&payload).is_ok());
    }

    #[test]
    fn a_payload_that_does_not_add_up_is_an_error() {
        let pairs = three();
        let payload = packed(&pairs);
        let read = |payload: &[u8]| -> Result<(), DecodeError> {
            decode(payload)?;
            bodies(payload, pairs[2].0.id).map(drop)
        };
        for end in 0..payload.len() {
            assert!(read(&payload[..end]).is_err(), "cut at {end}");
        }
        let other = [&[9], &payload[1..]].concat();
        assert_eq!(decode(&other).unwrap_err().to_string(), "`kind` cannot be `9`");
    }
}
