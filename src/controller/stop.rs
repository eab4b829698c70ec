//! The stop of a whole node: everything goes back, and nothing starts until somebody lifts it.

use std::sync::Arc;

use crate::domain::{Cause, Event, Input, Name, Record, State};

use super::{
    actor::Controller,
    handle::{Rejected, Reply, Requester, View, Wish},
    steps::respond,
};

impl Controller {
    /// Sends everything back, and from now on refuses what would start.
    ///
    /// Like every fall it is in force before it is written, and it is written before the falls it
    /// brings: what fell is never on disk without it.
    pub(super) fn stop(&mut self, by: &Requester, reply: Reply<Vec<View>>) {
        if let Some(blind) = self.blind() {
            return respond(reply, Err(blind));
        }
        let every = Name::every();
        let lifting = self.is_under_way(&every) && self.book.under_way() == Some(&Event::Lifted);
        let lifts = lifting || self.waiting.iter().any(|it| matches!(it.wish, Wish::Lift));
        let lifted = self.stopped.is_none() || lifts;
        if lifted && self.stops.get(&by.request_id).is_some() {
            // Asked once more it does not undo a lift.
            return self.owe(self.fallen_by(by), reply);
        }
        if lifted {
            let record = self.record(&every, Event::Stopped, by, (State::Pending, State::Pending));
            tracing::warn!(actor = record.actor, comment = record.comment, "everything is stopped");
            self.note_stop(&record);
            self.overtake(&record);
            self.book.note(record);
        } else {
            // In memory alone.
            Arc::make_mut(&mut self.stops).insert(&by.request_id, &Event::Stopped);
        }
        let moving = self.managed.values().filter(|it| it.rollout.stage().is_some());
        let mut shown: Vec<Name> = moving.map(|it| it.rollout.name().clone()).collect();
        for name in &shown {
            self.send_back(name, &Input::Stopped, by);
        }
        let starting = self.pending.as_ref().map(|it| it.rollout.clone());
        if let Some(name) = starting
            && let Some(event) = self.would_begin(&name, Cause::Stopped)
        {
            self.carry_out(&name, event, by, None);
            shown.push(name);
        }
        // Nothing moves any more, so no halt in the data path has anything left to hold.
        self.managed.keys().for_each(|name| self.board.release(name));
        self.publish();
        let before = self.fallen_by(by).into_iter().filter(|it| !shown.contains(it));
        let before: Vec<Name> = before.collect();
        shown.extend(before);
        shown.push(every);
        self.owe(shown, reply);
    }

    /// The rollouts that went back by the stop of this request.
    fn fallen_by(&self, by: &Requester) -> Vec<Name> {
        let fell = Event::RolledBack(Cause::Stopped);
        let fallen =
            self.managed.values().filter(|it| it.requests.get(&by.request_id) == Some(&fell));
        fallen.map(|it| it.rollout.name().clone()).collect()
    }

    /// What a lift comes to: none when nothing is stopped.
    pub(super) fn lift(&self, by: &Requester) -> Result<Option<Event>, Rejected> {
        let Some(stop) = &self.stopped else { return Ok(None) };
        let now = stop.at.0;
        match by.revision.filter(|it| *it != now) {
            Some(seen) => Err(Rejected::Stale { rollout: Name::every(), seen, now }),
            None => Ok(Some(Event::Lifted)),
        }
    }

    /// Takes note of a record about the whole node; says whether it was one.
    pub(super) fn note_stop(&mut self, record: &Record) -> bool {
        match record.event {
            Event::Stopped => {
                self.stopped = Some(Arc::new(record.clone()));
                Arc::make_mut(&mut self.stops).insert(&record.request_id, &record.event);
            }
            Event::Lifted => self.stopped = None,
            Event::Created(_)
            | Event::Revised(_)
            | Event::Loosened(_)
            | Event::StageEntered { .. }
            | Event::ApprovalRequested
            | Event::Paused(_)
            | Event::Resumed
            | Event::Overdue
            | Event::Succeeded(_)
            | Event::Baked
            | Event::RolledBack(_)
            | Event::Deleted
            | Event::Flagged(_)
            | Event::Unflagged(_) => return false,
        }
        true
    }

    /// Who stopped everything and why, for people.
    pub(super) fn stop_text(&self) -> Option<String> {
        let stop = self.stopped.as_ref()?;
        let said = if stop.comment.is_empty() { "" } else { ": " };
        let by = format!("stopped by {}{said}{}", stop.actor, stop.comment);
        Some(format!("{by}; `crossfade stop --lift` lets rollouts start again"))
    }
}

#[cfg(test)]
#[path = "stop_tests.rs"]
mod tests;
