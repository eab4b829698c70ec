//! `RolloutService`: requests in, the controller's answers out.

use std::{pin::Pin, sync::Arc};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use super::{
    convert::{self, Created, PlanDefaults},
    errors,
    proto::{self, rollout_service_server::RolloutService},
    request::{
        Said, Which, actor, page_len, requester, rollback_requester, rollout, slow, word,
        wrong_token,
    },
    watch::{self, WATCHERS_MAX},
};
use crate::controller::{Handle, Requester, View, Views};
use crate::domain::{Answer, Command, Consent, Name, Plan, Record, Undecided};
use crate::tasks::{Pool, Stop, spawn};

/// Answers that may wait for a watcher to read them.
const WATCH_LEN_MAX: usize = 16;

/// The service.
#[derive(Debug)]
pub(super) struct Rollouts {
    handle: Handle,
    defaults: PlanDefaults,
    watchers: Pool,
    stop: Stop,
}

impl Rollouts {
    pub(super) fn new(handle: Handle, defaults: PlanDefaults, stop: Stop) -> Self {
        Self { handle, defaults, watchers: Pool::new(WATCHERS_MAX), stop }
    }

    async fn command(&self, name: &str, command: Command, by: Requester) -> Answered {
        let name = rollout("name", name)?;
        let view = self.handle.command(name, command, by).await;
        view.map(|it| Response::new(convert::rollout(&it)))
            .map_err(|error| errors::rejected(&error))
    }
}

type Answered = Result<Response<proto::Rollout>, Status>;

#[tonic::async_trait]
impl RolloutService for Rollouts {
    async fn get_rollout(&self, request: Request<proto::GetRolloutRequest>) -> Answered {
        let name = rollout("name", &request.into_inner().name)?;
        let view = self.handle.view(&name).map_err(|error| errors::rejected(&error))?;
        Ok(Response::new(convert::rollout(&view)))
    }

    async fn list_rollouts(
        &self,
        request: Request<proto::ListRolloutsRequest>,
    ) -> Result<Response<proto::ListRolloutsResponse>, Status> {
        let asked = request.into_inner();
        let views = self.handle.views();
        let (page, next_page_token) =
            page_of_rollouts(&views.rollouts, page_len(asked.page_size)?, &asked.page_token)?;
        Ok(Response::new(proto::ListRolloutsResponse {
            rollouts: page.iter().map(convert::rollout).collect(),
            next_page_token,
            degraded: views.degraded.clone().unwrap_or_default(),
            stopped: views.stopped.clone().unwrap_or_default(),
            stopped_etag: views.stopped_at.map_or_else(String::new, |it| it.0.to_string()),
        }))
    }

    async fn create_rollout(&self, request: Request<proto::CreateRolloutRequest>) -> Answered {
        let actor = actor(&request)?;
        let mut asked = request.into_inner();
        let (comment, request_id) =
            (std::mem::take(&mut asked.comment), std::mem::take(&mut asked.request_id));
        let by = requester(actor, Said { comment, request_id, ..Said::default() })?;
        let by = Requester { slow: slow(asked.force), ..by };
        let Created { name, plan } =
            convert::created(asked, &self.defaults).map_err(|faults| errors::plan(&faults))?;
        let view = self.handle.create(name, plan, by).await;
        view.map(|it| Response::new(convert::rollout(&it)))
            .map_err(|error| errors::rejected(&error))
    }

    async fn start_rollout(&self, request: Request<proto::StartRolloutRequest>) -> Answered {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let (comment, request_id, etag) = (asked.comment, asked.request_id, asked.etag);
        let by = requester(actor, Said { comment, request_id, etag })?;
        let by = Requester { slow: slow(asked.force), ..by };
        let command = if asked.supersede { Command::Supersede } else { Command::Start };
        self.command(&asked.name, command, by).await
    }

    async fn update_rollout(&self, request: Request<proto::UpdateRolloutRequest>) -> Answered {
        let actor = actor(&request)?;
        let proto::UpdateRolloutRequest { rollout, request_id, comment } = request.into_inner();
        let mut rollout = rollout.unwrap_or_default();
        let etag = std::mem::take(&mut rollout.etag);
        let by = requester(actor, Said { comment, request_id, etag })?;
        let Created { name, plan } =
            convert::updated(rollout, &self.defaults).map_err(|faults| errors::plan(&faults))?;
        self.command(&format!("rollouts/{name}"), Command::Revise(Box::new(plan)), by).await
    }

