//! The evidence of a window, read in the order in which it counted.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::{
    entry::{self, Entry},
    pairs::Pairs,
    pairs_error::{PairsError, to},
};
use crate::domain::{Note, Order, Seen, Timestamp, Told, Window};

/// How much later than its neighbours something may have been written, in milliseconds: what
/// was told at once passes through a queue and is written in batches.
const LATE_MS: u64 = 10_000;

/// What waits for its turn, by its place. Bounded by what came in within the longest call.
#[derive(Default)]
struct Waiting {
    turns: BinaryHeap<Reverse<(u64, Timestamp, u64)>>,
    seen: BTreeMap<u64, Seen>,
    number: u64,
}

impl Waiting {
    fn add(&mut self, seen: Seen) {
        let Order { seq, at } = seen.order();
        self.number += 1;
        self.turns.push(Reverse((seq, at, self.number)));
        self.seen.insert(self.number, seen);
    }

    /// Gives what must come before everything that begins at that time.
    fn give(&mut self, before: Timestamp, each: &mut dyn FnMut(Seen)) {
        while let Some(Reverse((_, at, number))) = self.turns.peek().copied()
            && at.0.saturating_add(LATE_MS) < before.0
        {
            self.turns.pop();
            self.seen.remove(&number).into_iter().for_each(&mut *each);
        }
    }
}

impl Pairs {
    /// Everything kept of a window, in the order in which it counted: each pair with its last
    /// score, what people said of it, and the notes. What was kept before places were kept comes by its time.
    ///
    /// # Errors
    /// When the index refuses. A record that cannot be read is passed over and counted.
    pub fn of_window(&self, window: &Window, each: &mut dyn FnMut(Seen)) -> Result<(), PairsError> {
        let mut waiting = Waiting::default();
        // People compare few pairs, and long after they were made.
        let reviewed = self.reviews_of(window)?.into_iter().filter(|it| it.counted.is_some());
        reviewed.for_each(|it| waiting.add(Seen::Review(Box::new(it))));
        let mut notes = self.index().notes(window).peekable();
        self.each_of(window, &mut |pair| {
            // Nothing counted before it was asked, so all that counted earlier is known by now.
            let asked = pair.at;
            while let Some(Ok((first, _))) = notes.peek()
                && first.0 <= asked.0.saturating_add(LATE_MS)
                && let Some(batch) = notes.next()
            {
                let (first, payload) = batch.map_err(to("list notes"))?;
                waiting.give(first.min(asked), each);
                self.read_notes(&payload, &mut |it| waiting.add(Seen::Note(Box::new(it))));
            }
            waiting.give(asked, each);
            let score = self.scores(pair.id)?.pop();
            waiting.add(Seen::Pair(Box::new(pair)));
            if let Some(score) = score {
                waiting.add(Seen::Score(Box::new(score)));
            }
            Ok(())
        })?;
        for batch in notes {
            let (first, payload) = batch.map_err(to("list notes"))?;
            waiting.give(first, each);
            self.read_notes(&payload, &mut |it| waiting.add(Seen::Note(Box::new(it))));
        }
        waiting.give(Timestamp(u64::MAX), each);
        Ok(())
    }

    /// The place after which, and the time at which, each visit of a stage or the guard began in a
    /// window, as far as that was noted.
    ///
    /// # Errors
    /// When the index refuses. A record that cannot be read is passed over and counted.
    pub fn begun(&self, window: &Window, each: &mut dyn FnMut(Order)) -> Result<(), PairsError> {
        self.notes(window, &mut |note| {
            if matches!(note.told, Told::Entered(_) | Told::Guarded) {
                each(note.order);
            }
        })
    }

    /// The notes of a window, about in their order.
    ///
    /// # Errors
    /// When the index refuses. A record that cannot be read is passed over and counted.
    pub fn notes(&self, window: &Window, each: &mut dyn FnMut(Note)) -> Result<(), PairsError> {
        for batch in self.index().notes(window) {
            let (_, payload) = batch.map_err(to("list notes"))?;
            self.read_notes(&payload, each);
        }
        Ok(())
    }

    fn read_notes(&self, payload: &[u8], each: &mut dyn FnMut(Note)) {
        match entry::decode(payload) {
            Ok(Entry::Notes(notes)) => notes.into_iter().for_each(each),
            Ok(Entry::Block(_) | Entry::Score(_) | Entry::Review(_)) | Err(_) => {
                self.count_unreadable();
            }
        }
    }
}
