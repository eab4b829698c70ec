//! The stop of a whole node: everything goes back, and nothing starts until somebody lifts it.

use std::{sync::Arc, time::Duration};

use crate::domain::{Event, Input, Name, Record, State};

use super::{
    actor::Controller,
    handle::{Rejected, Requester, View},
};

/// How long one round waits for the disk when a stop is to be written.
const SETTLE_WAIT: Duration = Duration::from_millis(300);

impl Controller {
    /// Sends everything back, and from now on refuses what would start.
    ///
    /// Like every fall it is in force before it is written.
    pub(super) async fn stop(&mut self, by: &Requester) -> Result<Vec<View>, Rejected> {
        if self.stopped.is_none() {
            // First of all, so that nothing starts in between, and so that whatever fell is not
            // on disk without it.
            let idle = (State::Pending, State::Pending);
            let record = self.book.note(self.record(&Name::every(), Event::Stopped, by, idle));
            tracing::warn!(actor = record.actor, comment = record.comment, "everything is stopped");
            self.stopped = Some(Arc::new(record.clone()));
            self.keep(record, State::Pending);
        }
        let moving = self.managed.values().filter(|it| it.rollout.stage().is_some());
        let moving: Vec<Name> = moving.map(|it| it.rollout.name().clone()).collect();
        for name in &moving {
            self.send_back(name, &Input::Stopped, by).await;
        }
        self.book.settle(SETTLE_WAIT).await;
        moving.iter().map(|it| self.view(it)).collect()
    }

    /// Lets rollouts start again; each has to be started by itself.
    pub(super) async fn lift(&mut self, by: &Requester) -> Result<(), Rejected> {
        if self.stopped.is_none() {
            return Ok(());
        }
        let idle = (State::Pending, State::Pending);
        let record = self.record(&Name::every(), Event::Lifted, by, idle);
        let record = self.book.commit(record).await.map_err(Rejected::Unavailable)?;
        tracing::warn!(actor = record.actor, "the stop is lifted");
        self.stopped = None;
        self.keep(record, State::Pending);
        Ok(())
    }

    /// Takes note of a record about the whole node; says whether it was one.
    pub(super) fn note_stop(&mut self, record: &Record) -> bool {
        match record.event {
            Event::Stopped => self.stopped = Some(Arc::new(record.clone())),
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
            | Event::RolledBack(_) => return false,
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
