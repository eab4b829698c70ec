//! Taking steps: forward is written and then seen, back is seen and then written.
//!
//! Nothing here waits for the disk; the loop hears when a write has ended ([`super::book`] says
//! what can happen meanwhile). So a disk that hangs keeps no gate, tripwire or rollback waiting.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::domain::{Command, Event, Name, Record, Rollout, State};

use super::{
    actor::{ASKS_LEN_MAX, Controller},
    book::{Ready, Written},
    handle::{Ask, Rejected, Reply, Requester, Step, View, Wish},
};

/// How long the end of the program waits for the disk.
const STOP_WAIT: Duration = Duration::from_millis(500);
/// A halt older than this was asked by somebody who has stopped waiting for the answer.
const HALT_MAX: Duration = Duration::from_secs(2);

/// A step forward that is being written.
#[derive(Debug)]
pub(super) struct Pending {
    rollout: Name,
    /// The rollout as it stood when the step was decided; none when the step creates it.
    before: Option<Rollout>,
    /// The step back that took effect meanwhile.
    overtaken: Option<Record>,
    reply: Option<Reply<View>>,
}

impl Controller {
    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Step(step) => {
                let back = step.is_rollback().then(|| step.name.clone());
                self.take_step(step);
                if let Some(name) = back {
                    self.board.release(&name);
                    self.publish();
                }
            }
            Ask::Evaluate { name, reply } => respond(reply, self.evaluate(&name)),
        }
        self.show();
    }

    /// Takes a step that was asked for, or answers why not, or lets it wait for its turn.
    fn take_step(&mut self, step: Step) {
        let event = match &step.wish {
            Wish::Create(plan) => self.create(&step.name, plan, &step.by),
            Wish::Obey(command) => self.obey(&step.name, command, &step.by),
        };
        let event = match event {
            Ok(None) if step.is_rollback() => self.would_begin(&step.name),
            Ok(event) => event,
            // Without a journal nobody knows which rollouts there are.
            Err(Rejected::Unknown(_)) if self.managed.is_empty() && self.book.is_gone() => {
                let why = self.book.problem().unwrap_or_default();
                return respond(step.reply, Err(Rejected::Unavailable(why)));
            }
            Err(rejected) => return respond(step.reply, Err(rejected)),
        };
        let Some(event) = event else {
            return respond(step.reply, self.view(&step.name));
        };
        if matches!(event, Event::RolledBack(_)) {
            return self.carry_out(&step.name, event, &step.by, Some(step.reply));
        }
        match self.book.ready() {
            Ready::Yes => self.carry_out(&step.name, event, &step.by, Some(step.reply)),
            Ready::Busy if self.waiting.len() < ASKS_LEN_MAX => self.waiting.push_back(step),
            Ready::Busy => {
                let why = format!("{ASKS_LEN_MAX} steps wait to be written");
                respond(step.reply, Err(Rejected::Unavailable(why)));
            }
            Ready::No(why) => respond(step.reply, Err(Rejected::Unavailable(why))),
        }
    }

    /// What a rollback comes to where nothing moves yet, but a start is being written.
    fn would_begin(&self, name: &Name) -> Option<Event> {
        let pending = self.pending.as_ref().filter(|it| it.rollout == *name)?;
        let mut after = pending.before.clone().filter(|_| pending.overtaken.is_none())?;
        after.apply(self.clock.now(), self.book.under_way()?);
        after.stage().map(|_| Event::RolledBack(crate::domain::Cause::Operator))
    }

    /// Forward: write, then publish. Backward: publish, then write.
    ///
    /// A step forward nobody asked for is left out while another one is written: the next tick
    /// decides it anew.
    pub(super) fn carry_out(
        &mut self,
        name: &Name,
        event: Event,
        by: &Requester,
        reply: Option<Reply<View>>,
    ) {
        let before = self.managed.get(name).map(|it| it.rollout.clone());
        let from = before.as_ref().map_or(State::Pending, Rollout::state);
        let to = before.clone().map_or(State::Pending, |mut after| {
            after.apply(self.clock.now(), &event);
            after.state()
        });
        let back = matches!(event, Event::RolledBack(_));
        let record = self.record(name, event, by, (from, to));
        if back {
            self.go_back(name, record, reply);
        } else if self.book.ready() == Ready::Yes {
            let rollout = name.clone();
            self.pending = Some(Pending { rollout, before, overtaken: None, reply });
            self.book.forward(record);
        }
    }

    fn go_back(&mut self, name: &Name, record: Record, reply: Option<Reply<View>>) {
        self.board.halt(name);
        let mut revision = 0;
        if let Some(managed) = self.managed.get_mut(name) {
            managed.apply(&record);
            revision = managed.rollout.revision();
        }
        self.board.release(name);
        self.publish();
        if let Some(pending) = self.pending.as_mut().filter(|it| it.rollout == *name) {
            pending.overtaken = Some(record.clone());
            if let Some(reply) = pending.reply.take() {
                let seen = pending.before.as_ref().map_or(0, Rollout::revision);
                let stale = Rejected::Stale { rollout: name.clone(), seen, now: revision };
                respond(reply, Err(stale));
            }
        }
        self.owed.retain(|(_, reply)| !reply.is_closed());
        self.owed.extend(reply.map(|it| (name.clone(), it)));
        self.book.note(record);
        if self.book.is_gone() {
            self.pay();
        }
    }

    /// A write has ended: what it was for takes effect, and the next one begins.
    pub(super) fn written(&mut self, written: Written) {
        match written {
            Written::Forward(result) => {
                self.landed(result.map(|it| *it));
                self.book.go_on();
            }
            Written::Back(Ok(())) => {
                let durable = |name: &Name| self.book.is_durable(name);
                let (paid, owed): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.owed).into_iter().partition(|it| durable(&it.0));
                self.owed = owed;
                for (name, reply) in paid {
                    respond(reply, self.view(&name));
                }
                self.book.go_on();
            }
            Written::Settled => {}
            Written::Back(Err(error)) => {
                tracing::error!(error, "a rollback is done but not on disk yet; it is tried again");
                self.pay();
            }
        }
        self.catch_up();
    }

    /// Tells what is new, and lets steps that wait take their turn.
    pub(super) fn catch_up(&mut self) {
        for record in self.book.news() {
            self.keep(record);
        }
        // Bounded by the queue: each round takes one step out, and a busy book ends it.
        while self.book.ready() != Ready::Busy {
            let Some(step) = self.waiting.pop_front() else { break };
            // Who has stopped waiting was told that it was not done.
            if !step.reply.is_closed() {
                self.take_step(step);
            }
        }
        self.show();
    }

    /// Answers rollbacks that took effect, on disk or not.
    fn pay(&mut self) {
        for (name, reply) in std::mem::take(&mut self.owed) {
            respond(reply, self.view(&name));
        }
    }

    /// A step forward is on disk, or never happened.
    fn landed(&mut self, result: Result<Record, String>) {
        let Some(Pending { rollout: name, before, overtaken, reply }) = self.pending.take() else {
            return;
        };
        let record = match result {
            Ok(record) => record,
            Err(why) => {
                tracing::error!(rollout = %name, error = why, "a step forward could not be written; it holds");
                if let Some(reply) = reply {
                    respond(reply, Err(Rejected::Unavailable(why)));
                }
                return;
            }
        };
        match overtaken {
            None => self.replay(&record),
            Some(back) => {
                if let Some(managed) = self.managed.get_mut(&name) {
                    managed.overtake(before, &record, &back);
                }
            }
        }
        self.publish();
        self.keep(record);
        if let Some(reply) = reply {
            respond(reply, self.view(&name));
        }
    }

    /// Takes a step and waits for the disk: at the start, when nobody else waits.
    pub(super) async fn at_once(
        &mut self,
        name: &Name,
        wish: Wish,
        by: Requester,
    ) -> Result<(), Rejected> {
        let (reply, mut answer) = oneshot::channel();
        self.answer(Ask::Step(Step { name: name.clone(), wish, by, reply }));
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => {
                    let gone = || Rejected::Unavailable("the step was given up".to_owned());
                    return answer.map_err(|_| gone())?.map(drop);
                }
                written = self.book.written() => self.written(written),
            }
        }
    }

    /// Gives the disk a last moment before the program ends.
    pub(super) async fn settle(&mut self) {
        let ends = Instant::now() + STOP_WAIT;
        // Bounded by that time, whatever the writes come to.
        while self.book.is_writing() {
            match timeout_at(ends, self.book.written()).await {
                Ok(written) => self.written(written),
                Err(_) => return,
            }
        }
    }

    /// Writes down rollbacks that took effect in the data path and whose asking never got here.
    pub(super) fn keep_forgotten(&mut self) {
        for name in self.board.halted_for(HALT_MAX) {
            let by = Requester {
                actor: "operator".to_owned(),
                comment: "asked while the controller was busy".to_owned(),
                ..Requester::default()
            };
            let wish = Wish::Obey(Command::Rollback);
            // Nobody waits for this answer.
            let (reply, _) = oneshot::channel();
            self.answer(Ask::Step(Step { name, wish, by, reply }));
        }
    }
}

impl Step {
    fn is_rollback(&self) -> bool {
        matches!(&self.wish, Wish::Obey(Command::Rollback))
    }
}

/// Whoever asked may have left; the step was taken all the same.
fn respond<T>(reply: Reply<T>, result: Result<T, Rejected>) {
    drop(reply.send(result));
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
