//! What became of the calls that traffic made.

use std::{collections::BTreeMap, time::Duration};

/// Most times a report keeps; of more, the last.
const TIMES_LEN_MAX: usize = 100_000;

/// What callers saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficReport {
    /// Calls made. Each ended as one of `ok` and `failures`.
    pub sent: u64,
    /// Answered with success and whole.
    pub ok: u64,
    /// Of `ok`, those whose answer no model gave to that prompt.
    pub mismatches: u64,
    /// The others, by what was wrong.
    pub failures: BTreeMap<Failure, u64>,
    /// Time to the first byte of the body, of those that are ok.
    pub first_byte: Times,
    /// Time to the last byte, of those that are ok.
    pub total: Times,
}

/// Why a caller has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// An HTTP status other than success.
    Status(u16),
    /// No connection, or it broke before the answer began.
    Unreachable,
    /// The answer broke off, or is not a chat completion.
    Broken,
    /// A stream ended without `[DONE]`.
    NoDone,
    /// The answer took more than two minutes.
    Late,
}

/// How long calls took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    kept: Vec<Duration>,
    seen: usize,
}

/// One call that is over.
pub(super) struct Done {
    pub(super) result: Result<Matched, Failure>,
    pub(super) first_byte: Duration,
    pub(super) total: Duration,
}

/// Whether an answer is one that a model gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matched {
    Recorded,
    Foreign,
}

impl TrafficReport {
    /// Calls that failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(super) fn add(&mut self, done: &Done) {
        self.sent += 1;
        match done.result {
            Ok(matched) => {
                self.ok += 1;
                self.mismatches += u64::from(matched == Matched::Foreign);
                self.first_byte.add(done.first_byte);
                self.total.add(done.total);
            }
            Err(failure) => *self.failures.entry(failure).or_default() += 1,
        }
    }
}

impl Times {
    /// The time that so many of a thousand calls did not exceed (nearest rank): 500 is the
    /// median, 990 p99. None without calls. Of the last 100 000 calls.
    pub fn permille(&self, permille: usize) -> Option<Duration> {
        let mut sorted = self.kept.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * permille.min(1_000)).div_ceil(1_000).max(1);
        sorted.get(rank - 1).copied()
    }

    fn add(&mut self, time: Duration) {
        match self.kept.get_mut(self.seen % TIMES_LEN_MAX) {
            Some(oldest) => *oldest = time,
            None => self.kept.push(time),
        }
        self.seen += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_sorted_times() {
        let mut times = Times::default();
        assert_eq!(times.permille(500), None);
        for ms in (1..=200).rev() {
            times.add(Duration::from_millis(ms));
        }
        let at = |permille| times.permille(permille).unwrap().as_millis();
        assert_eq!([at(0), at(500), at(990), at(1_000)], [1, 100, 198, 200]);
    }

    #[test]
    fn only_the_last_times_are_kept() {
        let mut times = Times::default();
        for ms in 0..u64::try_from(TIMES_LEN_MAX + 5).unwrap() {
            times.add(Duration::from_millis(ms));
        }
        assert_eq!(times.kept.len(), TIMES_LEN_MAX);
        assert_eq!(times.permille(0), Some(Duration::from_millis(5)));
    }
}
