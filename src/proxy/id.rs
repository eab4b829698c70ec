//! Ids of requests: `UUIDv7`s whose random part costs no system call.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::domain::{PairId, Timestamp};

/// The key of this process, from the system's randomness.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
/// Ids made so far.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A new id. It begins with our own time, as everything that is weighed with it: the wall clock
/// may have been moved since. The rest is a keyed hash (`SipHash`) of how many were made before, so
/// nobody who does not have the key can foresee which shares it falls into.
pub(super) fn pair_id(at: Timestamp) -> PairId {
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let [high, low] = [0_u8, 1].map(|half| KEY.hash_one((number, half)));
    let mut random = [0; 10];
    random[..8].copy_from_slice(&high.to_le_bytes());
    random[8..].copy_from_slice(&low.to_le_bytes()[..2]);
    PairId(uuid::Builder::from_unix_timestamp_millis(at.0, &random).into_uuid().as_u128())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_id_of_a_request_says_when_it_came_by_our_own_time() {
        let at = Timestamp(1_999_999_999_123);
        let ids: HashSet<u128> = (0..10_000).map(|_| pair_id(at).0).collect();
        assert_eq!(ids.len(), 10_000);
        for id in ids {
            assert_eq!(PairId(id).at(), at);
            assert_eq!(uuid::Uuid::from_u128(id).get_version_num(), 7);
        }
    }
}
