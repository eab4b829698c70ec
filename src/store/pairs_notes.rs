//! Notes put into the store: many of one window at once, and no more than can be read back.

use super::{Pairs, PairsError, frame, number, to};
use crate::domain::{Note, PairId};

impl Pairs {
    /// Stores notes; those of one window together.
    ///
    /// # Errors
    /// When the disk or the index refuses, or the disk is too full. They are counted.
    pub fn put_notes(&self, mut notes: Vec<Note>) -> Result<(), PairsError> {
        notes.sort_by(|a, b| a.window.cmp(&b.window).then(a.order.cmp(&b.order)));
        notes.chunk_by(|a, b| a.window == b.window).try_for_each(|of_window| {
            let result = self.try_put_notes(of_window);
            self.count(&self.0.counters.notes, of_window.len(), result)
        })
    }

    fn try_put_notes(&self, notes: &[Note]) -> Result<(), PairsError> {
        let (Some(first), Some(last)) = (notes.first(), notes.last()) else { return Ok(()) };
        self.refuse_when_full()?;
        let Ok(payload) = self.0.packer.notes(&first.window, notes) else {
            // Together they are too large: half of them may not be.
            let (some, more) = notes.split_at(notes.len() / 2);
            if some.is_empty() {
                return Err(PairsError::Pack { id: PairId(0) });
            }
            return self.try_put_notes(some).and_then(|()| self.try_put_notes(more));
        };
        let mut frames = Vec::new();
        frame::push(&mut frames, &payload).map_err(|_| PairsError::Pack { id: PairId(0) })?;
        let mut segments = self.segments();
        let (segment, begin) = segments.append(&(first.order.at..=last.order.at), &frames)?;
        let put = self.0.index.put_notes(&first.window, first.order, &payload);
        put.map_err(to("store notes"))?;
        self.indexed(&segments, segment, begin + number(frames.len()))
    }
}
