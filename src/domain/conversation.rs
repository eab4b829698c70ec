//! A conversation under way keeps its side when the share rises.

use super::{Facts, Key, Lane, Route, Share, Side, Tie, share::hash};

impl Route {
    /// The same for a conversation that began under this share, if it may have more of it now.
    ///
    /// None that began under a smaller share draws a lot, whichever side it is on: who is kept on
    /// the primary was not drawn for it, and without the like of them on the other side the two
    /// would not be compared at the same age.
    #[must_use]
    pub fn kept(self, lane: &Lane, facts: &Facts, began: Share) -> Self {
        let Some(places) = self.places.filter(|_| began < lane.shares(facts).serve) else {
            return self;
        };
        let served = facts.tie == Tie::None && places.serve < began.basis_points();
        let serve = if served { Side::Candidate } else { Side::Primary };
        Self { serve, lot: None, began: Some(began), ..self }
    }
}

impl Facts {
    /// The conversation it is a turn of, by a hash of its key; none where it is of none, or where
    /// none of its turns is ever moved.
    pub fn conversation(&self) -> Option<u64> {
        match &self.key {
            Key::Conversation(key) if self.tie == Tie::None => Some(hash("conversation", key)),
            Key::Conversation(_) | Key::User(_) | Key::Request(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Flags, Slice, Snapshot, Window};

    fn lane(serve: u16) -> Lane {
        let rollout: crate::domain::Name = "chat".parse().unwrap();
        Lane {
            window: Some(Window { rollout: rollout.clone(), attempt: 1, stage: 0 }),
            rollout,
            primary: "a".parse().unwrap(),
            candidate: "b".parse().unwrap(),
            slice: Slice::default(),
            stage_slice: Slice::default(),
            watched: None,
            gated: Vec::new(),
            compared: crate::domain::Compared::default(),
            serve: Share::from_basis_points(serve).unwrap(),
            noise: Share::NONE,
            flags: Flags::default(),
            mirror: Share::ALL,
            cleared: Vec::new(),
            judge: Share::NONE,
        }
    }

    fn facts(key: Key) -> Facts {
        let empty = String::new;
        let (feature, segment, task, model) = (empty(), empty(), empty(), empty());
        let (data, barred, tie) = (Vec::new(), None, Tie::None);
        Facts { key, feature, segment, task, model, data, barred, tie }
    }

    proptest! {
        /// B-12
        #[test]
        fn a_conversation_is_where_it_was_when_it_began_and_draws_a_lot_only_there(
            key in 0_u32..100_000,
            shares in prop::collection::vec(0_u16..=10_000, 2..6),
        ) {
            let facts = facts(Key::Conversation(key.to_string()));
            let mut began = Share::ALL;
            let mut before = None;
            for serve in shares {
                let lane = lane(serve);
                began = began.min(lane.serve);
                let drawn = Snapshot { lanes: vec![Arc::new(lane.clone())] }.route(&facts);
                let kept = drawn.clone().kept(&lane, &facts, began);
                // It may go back to the primary, and never to the candidate.
                prop_assert!(before != Some(Side::Primary) || kept.serve == Side::Primary);
                prop_assert_eq!(kept.lot.is_some(), began == lane.serve);
                prop_assert!(began < lane.serve || kept == drawn);
                prop_assert_eq!(kept.mirror, drawn.mirror);
                before = Some(kept.serve);
            }
        }
    }

    #[test]
    fn what_stands_for_itself_or_is_never_moved_is_no_conversation() {
        let conversation = facts(Key::Conversation("c".to_owned()));
        assert!(conversation.conversation().is_some());
        assert_eq!(Facts { tie: Tie::Primary, ..conversation }.conversation(), None);
        for key in [Key::User("c".to_owned()), Key::Request("c".to_owned())] {
            assert_eq!(facts(key).conversation(), None);
        }
    }
}
