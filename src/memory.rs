//! Memory for what no caller waits for: one budget of bytes, given up in a fixed order, shared
//! fairly between rollouts.
//!
//! The more of it is held, the fewer needs may have more: copies go without it first, then the
//! judge, then answers that are read alone, then what answers under way still bring, and requests
//! that are read whole last. What a provider's answer needs to get to its caller is not of this
//! budget: it is bounded for each connection, and never refused. Neither is what an answer takes
//! while it is read, up to forty times its bytes: no more are read at once than there are workers.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::domain::Share;

/// What memory is needed for; who goes without it first stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A copy that begins: up to half of the budget.
    Copy,
    /// Texts that wait for the judge: up to 5/8.
    Judge,
    /// An answer that begins and is read alone: up to 6/8.
    Solo,
    /// What an answer under way brings, alone or for a pair: up to 7/8.
    Answer,
    /// A request that is read whole, to see where it goes: all of it.
    Request,
}

/// The budget. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    bytes: AtomicUsize,
    bytes_max: usize,
}

/// What one rollout has now.
#[derive(Debug, Default)]
pub struct Part {
    bytes: AtomicUsize,
    copies: AtomicUsize,
}

/// A rollout's part, and in how many parts the limits are divided: none has more than its own.
#[derive(Clone, Debug)]
pub struct Fair {
    part: Arc<Part>,
    parts: usize,
}

/// Bytes that are held for a need; given back when dropped.
#[derive(Debug)]
pub struct Held {
    memory: Memory,
    need: Need,
    fair: Option<Fair>,
    bytes: usize,
}

/// A rollout's place for a copy; given back when dropped.
#[derive(Debug)]
pub struct Seat(Arc<Part>);

/// There is no more memory for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Need {
    /// Up to how many eighths of the budget it may have more.
    fn eighths(self) -> usize {
        match self {
            Self::Copy => 4,
            Self::Judge => 5,
            Self::Solo => 6,
            Self::Answer => 7,
            Self::Request => 8,
        }
    }
}

impl Memory {
    /// A budget of so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Budget { bytes: AtomicUsize::new(0), bytes_max }))
    }

    /// Bytes that are held now.
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Relaxed)
    }

    /// Whether this need may have any more now.
    pub fn has_room(&self, need: Need) -> bool {
        self.bytes() < self.limit(need)
    }

    /// Whether a rollout's copy may begin for this key. From half of what its copies may have, fewer
    /// and fewer keys have one, by their hash, so that who has none is no matter of luck in time.
    pub fn admits_copy(&self, fair: &Fair, key: &str) -> bool {
        let limit = self.limit(Need::Copy) / fair.parts;
        let room = limit.saturating_sub(fair.part.bytes.load(Relaxed));
        let share = (room.saturating_mul(20_000) / limit.max(1)).min(10_000);
        let share = u16::try_from(share).ok().and_then(|it| Share::from_basis_points(it).ok());
        share.unwrap_or(Share::NONE).includes("shed", key)
    }

    /// Begins to hold nothing yet, for a rollout or for nobody's.
    pub fn hold(&self, need: Need, fair: Option<&Fair>) -> Held {
        Held { memory: self.clone(), need, fair: fair.cloned(), bytes: 0 }
    }

    fn limit(&self, need: Need) -> usize {
        self.0.bytes_max / 8 * need.eighths()
    }
}

