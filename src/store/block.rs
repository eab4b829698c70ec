//! A block: pairs of one window and of one second, packed together.
//!
//! `len u32 LE | zstd(heads) | zstd(bodies)`: the heads are `id u128 BE` and the record of each pair,
//! the bodies are the three of each, in the same order. So what is known of pairs is read without what
//! was said, and a segment alone is enough to find them again.

use std::io;

use super::{
    bodies::Bodies,
    entry::{Packer, push, take, unpack},
    json::DecodeError,
    pair,
};
use crate::domain::{Pair, PairId};

/// Bytes of bodies after which a block ends: so many are unpacked to see those of one pair.
const BLOCK_BYTES_MAX: usize = 64 << 10;
/// Pairs after which a block ends.
const BLOCK_LEN_MAX: usize = 64;
/// Blocks hold pairs of one second each, so that one is found among those of its second.
const SPAN_MS: u64 = 1_000;

/// What is known of the pairs of a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block(Vec<(PairId, Vec<u8>)>);

impl Block {
    /// One pair that stands alone.
    pub(super) fn alone(id: PairId, record: &[u8]) -> Self {
        Self(vec![(id, record.to_vec())])
    }

    /// The ids of its pairs.
    pub(super) fn ids(&self) -> impl Iterator<Item = PairId> + '_ {
        self.0.iter().map(|(id, _)| *id)
    }

    /// Its pairs, or why one cannot be read.
    pub(super) fn pairs(&self) -> impl Iterator<Item = Result<Pair, DecodeError>> + '_ {
        self.0.iter().map(|(id, record)| pair::decode(*id, record))
    }

    /// One of its pairs, or why it cannot be read; none when it is not among them.
    pub(super) fn pair(&self, id: PairId) -> Option<Result<Pair, DecodeError>> {
        let (_, record) = self.0.iter().find(|it| it.0 == id)?;
        Some(pair::decode(id, record))
    }

    /// The bytes of pairs with these records.
    pub(super) fn encode(
        packer: &Packer,
        records: &[(PairId, Vec<u8>, Bodies)],
    ) -> io::Result<Vec<u8>> {
        let said = |(.., kept): &(_, _, Bodies)| kept.len() + 3 * size_of::<u32>();
        let mut bodies = Vec::with_capacity(records.iter().map(said).sum());
        let mut heads = Vec::new();
        for (id, record, kept) in records {
            heads.extend(id.0.to_be_bytes());
            push(&mut heads, record)?;
            for body in [&kept.request, &kept.primary, &kept.candidate] {
                push(&mut bodies, body)?;
            }
        }
        let mut block = Vec::new();
        push(&mut block, &packer.pack(&heads)?)?;
        block.extend(packer.pack(&bodies)?);
        Ok(block)
    }

    /// What is known of the pairs of some bytes.
    pub(super) fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let heads = unpack(take(&mut bytes)?)?;
        let (mut heads, mut block) = (&heads[..], Vec::new());
        while let Some((id, rest)) = heads.split_first_chunk() {
            heads = rest;
            let record = take(&mut heads)?.to_vec();
            block.push((PairId(u128::from_be_bytes(*id)), record));
        }
        Ok(Self(block))
    }

    /// The bodies of a pair of some bytes; none when it is not among them.
    pub(super) fn bodies(mut bytes: &[u8], of: PairId) -> Result<Option<Bodies>, DecodeError> {
        let heads = Self::decode(bytes)?;
        take(&mut bytes)?;
        let Some(before) = heads.ids().position(|it| it == of) else { return Ok(None) };
        let parts = unpack(bytes)?;
        let mut parts = &parts[..];
        for _ in 0..before {
            Bodies::take(&mut parts)?;
        }
        Bodies::take(&mut parts).map(Some)
    }
}

/// The second in which a pair was asked; blocks of one second may hold any of its pairs.
pub(super) fn second(id: PairId) -> u64 {
    u64::try_from(id.0 >> 80).unwrap_or(u64::MAX) / SPAN_MS
}

/// The lowest id of a second.
pub(super) fn first_of(second: u64) -> PairId {
    PairId(u128::from(second.saturating_mul(SPAN_MS)) << 80)
}

/// Pairs cut into what goes into a block each, by window and id.
pub(super) fn cut(batch: &[(Pair, Bodies)]) -> Vec<Vec<&(Pair, Bodies)>> {
    let mut pairs: Vec<&(Pair, Bodies)> = batch.iter().collect();
    pairs.sort_by(|(a, _), (b, _)| a.window.cmp(&b.window).then(a.id.cmp(&b.id)));
    let mut blocks: Vec<Vec<&(Pair, Bodies)>> = Vec::new();
    let mut len = 0;
    for pair in pairs {
        len += pair.1.len();
        let fits = |block: &Vec<&(Pair, Bodies)>| {
            let goes_with = |it: &&(Pair, Bodies)| {
                it.0.window == pair.0.window && second(it.0.id) == second(pair.0.id)
            };
            block.last().is_some_and(goes_with)
                && block.len() < BLOCK_LEN_MAX
                && len <= BLOCK_BYTES_MAX
        };
        if let Some(block) = blocks.last_mut().filter(|it| fits(it)) {
            block.push(pair);
        } else {
            len = pair.1.len();
            blocks.push(vec![pair]);
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::samples;

    #[test]
    fn a_block_is_of_one_window_and_one_second_and_short() {
        let of = |rollout: &str, at: u64, len: usize| {
            (samples::pair(rollout, at, at), samples::bodies(&"x".repeat(len)))
        };
        let cuts = |batch: &[(Pair, Bodies)]| -> Vec<Vec<u64>> {
            cut(batch).iter().map(|it| it.iter().map(|(pair, _)| pair.at.0).collect()).collect()
        };
        let batch = [of("b", 1_002, 1), of("a", 1_999, 1), of("a", 2_000, 1), of("a", 1_001, 1)];
        assert_eq!(cuts(&batch), [vec![1_001, 1_999], vec![2_000], vec![1_002]]);
        let long = BLOCK_BYTES_MAX;
        let batch = [of("a", 1, 1), of("a", 2, long), of("a", 3, 1), of("a", 4, 1)];
        assert_eq!(cuts(&batch), [vec![1], vec![2], vec![3, 4]]);
        let many: Vec<_> = (0..100).map(|at| of("a", at, 1)).collect();
        assert_eq!(cut(&many).iter().map(Vec::len).collect::<Vec<_>>(), [64, 36]);
        assert!(cut(&[]).is_empty());
    }

    #[test]
    fn a_second_begins_with_its_lowest_id() {
        let id = samples::id(5_999, 7);
        assert_eq!((second(id), first_of(5) <= id, id < first_of(6)), (5, true, true));
        assert_eq!(first_of(u64::MAX), first_of(u64::MAX - 1));
    }
}
