//! Taking steps: forward is written and then seen, back is seen and then written.
//!
//! Nothing here waits for the disk; the loop hears when a write has ended ([`super::book`] says
//! what can happen meanwhile). So a disk that hangs keeps no gate, tripwire or rollback waiting.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::clock;
use crate::domain::{Cause, Command, Event, Name, Record, Refusal, Rollout, State};

use super::{
    actor::{ASKS_LEN_MAX, Controller},
    book::{Ready, WRITE_WAIT, Written},
    handle::{Ask, Rejected, Reply, Requester, Step, View, Wish},
};

/// Why the controller takes back a step of its own.
const LATE: &str = "the disk held the step up, and by now it would not be taken";
/// How long the end of the program waits for the disk.
const STOP_WAIT: Duration = Duration::from_millis(500);
/// Between two tries to write then.
const STOP_PAUSE: Duration = Duration::from_millis(50);
/// A halt older than this was asked by somebody who has stopped waiting for the answer.
const HALT_MAX: Duration = Duration::from_secs(2);

/// A step forward that is being written.
#[derive(Debug)]
pub(super) struct Pending {
    /// [`Name::every`] for a step of the whole node.
    pub(super) rollout: Name,
    /// The rollout as it stood when the step was decided; none when the step creates it.
    before: Option<Rollout>,
    /// The step back that took effect meanwhile.
    overtaken: Option<Record>,
    reply: Option<Reply<Vec<View>>>,
}