    async fn delete_rollout(
        &self,
        request: Request<proto::DeleteRolloutRequest>,
    ) -> Result<Response<proto::DeleteRolloutResponse>, Status> {
        let actor = actor(&request)?;
        let proto::DeleteRolloutRequest { name, etag, request_id, comment } = request.into_inner();
        let by = requester(actor, Said { comment, request_id, etag })?;
        let deleted = self.handle.delete(rollout("name", &name)?, by).await;
        deleted.map_err(|error| errors::rejected(&error))?;
        Ok(Response::new(proto::DeleteRolloutResponse {}))
    }

    async fn jump_rollout(&self, request: Request<proto::JumpRolloutRequest>) -> Answered {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let (comment, request_id, etag) = (asked.comment, asked.request_id, asked.etag);
        let by = requester(actor, Said { comment, request_id, etag })?;
        let to_stage = word("to_stage_id", asked.to_stage_id)?;
        let undecided = if asked.override_undecided { Undecided::Skip } else { Undecided::Hold };
        let consent = if asked.approve { Consent::Given } else { Consent::Withheld };
        self.command(&asked.name, Command::Jump { to_stage, undecided, consent }, by).await
    }

    async fn complete_rollout(&self, request: Request<proto::CompleteRolloutRequest>) -> Answered {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let (comment, request_id, etag) = (asked.comment, asked.request_id, asked.etag);
        let by = requester(actor, Said { comment, request_id, etag })?;
        let consent = if asked.approve { Consent::Given } else { Consent::Withheld };
        self.command(&asked.name, Command::Complete { consent }, by).await
    }

    async fn stop_rollouts(
        &self,
        request: Request<proto::StopRolloutsRequest>,
    ) -> Result<Response<proto::StopRolloutsResponse>, Status> {
        let proto::StopRolloutsRequest { comment, request_id } = request.get_ref().clone();
        let by = rollback_requester(&request, &Said { comment, request_id, ..Said::default() });
        // It goes on when the caller leaves, as a rollback does.
        let (reply, answer) = oneshot::channel();
        let handle = self.handle.clone();
        spawn("stop", async move { drop(reply.send(handle.stop(by).await)) });
        let views = answer.await.map_err(|_| errors::stopping())?;
        let views = views.map_err(|error| errors::rejected(&error))?;
        let rollouts = views.iter().map(convert::rollout).collect();
        let stopped = self.handle.views().stopped.clone().unwrap_or_default();
        Ok(Response::new(proto::StopRolloutsResponse { rollouts, stopped }))
    }

    async fn lift_stop(
        &self,
        request: Request<proto::LiftStopRequest>,
    ) -> Result<Response<proto::LiftStopResponse>, Status> {
        let actor = actor(&request)?;
        let proto::LiftStopRequest { comment, etag } = request.into_inner();
        let by = requester(actor, Said { comment, etag, ..Said::default() })?;
        self.handle.lift(by).await.map_err(|error| errors::rejected(&error))?;
        Ok(Response::new(proto::LiftStopResponse {}))
    }

    async fn advance_rollout(&self, request: Request<proto::AdvanceRolloutRequest>) -> Answered {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let (comment, request_id, etag) = (asked.comment, asked.request_id, asked.etag);
        let by = requester(actor, Said { comment, request_id, etag })?;
        let from_stage = word("from_stage_id", asked.from_stage_id)?;
        let undecided = if asked.override_undecided { Undecided::Skip } else { Undecided::Hold };
        self.command(&asked.name, Command::Advance { from_stage, undecided }, by).await
    }

    async fn rollback_rollout(
        &self,
        request: Request<proto::RollbackRolloutRequest>,
    ) -> Result<Response<proto::RollbackRolloutResponse>, Status> {
        let proto::RollbackRolloutRequest { name, request_id, comment } = request.get_ref().clone();
        let by = rollback_requester(&request, &Said { comment, request_id, ..Said::default() });
        let views = match Which::read("name", &name)? {
            Which::One(name) => roll_back(&self.handle, vec![(name, by)]).await?,
            Which::All => roll_all_back(&self.handle, &by).await?,
        };
        let rollouts = views.iter().map(convert::rollout).collect();
        Ok(Response::new(proto::RollbackRolloutResponse { rollouts }))
    }

