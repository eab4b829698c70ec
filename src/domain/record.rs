//! The record of one event: what the journal keeps and people read.

use super::{Event, GateEvidence, Name, Plan, Rollout, State, Timestamp};

/// One line of a rollout's log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Position in the journal, from 1, without holes.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// The rollout; [`Name::every`] for what is about the whole node.
    pub rollout: Name,
    /// Who: `controller`, or what the caller of the API called itself.
    pub actor: String,
    /// What the caller said about it.
    pub comment: String,
    /// The caller's idempotency key; empty when it gave none.
    pub request_id: String,
    /// What happened.
    pub event: Event,
    /// State before.
    pub from: State,
    /// State after.
    pub to: State,
    /// The revision of the plan that holds after it, from 1; 0 in records of before there was one.
    pub plan_revision: u64,
    /// The evidence the decision used, frozen.
    pub evidence: Vec<GateEvidence>,
}

impl Record {
    /// Who acts for the configuration.
    pub const CONFIG: &'static str = "config";

    /// Whether who made it is who brought a rollout where it stands after it: whoever edits the
    /// plan meanwhile is not.
    pub fn moves(&self, rollout: &Rollout) -> bool {
        self.event.is_step() || rollout.cause().is_none()
    }

    /// The plan the configuration asked for with it, if it did.
    pub fn wanted(&self) -> Option<&Plan> {
        self.event.plan().filter(|_| self.actor == Self::CONFIG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::tests::plan;

    #[test]
    fn only_what_the_configuration_asked_for_is_its_wish() {
        let by = |actor: &str, event| Record {
            seq: 1,
            at: Timestamp(0),
            rollout: Name::every(),
            actor: actor.to_owned(),
            comment: String::new(),
            request_id: String::new(),
            event,
            from: State::Pending,
            to: State::Pending,
            plan_revision: 1,
            evidence: Vec::new(),
        };
        let revised = || Event::Revised(Box::new(plan()));
        assert_eq!(by(Record::CONFIG, revised()).wanted(), Some(&plan()));
        assert_eq!(by("ana", revised()).wanted(), None);
        assert_eq!(by(Record::CONFIG, Event::Resumed).wanted(), None);
    }
}
