//! What the controller is asked to do: create, revise, start and all other commands.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::domain::{
    Cause, Command, Event, Input, Metric, Name, Plan, PlanFault, Record, Refusal, State, Timestamp,
    hash,
};

use super::{
    actor::Controller,
    handle::{Rejected, Requester, Slow, Step, Wish},
    managed::Replayed,
    setup::{Judged, Start, Wanted},
};

/// How long the start of the program waits until what the configuration asks for is on disk.
const WANT_WAIT: Duration = Duration::from_secs(3);
/// Why a stage begins anew.
const OTHERWISE: &str = "its providers are configured otherwise than before";
/// Rollouts at the same time.
const ROLLOUTS_LEN_MAX: usize = 256;

impl Controller {
    /// Creates, revises and starts what the configuration asks for.
    pub(super) async fn want(&mut self, wanted: Vec<Wanted>) {
        // A program that starts has seen no traffic, and must not fail for it: what is too slow is
        // said when it is seen.
        let by = || {
            let (actor, slow) = (Record::CONFIG.to_owned(), Slow::Taken);
            Requester { actor, slow, ..Requester::default() }
        };
        let ends = Instant::now() + WANT_WAIT;
        for Wanted { name, plan, start } in wanted {
            // What somebody changed since the configuration asked for it last is not undone by
            // a restart.
            let known = self
                .managed
                .get(&name)
                .map(|it| it.rollout.plan() == &plan || it.wanted.as_ref() == Some(&plan));
            let done = match known {
                None => self.at_once(&name, Wish::Create(Box::new(plan)), by(), ends).await,
                Some(true) => Ok(()),
                Some(false) => {
                    let revise = Command::Revise(Box::new(plan));
                    self.at_once(&name, Wish::Obey(revise), by(), ends).await
                }
            };
            // What was rolled back before its first stage began was not meant to begin either.
            let state = self.managed.get(&name).map(|it| it.rollout.state());
            let fresh = state == Some(State::Pending);
            let done = match (done, start) {
                (Ok(()), Start::Once) if fresh => {
                    self.at_once(&name, Wish::Obey(Command::Start), by(), ends).await
                }
                (done, Start::Once | Start::WhenAsked) => done,
            };
            if let Err(error) = done {
                tracing::error!(rollout = %name, %error, "the configuration of this rollout is not in force");
            }
        }
    }

    /// What is asked of the providers of a plan and where, as a number.
    pub(super) fn identity(&self, plan: &Plan) -> u64 {
        let sides = [&plan.primary, &plan.candidate].map(|it| self.identities.get(it));
        hash("identity", &format!("{sides:?}"))
    }

    /// Marks a rollout whose providers the configuration does not have, under the plan it has now.
    pub(super) fn find_broken(&mut self, name: &Name) {
        let Some(managed) = self.managed.get(name) else { return };
        let unjudged = self.unjudged(managed.rollout.plan());
        let Some(managed) = self.managed.get_mut(name) else { return };
        managed.judging.unjudged = unjudged;
        managed.judging.fitness = Arc::clone(&self.fitness);
        let plan = managed.rollout.plan();
        let mut sides = [&plan.primary, &plan.candidate].into_iter();
        let unknown = sides.find(|it| !self.providers.contains_key(*it));
        managed.broken = if plan.primary == self.primary {
            unknown.map(|it| format!("provider `{it}` is not configured"))
        } else {
            Some(format!("its primary is `{}`, but `{}` serves now", plan.primary, self.primary))
        };
    }

    /// Begins the stages anew of rollouts whose providers are configured otherwise than before: what
    /// others answered is no evidence of these.
    pub(super) async fn renew(&mut self, names: Vec<Name>) {
        let ends = Instant::now() + WANT_WAIT;
        for name in names {
            let by = Requester { comment: OTHERWISE.to_owned(), ..Requester::controller() };
            match self.at_once(&name, Wish::Renew, by, ends).await {
                Ok(()) => {
                    self.managed.get_mut(&name).into_iter().for_each(|it| it.outdated = None);
                }
                Err(error) => {
                    tracing::error!(rollout = %name, %error, "{OTHERWISE}, and its stage could not begin anew");
                }
            }
        }
    }

    /// What it comes to that a stage begins anew: nothing where none is open, or where the candidate
    /// serves for good.
    pub(super) fn renewal(&self, name: &Name) -> Result<Option<Event>, Rejected> {
        let managed = self.managed.get(name).ok_or_else(|| Rejected::Unknown(name.clone()))?;
        let plan = Box::new(managed.rollout.plan().clone());
        Ok(match managed.rollout.state() {
            State::Running | State::Paused | State::AwaitingApproval => Some(Event::Loosened(plan)),
            State::Pending | State::Succeeded | State::Baked | State::RolledBack => None,
        })
    }