    async fn pause_rollout(&self, request: Request<proto::PauseRolloutRequest>) -> Answered {
        let actor = actor(&request)?;
        let proto::PauseRolloutRequest { name, request_id, comment } = request.into_inner();
        let by = requester(actor, Said { comment, request_id, ..Said::default() })?;
        self.command(&name, Command::Pause, by).await
    }

    async fn resume_rollout(&self, request: Request<proto::ResumeRolloutRequest>) -> Answered {
        let actor = actor(&request)?;
        let proto::ResumeRolloutRequest { name, etag, request_id, comment } = request.into_inner();
        let by = requester(actor, Said { comment, request_id, etag })?;
        self.command(&name, Command::Resume, by).await
    }

    async fn approve_stage(&self, request: Request<proto::ApproveStageRequest>) -> Answered {
        let actor = actor(&request)?;
        let asked = request.into_inner();
        let (comment, request_id, etag) = (asked.comment, asked.request_id, asked.etag);
        let by = requester(actor, Said { comment, request_id, etag })?;
        if asked.stage_id.is_empty() {
            return Err(errors::argument("stage_id", "stage_id says which stage is approved"));
        }
        let stage = word("stage_id", asked.stage_id)?;
        let answer = if asked.approved { Answer::Yes } else { Answer::No };
        let attempt = u32::try_from(asked.attempt).map_err(|_| {
            errors::argument("attempt", "attempt is one from 1 on, or 0 where none is meant")
        })?;
        let attempt = Some(attempt).filter(|it| 0 < *it);
        self.command(&asked.name, Command::Approve { stage, attempt, answer }, by).await
    }

    async fn evaluate_rollout(
        &self,
        request: Request<proto::EvaluateRolloutRequest>,
    ) -> Result<Response<proto::EvaluateRolloutResponse>, Status> {
        let name = rollout("name", &request.into_inner().name)?;
        let evaluation =
            self.handle.evaluate(name).await.map_err(|error| errors::rejected(&error))?;
        Ok(Response::new(convert::evaluation(&evaluation)))
    }

    type WatchRolloutStream =
        Pin<Box<dyn Stream<Item = Result<proto::WatchRolloutResponse, Status>> + Send>>;

    async fn watch_rollout(
        &self,
        request: Request<proto::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        let which = Which::read("name", &request.into_inner().name)?;
        if let Which::One(name) = &which {
            self.handle.view(name).map_err(|error| errors::rejected(&error))?;
        }
        let place = self.watchers.try_enter();
        let place = place.ok_or_else(|| errors::exhausted("watchers", WATCHERS_MAX))?;
        let (out, answers) = mpsc::channel(WATCH_LEN_MAX);
        let pump = watch::pump(self.handle.clone(), which, out, self.stop.clone());
        Pool::run(place, "watch", pump);
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let asked = request.into_inner();
        let which = Which::read("parent", &asked.parent)?;
        let views = self.handle.views();
        // What became of one that was deleted can still be read.
        if let Which::One(name) = &which
            && !views.records.iter().any(|it| it.rollout == *name)
        {
            self.handle.view(name).map_err(|error| errors::rejected(&error))?;
        }
        let (page, next_page_token) =
            page_of_records(&views.records, &which, page_len(asked.page_size)?, &asked.page_token)?;
        let event = |it: &&Arc<Record>| convert::event(it, plan_at(&views, &it.rollout, it.seq));
        let events = page.iter().map(event).collect();
        Ok(Response::new(proto::ListEventsResponse { events, next_page_token }))
    }
}

/// Rolls everything back, and answers what that changed.
///
/// All are asked, also those that move nothing yet: a start may be under way.
async fn roll_all_back(handle: &Handle, by: &Requester) -> Result<Vec<View>, Status> {
    let before = handle.views();
    let each = |view: &View| {
        let (name, mut by) = (view.rollout.name().clone(), by.clone());
        if !by.request_id.is_empty() {
            // One key for each rollout, as one key may stand for one command only.
            by.request_id = format!("{}/{name}", by.request_id);
        }
        (name, by)
    };
    let after = roll_back(handle, before.rollouts.iter().map(each).collect()).await?;
    let both = after.into_iter().zip(&before.rollouts);
    let changed = both.filter(|(after, before)| {
        before.rollout.stage().is_some() || after.rollout.revision() != before.rollout.revision()
    });
    Ok(changed.map(|(after, _)| after).collect())
}

