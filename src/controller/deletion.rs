//! Deleting a rollout: of what moves no traffic nothing is managed any more.
//!
//! While that is being written nothing else is asked of the rollout, so that no step can come in
//! between: what would is told to come again.

use crate::domain::{Command, Event, Name, Record, Refusal};

use super::{
    actor::Controller,
    handle::{Rejected, Reply, Requester, Step, View, Wish},
    steps::respond,
};

impl Controller {
    /// What deleting a rollout comes to: none when it was done before.
    pub(super) fn deletion(&self, name: &Name, by: &Requester) -> Result<Option<Event>, Rejected> {
        let same = |it: &Record| it.rollout == *name && it.request_id == by.request_id;
        let done = |it: &Record| it.event == Event::Deleted && same(it);
        if !by.request_id.is_empty() && self.records.iter().any(|it| done(it)) {
            return Ok(None);
        }
        let managed = self.managed.get(name).ok_or_else(|| Rejected::Unknown(name.clone()))?;
        if managed.requests.get(&by.request_id).is_some() {
            return Err(Rejected::ReusedRequestId(by.request_id.clone()));
        }
        let rollout = &managed.rollout;
        let now = rollout.revision();
        if let Some(seen) = by.revision.filter(|it| *it != now) {
            return Err(Rejected::Stale { rollout: name.clone(), seen, now });
        }
        let refusal = if rollout.stage().is_some() {
            Some(Refusal::Moves { state: rollout.state() })
        } else {
            self.configured.contains(name).then_some(Refusal::Configured)
        };
        let Some(refusal) = refusal else { return Ok(Some(Event::Deleted)) };
        let (remedy, refusal) = (refusal.remedy(rollout), Box::new(refusal));
        Err(Rejected::Refused { rollout: name.clone(), refusal, remedy })
    }

    /// Why a step cannot be taken, where its rollout is being deleted. A rollback of what moves
    /// nothing is always done.
    pub(super) fn leaves(&self, step: &Step) -> Option<Rejected> {
        let rollback = matches!(&step.wish, Wish::Obey(Command::Rollback));
        let deleted = self.book.under_way() == Some(&Event::Deleted);
        let leaves = !rollback && deleted && self.is_under_way(&step.name);
        leaves.then(|| Rejected::Unavailable(format!("`{}` is being deleted", step.name)))
    }

    /// Turns away what waits to be done with a rollout whose deletion begins to be written.
    pub(super) fn turn_away(&mut self, name: &Name) {
        let waiting = std::mem::take(&mut self.waiting);
        let (gone, left): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|it| it.name == *name);
        self.waiting = left.into();
        for step in gone {
            let why = Rejected::Unavailable(format!("`{name}` is being deleted"));
            respond(step.reply, Err(why));
        }
    }

    /// It is on disk: the rollout is gone. Who watches is told while it can still be shown.
    pub(super) fn delete(&mut self, record: &Record, reply: Option<Reply<Vec<View>>>) {
        let name = record.rollout.clone();
        self.keep(vec![record.clone()]);
        if let Some(managed) = self.managed.get(&name) {
            self.metrics.forget(&name, &managed.evidence.gates);
        }
        self.replay(record);
        self.publish();
        self.show();
        self.gone.push(name);
        if let Some(reply) = reply {
            respond(reply, Ok(Vec::new()));
        }
    }
}

#[cfg(test)]
#[path = "deletion_tests.rs"]
mod tests;