impl Controller {
    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Step(step) => {
                if step.is_rollback() {
                    self.board.release(&step.name);
                }
                self.take_step(step);
            }
            Ask::Stop { by, reply } => self.stop(&by, reply),
            Ask::Evaluate { name, reply } => respond(reply, self.evaluate(&name)),
        }
        self.show();
    }

    /// Takes a step that was asked for, or answers why not, or lets it wait for its turn.
    fn take_step(&mut self, step: Step) {
        if let Some(why) = self.leaves(&step) {
            return respond(step.reply, Err(why));
        }
        let event = match &step.wish {
            Wish::Create(plan) => self.create(&step.name, plan, &step.by),
            Wish::Obey(command) => self.obey(&step.name, command, &step.by),
            Wish::Renew => self.renewal(&step.name),
            Wish::Delete => self.deletion(&step.name, &step.by),
            Wish::Lift => self.blind().map_or_else(|| self.lift(&step.by), Err),
            Wish::SetFlag(flag) => self.blind().map_or_else(|| self.set_flag(flag), Err),
            Wish::ClearFlag(name) => self.blind().map_or_else(|| Ok(self.clear_flag(name)), Err),
        };
        let event = match event {
            Ok(None) if step.is_rollback() => self.would_begin(&step.name, Cause::Operator),
            Ok(event) => event,
            Err(Rejected::Unknown(name)) => {
                let why = self.blind().unwrap_or(Rejected::Unknown(name));
                return respond(step.reply, Err(why));
            }
            Err(rejected) => return respond(step.reply, Err(rejected)),
        };
        let Some(event) = event else {
            if step.is_rollback() {
                // Nothing is left of the halt in the data path.
                self.publish();
            }
            return respond(step.reply, self.shown(&[step.name]));
        };
        if self.is_fall(&step.name, &event) {
            return self.carry_out(&step.name, event, &step.by, Some(step.reply));
        }
        match self.book.ready() {
            // What is superseded goes back first, on disk too.
            Ready::Yes if self.makes_room(&step) => self.waiting.push_front(step),
            Ready::Yes => self.carry_out(&step.name, event, &step.by, Some(step.reply)),
            Ready::Busy if self.waiting.len() < ASKS_LEN_MAX => self.waiting.push_back(step),
            Ready::Busy => {
                let why = format!("{ASKS_LEN_MAX} steps wait to be written");
                respond(step.reply, Err(Rejected::Unavailable(why)));
            }
            Ready::No(why) => respond(step.reply, Err(Rejected::Unavailable(why))),
        }
    }

    /// What a rollback comes to where nothing moves yet, but a start is being written or waits.
    pub(super) fn would_begin(&self, name: &Name, cause: Cause) -> Option<Event> {
        let waits = || self.waiting.iter().any(|it| it.name == *name && it.is_start());
        (self.is_beginning(name) || waits()).then_some(Event::RolledBack(cause))
    }

    /// Whether it takes effect before it is written: a rollback, and what lowers the share that the
    /// candidate serves, be it a jump back, another plan or a flag.
    ///
    /// Behind a step of the same rollout that is being written only a rollback does: what else
    /// there is to do depends on what becomes of that.
    fn is_fall(&self, name: &Name, event: &Event) -> bool {
        if matches!(event, Event::RolledBack(_)) {
            return true;
        }
        if event.flag().is_some() {
            return self.lowers(event) && self.book.backlog_len() < ASKS_LEN_MAX;
        }
        let Some(managed) = self.managed.get(name).filter(|_| !self.is_under_way(name)) else {
            return false;
        };
        let mut after = managed.rollout.clone();
        after.apply(self.clock.now(), event);
        let serve = |it: &Rollout| it.stage().map(|it| it.serve);
        let stages = after.stage().zip(managed.rollout.stage());
        let below = stages.is_none_or(|(after, before)| after.is_below(before));
        below && serve(&after) < serve(&managed.rollout) && self.book.backlog_len() < ASKS_LEN_MAX
    }

    fn is_beginning(&self, name: &Name) -> bool {
        let before = self.pending.as_ref().filter(|_| self.is_under_way(name));
        let before = before.and_then(|it| it.before.clone());
        before.zip(self.book.under_way()).is_some_and(|(mut rollout, event)| {
            rollout.apply(self.clock.now(), event);
            rollout.stage().is_some()
        })
    }

    /// Whether a step forward of a rollout is being written and can still take effect.
    pub(super) fn is_under_way(&self, name: &Name) -> bool {
        self.pending.as_ref().is_some_and(|it| it.rollout == *name && it.overtaken.is_none())
    }

    /// What to say where nobody knows which rollouts there are, because there is no journal.
    pub(super) fn blind(&self) -> Option<Rejected> {
        let blind = self.managed.is_empty() && self.book.is_gone();
        blind.then(|| Rejected::Unavailable(self.book.problem().unwrap_or_default()))
    }

    /// The rollouts of these names; a step of the whole node has none to show, nor has what was
    /// deleted.
    fn shown(&self, names: &[Name]) -> Result<Vec<View>, Rejected> {
        let there = names.iter().filter(|it| self.managed.contains_key(*it));
        there.map(|it| self.view(it)).collect()
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
        reply: Option<Reply<Vec<View>>>,
    ) {
        let (fall, ends) = (self.is_fall(name, &event), event == Event::Deleted);
        let record = self.record_of(name, event, by);
        if fall {
            self.go_back(name, record, reply);
        } else if self.book.ready() == Ready::Yes {
            if ends {
                self.turn_away(name);
            }
            let before = self.managed.get(name).map(|it| it.rollout.clone());
            let rollout = name.clone();
            self.pending = Some(Pending { rollout, before, overtaken: None, reply });
            self.book.forward(record);
        }
    }

    /// The record of a step that a rollout takes now.
    fn record_of(&self, name: &Name, event: Event, by: &Requester) -> Record {
        let before = self.managed.get(name).map(|it| &it.rollout);
        let from = before.map_or(State::Pending, Rollout::state);
        let to = before.cloned().map_or(State::Pending, |mut after| {
            after.apply(self.clock.now(), &event);
            after.state()
        });
        self.record(name, event, by, (from, to))
    }

    fn go_back(&mut self, name: &Name, record: Record, reply: Option<Reply<Vec<View>>>) {
        if matches!(record.event, Event::RolledBack(_)) {
            self.board.halt(name);
            self.take_effect(&record);
            self.board.release(name);
        } else {
            self.take_effect(&record);
        }
        self.publish();
        self.overtake(&record);
        self.book.note(record);
        if let Some(reply) = reply {
            self.owe(vec![name.clone()], reply);
        }
    }

    /// A step forward that is being written or waits never takes effect once this has; who asked
    /// for it is told so at once.
    pub(super) fn overtake(&mut self, back: &Record) {
        let (gone, waiting): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|it| it.is_about(back));
        self.waiting = waiting.into();
        let mut replies: Vec<_> = gone.into_iter().map(|it| it.reply).collect();
        let flag = self.book.under_way().and_then(Event::flag);
        let is_about = |it: &&mut Pending| it.rollout == back.rollout && flag == back.event.flag();
        if let Some(pending) = self.pending.as_mut().filter(is_about) {
            pending.overtaken = Some(back.clone());
            replies.extend(pending.reply.take());
        }
        let now = self.managed.get(&back.rollout).map_or(0, |it| it.rollout.revision());
        for reply in replies {
            let rollout = back.rollout.clone();
            let why = if matches!(back.event, Event::Stopped | Event::RolledBack(Cause::Stopped)) {
                let refusal = Box::new(Refusal::Stopped { actor: back.actor.clone() });
                let remedy = refusal.remedy_when(&rollout, None);
                Rejected::Refused { rollout, refusal, remedy }
            } else if let Some(flag) = back.event.flag() {
                Rejected::Unavailable(format!("flag `{flag}` was lowered meanwhile"))
            } else {
                Rejected::Stale { rollout, seen: now.saturating_sub(1), now }
            };
            respond(reply, Err(why));
        }
    }

    /// Answers when all that these rollouts went back by is on disk, or cannot be written.
    pub(super) fn owe(&mut self, names: Vec<Name>, reply: Reply<Vec<View>>) {
        self.owed.retain(|(_, reply)| !reply.is_closed());
        if self.book.is_gone() || self.are_durable(&names) {
            return respond(reply, self.shown(&names));
        }
        self.owed.push((names, reply));
    }

    fn are_durable(&self, names: &[Name]) -> bool {
        names.iter().all(|it| self.book.is_durable(it))
    }

    /// A write has ended: what it was for takes effect, and the next one begins.
    pub(super) fn written(&mut self, written: Written) {
        match written {
            Written::Forward(result) => {
                self.landed(result.map(|it| *it));
                self.book.go_on();
            }
            Written::Back(Ok(())) => {
                let owed = std::mem::take(&mut self.owed);
                for (names, reply) in owed {
                    self.owe(names, reply);
                }
                self.book.go_on();
            }
            // Where it could not be brought in order, that is tried again after a while.
            Written::Settled => self.book.try_again(),
            Written::Back(Err(error)) => {
                tracing::error!(error, "a rollback is done but not on disk yet; it is tried again");
            }
        }
        self.catch_up();
    }

    /// Tells what is new, and lets steps that wait take their turn.
    pub(super) fn catch_up(&mut self) {
        let news = self.book.news();
        self.keep(news);
        if self.book.problem().is_some() {
            self.pay();
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

    /// Answers what took effect, on disk or not.
    fn pay(&mut self) {
        for (names, reply) in std::mem::take(&mut self.owed) {
            respond(reply, self.shown(&names));
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
            None if record.event == Event::Deleted => return self.delete(&record, reply),
            None => {
                let regret = self.regret(&record);
                self.take_effect(&record);
                if let Some(back) = regret {
                    self.go_back(&name, back, None);
                }
            }
            Some(back) => {
                if let Some(managed) = self.managed.get_mut(&name) {
                    managed.overtake(before, &record, &back);
                }
                self.find_broken(&name);
            }
        }
        self.publish();
        self.keep(vec![record]);
        if let Some(reply) = reply {
            respond(reply, self.shown(&[name]));
        }
    }

    /// The way back from a step up that the controller took and the disk held up for so long that
    /// it would not be taken any more. It is on disk and so it holds, but nobody sees its share.
    fn regret(&mut self, late: &Record) -> Option<Record> {
        let (now, mut by) = (self.clock.now(), Requester::controller());
        if now.millis_since(late.at) < clock::millis(WRITE_WAIT) || late.actor != by.actor {
            return None;
        }
        let managed = self.managed.get_mut(&late.rollout)?;
        managed.weigh(now);
        let (rollout, input) = (&managed.rollout, managed.input(now));
        let back = rollout.regret(now, &late.event, &input, &managed.evidence)?;
        LATE.clone_into(&mut by.comment);
        Some(self.record_of(&late.rollout, back, &by))
    }

    /// Makes a step so, with what hangs on it.
    fn take_effect(&mut self, record: &Record) {
        self.replay(record);
        if let Some(managed) = self.managed.get_mut(&record.rollout) {
            managed.tell_weather(&self.barometer.weather());
        }
        self.note_begun(&record.rollout);
        self.find_broken(&record.rollout);
        self.look_ahead(&record.rollout);
    }

    /// Takes a step and waits for the disk: at the start, when nobody else waits.
    ///
    /// Given up at `ends`; what is being written then takes effect when the disk has it.
    pub(super) async fn at_once(
        &mut self,
        name: &Name,
        wish: Wish,
        by: Requester,
        ends: Instant,
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
                () = sleep_until(ends) => {
                    let why = "the disk did not answer in time".to_owned();
                    return Err(Rejected::Unavailable(why));
                }
            }
        }
    }

    /// Gives the disk a last moment before the program ends.
    pub(super) async fn settle(&mut self) {
        let write = async {
            // Ends when everything is on disk, or by that time.
            loop {
                self.book.go_on();
                if !self.book.is_writing() {
                    return;
                }
                let written = self.book.written().await;
                self.written(written);
                if self.book.problem().is_some() {
                    sleep(STOP_PAUSE).await;
                }
            }
        };
        // What is not written by then was said not to be.
        let _ = timeout(STOP_WAIT, write).await;
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

    fn is_start(&self) -> bool {
        matches!(&self.wish, Wish::Obey(Command::Start | Command::Supersede))
    }
}

/// Whoever asked may have left; the step was taken all the same.
pub(super) fn respond<T>(reply: Reply<T>, result: Result<T, Rejected>) {
    drop(reply.send(result));
}

#[cfg(test)]
#[path = "late_tests.rs"]
mod late_tests;

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