    /// What creating a rollout comes to: none when it was done before.
    pub(super) fn create(
        &self,
        name: &Name,
        plan: &Plan,
        by: &Requester,
    ) -> Result<Option<Event>, Rejected> {
        if let Some(managed) = self.managed.get(name) {
            return match managed.requests.get(&by.request_id) {
                Some(Event::Created(created)) if **created == *plan => Ok(None),
                Some(_) => Err(Rejected::ReusedRequestId(by.request_id.clone())),
                None => Err(Rejected::Exists(name.clone())),
            };
        }
        let faults = self.plan_faults(plan);
        if !faults.is_empty() {
            return Err(Rejected::Plan(faults));
        }
        if ROLLOUTS_LEN_MAX <= self.managed.len() {
            let why = format!("there are {ROLLOUTS_LEN_MAX} rollouts already");
            return Err(Rejected::Unavailable(why));
        }
        self.may_be_slow(name, plan, by)?;
        Ok(Some(Event::Created(Box::new(plan.clone()))))
    }

    fn plan_faults(&self, plan: &Plan) -> Vec<PlanFault> {
        let mut faults = plan.faults();
        let mut fault = |field: &str, problem: String| {
            faults.push(PlanFault { field: field.to_owned(), problem });
        };
        if plan.primary != self.primary {
            fault("primary", format!("is `{}`, but `{}` serves here", plan.primary, self.primary));
        }
        if !self.providers.contains_key(&plan.candidate) {
            fault("candidate", format!("provider `{}` is not configured", plan.candidate));
        }
        let sides = [("primary", &plan.primary), ("candidate", &plan.candidate)];
        if let Some(why) = self.unjudged(plan) {
            fault("stages", format!("has a judge_score gate, but {why}"));
        }
        if let Some(stage) = plan.ungrounded() {
            let why = "would have the judge alone prove what answers are worth; have a check by rules \
                       or what people say proven in it too, like repeated_rate";
            fault("stages", format!("`{}` {why}", stage.name));
        }
        let priced = plan.gated(Metric::is_priced).map(Metric::as_str);
        for (metric, (side, name)) in priced.into_iter().flat_map(|it| sides.map(|side| (it, side)))
        {
            if !self.priced.contains(name) {
                fault(side, format!("`{name}` has no price, and a stage has a gate on {metric}"));
            }
        }
        for (side, name) in sides.into_iter().filter(|_| self.budgets.all.budget().is_limit()) {
            if !self.priced.contains(name) {
                fault(side, format!("`{name}` has no price, and there is a [budget] to keep to"));
            }
        }
        faults
    }

    /// Why nobody can judge what a plan wants judged.
    pub(super) fn unjudged(&self, plan: &Plan) -> Option<String> {
        plan.gated(Metric::is_judged)?;
        match &self.judge {
            Judged::No => Some("no [judge] is configured".to_owned()),
            Judged::Yes(kin) => {
                let why =
                    [&plan.primary, &plan.candidate].into_iter().find_map(|it| kin.get(it))?;
                Some(format!("{why}; `allow_kin = true` in [judge] allows it"))
            }
        }
    }

    /// What a command comes to: none when it changes nothing.
    pub(super) fn obey(
        &mut self,
        name: &Name,
        command: &Command,
        by: &Requester,
    ) -> Result<Option<Event>, Rejected> {
        let now = self.clock.now();
        let Some(managed) = self.managed.get_mut(name) else {
            return Err(Rejected::Unknown(name.clone()));
        };
        // A rollback is done again rather than taken for an old one: it may be asked of a new attempt.
        match managed.replayed(&by.request_id, command) {
            Some(_) if *command == Command::Rollback => {}
            Some(Replayed::Same) => return Ok(None),
            Some(Replayed::Other) => {
                return Err(Rejected::ReusedRequestId(by.request_id.clone()));
            }
            None => {}
        }
        self.fall_first(name, now, command)?;
        let Some(managed) = self.managed.get_mut(name) else {
            return Err(Rejected::Unknown(name.clone()));
        };
        let at = managed.rollout.revision();
        if let Some(seen) = by.revision.filter(|it| *it != at && *command != Command::Rollback) {
            return Err(Rejected::Stale { rollout: name.clone(), seen, now: at });
        }
        let event = managed.rollout.decide(now, &Input::Command(command), &managed.evidence);
        let refused = |refusal: Refusal| {
            let remedy = refusal.remedy(&managed.rollout);
            Rejected::Refused { rollout: name.clone(), refusal: Box::new(refusal), remedy }
        };
        let event = event.map_err(refused)?;
        if event.is_none()
            && let Some(done) = done(command)
        {
            // Asked once more later, it must not undo what came in between. In memory alone.
            managed.requests.insert(&by.request_id, &done);
        }
        match command {
            Command::Start | Command::Supersede => {
                self.may_start(name, command)?;
                if let Some(managed) = self.managed.get(name) {
                    self.may_be_slow(name, managed.rollout.plan(), by)?;
                }
            }
            Command::Revise(plan) => {
                let faults = self.plan_faults(plan);
                if !faults.is_empty() {
                    return Err(Rejected::Plan(faults));
                }
            }
            Command::Advance { .. }
            | Command::Jump { .. }
            | Command::Complete { .. }
            | Command::Pause
            | Command::Resume
            | Command::Approve { .. }
            | Command::Rollback => {}
        }
        Ok(event)
    }