impl Held {
    /// Holds so many bytes more, if its need may have them and its rollout's part has room.
    ///
    /// # Errors
    /// When there is no room; what was held before is still held.
    pub fn try_grow(&mut self, bytes: usize) -> Result<(), Full> {
        let limit = self.memory.limit(self.need);
        take(&self.memory.0.bytes, bytes, limit)?;
        if let Some(Fair { part, parts }) = &self.fair
            && take(&part.bytes, bytes, limit / parts).is_err()
        {
            self.memory.0.bytes.fetch_sub(bytes, Relaxed);
            return Err(Full);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// What was held for nobody is a rollout's from now on, if its part has room.
    ///
    /// # Errors
    /// When there is no room; it is still held for nobody.
    pub fn give_to(&mut self, fair: &Fair) -> Result<(), Full> {
        take(&fair.part.bytes, self.bytes, self.memory.limit(self.need) / fair.parts)?;
        if let Some(before) = self.fair.replace(fair.clone()) {
            before.part.bytes.fetch_sub(self.bytes, Relaxed);
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.0.bytes.fetch_sub(self.bytes, Relaxed);
        if let Some(fair) = &self.fair {
            fair.part.bytes.fetch_sub(self.bytes, Relaxed);
        }
    }
}

impl Fair {
    /// One of so many parts.
    pub fn new(part: Arc<Part>, parts: usize) -> Self {
        Self { part, parts: parts.max(1) }
    }

    /// A place for a copy, where so many are divided between all; each part has one at least.
    pub fn try_seat(&self, seats: usize) -> Option<Seat> {
        let limit = (seats / self.parts).max(1);
        take(&self.part.copies, 1, limit).ok()?;
        Some(Seat(Arc::clone(&self.part)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.copies.fetch_sub(1, Relaxed);
    }
}

/// Adds to a count that may not go above its limit.
fn take(count: &AtomicUsize, more: usize, limit: usize) -> Result<(), Full> {
    if count.fetch_add(more, Relaxed).saturating_add(more) <= limit {
        return Ok(());
    }
    count.fetch_sub(more, Relaxed);
    Err(Full)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Need; 5] = [Need::Copy, Need::Judge, Need::Solo, Need::Answer, Need::Request];

    #[test]
    fn b60_copies_go_without_first_and_requests_last() {
        let memory = Memory::new(800);
        let mut filler = memory.hold(Need::Request, None);
        for (index, need) in ALL.into_iter().enumerate() {
            assert!(memory.has_room(need), "{need:?}");
            let mut held = memory.hold(need, None);
            filler.try_grow(memory.limit(need) - memory.bytes()).unwrap();
            assert_eq!(held.try_grow(1), Err(Full), "{need:?}");
            for before in &ALL[..=index] {
                assert!(!memory.has_room(*before), "{before:?} after {need:?}");
            }
        }
        drop(filler);
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn copies_are_shed_by_key_the_more_of_them_the_fuller_it_is() {
        let memory = Memory::new(160_000);
        let fair = Fair::new(Arc::default(), 2);
        let mut filler = memory.hold(Need::Request, Some(&fair));
        let admitted = || {
            let keys = (0..10_000).map(|it| it.to_string());
            keys.filter(|it| memory.admits_copy(&fair, it)).collect::<Vec<_>>()
        };
        filler.try_grow(20_000).unwrap();
        assert_eq!(admitted().len(), 10_000);
        filler.try_grow(10_000).unwrap();
        let half = admitted();
        assert!((4_700..5_300).contains(&half.len()), "{}", half.len());
        filler.try_grow(5_000).unwrap();
        let fewer = admitted();
        assert!((2_300..2_700).contains(&fewer.len()), "{}", fewer.len());
        assert!(fewer.iter().all(|it| half.contains(it)), "only ever fewer keys");
        filler.try_grow(5_000).unwrap();
        assert!(admitted().is_empty());
        let other = Fair::new(Arc::default(), 2);
        assert!(memory.admits_copy(&other, "1"), "which is no matter to another rollout");
    }

    #[test]
    fn no_rollout_takes_what_is_anothers() {
        let memory = Memory::new(800);
        let fair = || Fair::new(Arc::default(), 2);
        let (greedy, other) = (fair(), fair());
        let mut held = memory.hold(Need::Answer, Some(&greedy));
        held.try_grow(350).unwrap();
        assert_eq!(held.try_grow(1), Err(Full), "half of 7/8 is its part");
        assert_eq!(memory.bytes(), 350);
        let mut theirs = memory.hold(Need::Answer, Some(&other));
        theirs.try_grow(350).unwrap();
        drop(held);
        assert_eq!(memory.bytes(), 350);
        let mut request = memory.hold(Need::Request, None);
        request.try_grow(100).unwrap();
        assert_eq!(request.give_to(&other), Err(Full), "half of it all is its part");
        assert_eq!(request.give_to(&greedy), Ok(()));
        assert_eq!(greedy.part.bytes.load(Relaxed), 100);
        drop(request);
        assert_eq!((memory.bytes(), greedy.part.bytes.load(Relaxed)), (350, 0));
        let seats: Vec<_> = (0..9).map_while(|_| greedy.try_seat(8)).collect();
        assert_eq!(seats.len(), 4);
        assert!(other.try_seat(8).is_some());
        drop(seats);
        assert!(greedy.try_seat(8).is_some());
        assert!(Fair::new(Arc::default(), 9).try_seat(8).is_some(), "each has one at least");
    }
}