/// Rolls back. All begin at once, so that a slow disk delays none of them, and go on
/// when the caller leaves.
async fn roll_back(handle: &Handle, asked: Vec<(Name, Requester)>) -> Result<Vec<View>, Status> {
    let mut begun = Vec::new();
    for (name, by) in asked {
        let (reply, answer) = oneshot::channel();
        let handle = handle.clone();
        spawn("rollback", async move {
            // Nobody listens any more when the caller has left.
            let _ = reply.send(handle.command(name, Command::Rollback, by).await);
        });
        begun.push(answer);
    }
    let mut views = Vec::new();
    for answer in begun {
        let view = answer.await.map_err(|_| errors::stopping())?;
        views.push(view.map_err(|error| errors::rejected(&error))?);
    }
    Ok(views)
}

/// A page of rollouts, and the token of the next: the name the page ends with.
fn page_of_rollouts<'a>(
    views: &'a [View],
    len: usize,
    token: &str,
) -> Result<(&'a [View], String), Status> {
    let rest = if token.is_empty() {
        views
    } else {
        let last = views.iter().position(|it| it.rollout.name().as_str() == token);
        &views[last.ok_or_else(wrong_token)? + 1..]
    };
    let page = &rest[..len.min(rest.len())];
    let more = page.len() < rest.len();
    let next = page.last().filter(|_| more).map(|it| it.rollout.name().to_string());
    Ok((page, next.unwrap_or_default()))
}

/// A page of the log, newest first, and the token of the next: where the page ends.
fn page_of_records<'a>(
    records: &'a [Arc<Record>],
    which: &Which,
    len: usize,
    token: &str,
) -> Result<(Vec<&'a Arc<Record>>, String), Status> {
    let before = match token {
        "" => u64::MAX,
        token => token.parse().map_err(|_| wrong_token())?,
    };
    let newest_first = records.iter().rev();
    let meant = newest_first.filter(|it| it.seq < before && which.includes(&it.rollout));
    let mut page: Vec<_> = meant.take(len + 1).collect();
    let more = len < page.len();
    page.truncate(len);
    let next = page.last().filter(|_| more).map(|it| it.seq.to_string());
    Ok((page, next.unwrap_or_default()))
}

/// The plan of a rollout that held at a point of the log; today's where the log begins later.
fn plan_at<'a>(views: &'a Views, name: &Name, seq: u64) -> Option<&'a Plan> {
    let until = views.records.iter().rev().filter(|it| it.seq <= seq && it.rollout == *name);
    let mut plans = until.filter_map(|it| it.event.plan());
    let today = || views.rollouts.iter().find(|it| it.rollout.name() == name);
    plans.next().or_else(|| today().map(|it| it.rollout.plan()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::rig::{Rig, by, name, plan};
    use crate::domain::{Event, State, Timestamp};

    #[tokio::test]
    async fn what_begins_is_rolled_back_too_when_everything_is() {
        let rig = Rig::running(&["a"]).await;
        for it in ["b", "idle"] {
            rig.handle.create(name(it), plan(it), by("")).await.unwrap();
        }
        let _hung = rig.hang_in("b", Command::Start).await;
        let views = roll_all_back(&rig.handle, &by("all")).await.unwrap();
        let mut back: Vec<_> = views.iter().map(|it| it.rollout.name().as_str()).collect();
        back.sort_unstable();
        assert_eq!(back, ["a", "b"], "what changed");
        assert!(views.iter().all(|it| it.rollout.state() == State::RolledBack));
        rig.sim.go_on();
        rig.until_durable("b").await;
        assert!(!rig.moves("a") && !rig.moves("b"));
    }

    fn record(seq: u64, rollout: &str) -> Arc<Record> {
        Arc::new(Record {
            seq,
            at: Timestamp(seq),
            rollout: rollout.parse().unwrap(),
            actor: String::new(),
            comment: String::new(),
            request_id: String::new(),
            event: Event::Resumed,
            from: State::Running,
            to: State::Paused,
            plan_revision: 1,
            evidence: vec![],
        })
    }

    #[test]
    fn pages_of_the_log_meet_without_gap_or_overlap() {
        let records: Vec<_> =
            (1..=7).map(|seq| record(seq, if seq == 4 { "other" } else { "chat" })).collect();
        let which = Which::One("chat".parse().unwrap());
        let (mut seen, mut token) = (vec![], String::new());
        loop {
            let (page, next) = page_of_records(&records, &which, 2, &token).unwrap();
            seen.extend(page.iter().map(|it| it.seq));
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, [7, 6, 5, 3, 2, 1]);
        assert!(page_of_records(&records, &which, 2, "x").is_err());
    }
}