    /// What goes back goes first, whatever was asked at the same time. A start that was asked of
    /// a rollout that ran is not taken for one of the next attempt.
    fn fall_first(
        &mut self,
        name: &Name,
        now: Timestamp,
        command: &Command,
    ) -> Result<(), Rejected> {
        let due = self.due(name, now).filter(|_| *command != Command::Rollback);
        let Some(event @ Event::RolledBack(_)) = due else { return Ok(()) };
        self.carry_out(name, event, &Requester::controller(), None);
        if !matches!(command, Command::Start | Command::Supersede) {
            return Ok(());
        }
        let now = self.managed.get(name).map_or(0, |it| it.rollout.revision());
        Err(Rejected::Stale { rollout: name.clone(), seen: now.saturating_sub(1), now })
    }

    /// Refuses a start while everything is stopped, before the golden set is answered that stands
    /// before it, or while another rollout governs the same requests and is not to be superseded.
    fn may_start(&self, name: &Name, command: &Command) -> Result<(), Rejected> {
        if let Some(stop) = &self.stopped {
            let refusal = Box::new(Refusal::Stopped { actor: stop.actor.clone() });
            let (rollout, remedy) = (name.clone(), refusal.remedy_when(name, None));
            return Err(Rejected::Refused { rollout, refusal, remedy });
        }
        let managed = self.managed.get(name);
        if let Some(refusal) = managed.and_then(|it| self.unproven(it)) {
            let remedy = refusal.remedy_when(name, None);
            let (rollout, refusal) = (name.clone(), Box::new(refusal));
            return Err(Rejected::Refused { rollout, refusal, remedy });
        }
        match self.overlapping(name).first() {
            Some(other) if *command == Command::Start => {
                Err(Rejected::Overlap { rollout: name.clone(), other: other.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Sends back what a start supersedes; says whether there was anything.
    ///
    /// Called where the start could be written at once: nothing is sent back for one that cannot.
    pub(super) fn makes_room(&mut self, step: &Step) -> bool {
        if !matches!(step.wish, Wish::Obey(Command::Supersede)) {
            return false;
        }
        let by = Requester {
            actor: step.by.actor.clone(),
            comment: format!("superseded by `{}`", step.name),
            ..Requester::default()
        };
        let others = self.overlapping(&step.name);
        for other in &others {
            self.send_back(other, &Input::Superseded, &by);
        }
        !others.is_empty()
    }

    /// Sends a rollout back for a reason that is not its own.
    pub(super) fn send_back(&mut self, name: &Name, why: &Input<'_>, by: &Requester) {
        let now = self.clock.now();
        let Some(managed) = self.managed.get(name) else { return };
        let event = managed.rollout.decide(now, why, &managed.evidence);
        if let Ok(Some(event)) = event {
            self.carry_out(name, event, by, None);
        }
    }

    /// The rollouts that move some of the same requests now.
    fn overlapping(&self, name: &Name) -> Vec<Name> {
        let Some(starting) = self.managed.get(name) else { return Vec::new() };
        let slice = &starting.rollout.plan().slice;
        let others = self.managed.values().filter(|it| {
            it.rollout.name() != name
                && it.rollout.stage().is_some()
                && it.rollout.plan().slice.overlaps(slice)
        });
        others.map(|it| it.rollout.name().clone()).collect()
    }
}

/// What a command did long ago that changes nothing now.
fn done(command: &Command) -> Option<Event> {
    match command {
        Command::Pause => Some(Event::Paused(Cause::Operator)),
        Command::Resume => Some(Event::Resumed),
        Command::Revise(plan) => Some(Event::Revised(plan.clone())),
        Command::Start
        | Command::Supersede
        | Command::Advance { .. }
        | Command::Jump { .. }
        | Command::Complete { .. }
        | Command::Approve { .. }
        | Command::Rollback => None,
    }
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
