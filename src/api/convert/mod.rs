//! Domain values as messages, and plans from messages.

mod evidence;
mod explain;
mod plan;

pub(super) use evidence::{bodies, comparisons, pair};
pub(super) use explain::{trace, trace_of_pair};
pub use plan::PlanDefaults;
pub(super) use plan::{Created, created, updated};

use evidence::gate_evidence;

use super::proto;
use crate::controller::{Decision, Evaluation, View};
use crate::domain::{
    Approval, Cause, Event, Evidence, Excluded, Forecast, Freeze, FreezeText, Gate, GateEvidence,
    Metric, Name, OnIdle, Plan, Record, Refusal, Risk, Role, Slice, Stage, State, Times, Timestamp,
    Verdict,
};

/// Milliseconds of a message's duration; zero for a negative one.
pub fn millis(duration: proto::Duration) -> u64 {
    let seconds = u64::try_from(duration.seconds).unwrap_or(0);
    let nanos = u64::try_from(duration.nanos).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000)
}

/// A message's time as ours.
pub fn timestamp(time: proto::Timestamp) -> Timestamp {
    Timestamp(millis(proto::Duration { seconds: time.seconds, nanos: time.nanos }))
}

pub(super) fn time(at: Timestamp) -> proto::Timestamp {
    let proto::Duration { seconds, nanos } = duration(at.0);
    proto::Timestamp { seconds, nanos }
}

pub(super) fn duration(ms: u64) -> proto::Duration {
    proto::Duration { seconds: long(ms / 1_000), nanos: int(ms % 1_000 * 1_000_000) }
}

/// A number as a message keeps it; what is beyond is the largest there is.
pub(super) fn long(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

fn int(number: impl TryInto<i32>) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}

fn provider(name: &Name) -> String {
    format!("providers/{name}")
}

/// A rollout as it is now.
pub(super) fn rollout(view: &View) -> proto::Rollout {
    let rollout = &view.rollout;
    let revision = rollout.revision();
    let started = 0 < rollout.attempt();
    proto::Rollout {
        name: format!("rollouts/{}", rollout.name()),
        state: state(rollout.state()).into(),
        stage_index: int(rollout.stage_index()),
        attempt: int(rollout.attempt()),
        stage_start_time: started.then(|| time(rollout.entered())),
        stage_elapsed: rollout.stage().map(|_| duration(rollout.dwelt_ms(view.now))),
        evidence: view.evidence.gates.iter().map(|it| known(&view.evidence, it)).collect(),
        solos: long(view.evidence.solos),
        observations_per_minute: view.evidence.per_minute,
        excluded: view.evidence.excluded.iter().map(excluded).collect(),
        pairs: long(view.evidence.pairs),
        evidence_problem: view.evidence.problem.clone().unwrap_or_default(),
        obstacle: rollout.obstacle(view.now, &view.evidence).map(|it| obstacle(&it)),
        status_message: view.message.clone(),
        reason: rollout.cause().map(|it| proto::Reason {
            slice: broken_slice(it, &view.evidence.gates),
            ..reason(it, &view.actor, &view.comment)
        }),
        copies_today: long(view.copies_today),
        spending: Some(spending(view)),
        savings: Some(proto::Savings {
            served: long(view.savings.served),
            priced: long(view.savings.priced),
            served_nano_usd: long(view.savings.served_nano_usd),
            instead_nano_usd: view.savings.instead_nano_usd().map(long),
            pairs: long(view.savings.pairs),
        }),
        revision: long(revision),
        create_time: Some(time(view.created)),
        update_time: Some(time(view.updated)),
        durable: view.durable,
        plan_revision: long(rollout.plan_revision()),
        overdue: rollout.is_overdue(),
        forecasts: view.foresight.gates.iter().map(forecast).collect(),
        requests_per_minute: view.foresight.per_minute,
        etag: revision.to_string(),
        ..planned(rollout.plan())
    }
}

/// What copies and scores cost so far, and what they may.
fn spending(view: &View) -> proto::Spending {
    let (spent, budget) = (view.purse.spent(view.now), view.purse.budget());
    proto::Spending {
        today_nano_usd: long(spent.today),
        total_nano_usd: long(spent.total),
        per_day_nano_usd_max: budget.per_day_nano_usd.map(long),
        total_nano_usd_max: budget.total_nano_usd.map(long),
    }
}

/// A gate's evidence, with how long it will still take.
fn known(evidence: &Evidence, gate: &GateEvidence) -> proto::GateEvidence {
    let time_needed = evidence.wait_ms(gate).filter(|_| gate.verdict == Verdict::Undecided);
    proto::GateEvidence { time_needed: time_needed.map(duration), ..gate_evidence(gate) }
}

fn forecast(forecast: &Forecast) -> proto::Forecast {
    proto::Forecast {
        stage_id: forecast.stage.clone(),
        metric: forecast.metric.as_str().to_owned(),
        samples: forecast.samples.map(long),
        time: forecast.ms.map(duration),
        too_slow: forecast.is_too_slow(),
    }
}

fn excluded(excluded: &Excluded) -> proto::Excluded {
    proto::Excluded { reason: excluded.reason.to_owned(), count: long(excluded.count) }
}

/// A rollout that has nothing but a plan.
fn planned(plan: &Plan) -> proto::Rollout {
    let Plan { primary, candidate, slice: of, watched, stages, copies_per_day_max, .. } = plan;
    let Plan { judge_share, risk: Risk { harm_bps, safe_bps, alarm_from_percent }, times, .. } =
        plan;
    let Times { freezes, idle_ms_max, on_idle, bake_ms } = times;
    proto::Rollout {
        slice: Some(slice(of)),
        slices: watched.as_ref().map(|it| proto::WatchedSlices {
            by: it.by.as_str().to_owned(),
            values: it.values.clone(),
        }),
        compare: (!plan.compared.is_empty()).then(|| proto::Compare {
            labels: plan.compared.labels.clone(),
            fields: plan.compared.fields.clone(),
        }),
        primary: provider(primary),
        candidate: provider(candidate),
        stages: stages.iter().map(stage).collect(),
        copies_per_day: Some(long(*copies_per_day_max)),
        judge_share_bps: Some(judge_share.basis_points().into()),
        review_bps: Some(plan.review.basis_points().into()),
        noise_bps: plan.noise.basis_points().into(),
        risk: Some(proto::Risk {
            harm_bps: int(*harm_bps),
            safe_bps: int(*safe_bps),
            alarm_from_percent: int(*alarm_from_percent),
        }),
        freezes: freezes.iter().map(freeze).collect(),
        idle: Some(duration(*idle_ms_max)),
        on_idle: match on_idle {
            OnIdle::Pause => proto::rollout::OnIdle::Pause.into(),
            OnIdle::Rollback => proto::rollout::OnIdle::RollBack.into(),
        },
        bake: bake_ms.map(duration),
        ..proto::Rollout::default()
    }
}

fn freeze(freeze: &Freeze) -> proto::Freeze {
    let FreezeText { days, from, to, zone } = freeze.text();
    proto::Freeze { days, from, to, zone }
}

fn slice(slice: &Slice) -> proto::TrafficSlice {
    let Slice { features, segments, tasks, models } = slice.clone();
    proto::TrafficSlice { features, segments, models, tasks }
}

fn stage(stage: &Stage) -> proto::Stage {
    let Stage { name, serve, mirror, slice: of, duration_ms_min, duration_ms_max, .. } = stage;
    let Stage { delay_ms, samples_min, gates, approval, .. } = stage;
    proto::Stage {
        stage_id: name.clone(),
        serve_bps: serve.basis_points().into(),
        mirror_bps: mirror.basis_points().into(),
        min_duration: Some(duration(*duration_ms_min)),
        min_samples: long(*samples_min),
        gates: gates.iter().map(gate).collect(),
        approval_required: *approval == Approval::Needed,
        slice: Some(slice(of)),
        max_duration: duration_ms_max.map(duration),
        initial_delay: Some(duration(*delay_ms)).filter(|_| 0 < *delay_ms),
    }
}

fn gate(gate: &Gate) -> proto::Gate {
    let role = match gate.role {
        Role::Prove => proto::gate::Role::Prove,
        Role::Guard => proto::gate::Role::Guard,
    };
    proto::Gate {
        metric: gate.metric().as_str().to_owned(),
        max_regression: gate.margin.to_string(),
        role: role.into(),
    }
}

fn state(state: State) -> proto::rollout::State {
    match state {
        State::Pending => proto::rollout::State::Pending,
        State::Running => proto::rollout::State::Running,
        State::Paused => proto::rollout::State::Paused,
        State::AwaitingApproval => proto::rollout::State::AwaitingApproval,
        State::Succeeded => proto::rollout::State::Succeeded,
        State::Baked => proto::rollout::State::Baked,
        State::RolledBack => proto::rollout::State::RolledBack,
    }
}

fn obstacle(refusal: &Refusal) -> proto::Obstacle {
    let metric = match refusal {
        Refusal::Gate { metric, .. } | Refusal::TooSlow { metric, .. } => metric.as_str(),
        Refusal::WrongState { .. }
        | Refusal::AttemptMismatch { .. }
        | Refusal::StageMismatch { .. }
        | Refusal::Untrusted { .. }
        | Refusal::Outage { .. }
        | Refusal::JudgedAlone { .. }
        | Refusal::Unsettled { .. }
        | Refusal::Samples { .. }
        | Refusal::TooEarly { .. }
        | Refusal::Frozen { .. }
        | Refusal::NeedsApproval { .. }
        | Refusal::NeedsConsent { .. }
        | Refusal::NeedsOverride { .. }
        | Refusal::NoStage { .. }
        | Refusal::Fixed { .. }
        | Refusal::Moves { .. }
        | Refusal::Configured
        | Refusal::Golden { .. }
        | Refusal::Stopped { .. } => "",
    };
    proto::Obstacle {
        code: refusal.code().to_owned(),
        message: refusal.to_string(),
        metric: metric.to_owned(),
    }
}

fn reason(cause: Cause, actor: &str, comment: &str) -> proto::Reason {
    let metric = cause.metric().map_or("", Metric::as_str);
    proto::Reason {
        code: cause.code().to_owned(),
        actor: actor.to_owned(),
        metric: metric.to_owned(),
        comment: comment.to_owned(),
        slice: String::new(),
    }
}

/// The watched slice in which the gate broke that was the cause; empty for all traffic.
fn broken_slice(cause: Cause, gates: &[GateEvidence]) -> String {
    let broke =
        |it: &&GateEvidence| Some(it.metric) == cause.metric() && it.verdict == Verdict::Breach;
    gates.iter().find(broke).map_or_else(String::new, |it| it.watched.clone())
}

/// One line of the log. `plan` is the one that held then, for the names of its stages.
pub(super) fn event(record: &Record, plan: Option<&Plan>) -> proto::Event {
    use proto::event::Type;
    let kind = match &record.event {
        Event::Created(_) => Type::Created,
        Event::Revised(_) => Type::Revised,
        Event::Loosened(_) => Type::Loosened,
        Event::StageEntered { .. } => Type::StageEntered,
        Event::ApprovalRequested => Type::ApprovalRequested,
        Event::Paused(_) => Type::Paused,
        Event::Resumed => Type::Resumed,
        Event::Overdue => Type::Overdue,
        Event::Succeeded(_) => Type::Succeeded,
        Event::Baked => Type::Baked,
        Event::RolledBack(_) => Type::RolledBack,
        Event::Deleted => Type::Deleted,
        Event::Stopped => Type::Stopped,
        Event::Lifted => Type::Lifted,
        Event::Flagged(_) => Type::Flagged,
        Event::Unflagged(_) => Type::Unflagged,
    };
    let entered = record.event.entered();
    let cause = record.event.cause();
    let reason = proto::Reason {
        slice: broken_slice(cause, &record.evidence),
        ..reason(cause, &record.actor, &record.comment)
    };
    let stage = entered.and_then(|(_, stage)| plan?.stages.get(stage));
    proto::Event {
        name: format!("rollouts/{}/events/{}", record.rollout, record.seq),
        r#type: kind.into(),
        create_time: Some(time(record.at)),
        reason: Some(reason),
        from_state: state(record.from).into(),
        to_state: state(record.to).into(),
        evidence: record.evidence.iter().map(gate_evidence).collect(),
        stage_id: stage.map(|it| it.name.clone()).unwrap_or_default(),
        attempt: entered.map_or(0, |(attempt, _)| int(attempt)),
        request_id: record.request_id.clone(),
        plan_revision: long(record.plan_revision),
        flag: match &record.event {
            Event::Flagged(flag) => flag.to_string(),
            event => event.flag().map_or_else(String::new, ToString::to_string),
        },
    }
}

/// What the controller would do.
pub(super) fn evaluation(evaluation: &Evaluation) -> proto::EvaluateRolloutResponse {
    use proto::evaluate_rollout_response::Decision as Told;
    let decision = match evaluation.decision {
        Decision::Hold => Told::Hold,
        Decision::Advance => Told::Advance,
        Decision::RollBack => Told::RollBack,
    };
    proto::EvaluateRolloutResponse {
        decision: decision.into(),
        explanation: evaluation.explanation.clone(),
        rollout: Some(rollout(&evaluation.view)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Evidence, Margin, Mark, Metric, Rollout, Share, Watched, default_ladder};

    fn plan() -> Plan {
        Plan {
            primary: "gpt".parse().unwrap(),
            candidate: "cheap".parse().unwrap(),
            slice: Slice { features: vec!["chat".to_owned()], ..Slice::default() },
            watched: Some(Watched { by: Mark::Segment, values: vec!["free".to_owned()] }),
            compared: crate::domain::Compared {
                labels: vec!["spam".to_owned()],
                fields: vec!["order.id".to_owned()],
            },
            stages: default_ladder(&Metric::DEFAULTS.map(Margin::default_of), &[], &[]),
            copies_per_day_max: 9_000,
            judge_share: Share::from_basis_points(2_500).unwrap(),
            review: Share::from_basis_points(700).unwrap(),
            noise: Share::from_basis_points(100).unwrap(),
            risk: Risk { harm_bps: 200, safe_bps: 300, alarm_from_percent: 80 },
            times: times(),
        }
    }

    fn times() -> Times {
        let days = vec!["fri".to_owned(), "sat".to_owned()];
        let [from, to, zone] = ["18:00", "08:00", "Europe/Berlin"].map(str::to_owned);
        let freezes = vec![Freeze::read(&FreezeText { days, from, to, zone }).unwrap()];
        Times { freezes, idle_ms_max: 60_000, on_idle: OnIdle::Rollback, bake_ms: Some(9_000) }
    }

    fn view() -> View {
        let mut rollout = Rollout::new("chat".parse().unwrap(), plan());
        let entered = Event::StageEntered { attempt: 1, stage: 0, cause: Cause::Operator };
        rollout.apply(Timestamp(1_000), &entered);
        View {
            rollout,
            evidence: Evidence::default(),
            created: Timestamp(500),
            updated: Timestamp(1_000),
            actor: "ana".to_owned(),
            comment: "go".to_owned(),
            message: "waits".to_owned(),
            durable: true,
            foresight: std::sync::Arc::default(),
            judge: String::new(),
            copies_today: 3,
            purse: std::sync::Arc::default(),
            savings: crate::domain::Savings::default(),
            now: Timestamp(61_000),
        }
    }

    #[test]
    fn a_view_tells_where_the_rollout_stands_and_what_stands_in_its_way() {
        let told = rollout(&view());
        assert_eq!(told.name, "rollouts/chat");
        assert_eq!(told.state(), proto::rollout::State::Running);
        assert_eq!((told.revision, told.etag.as_str()), (2, "2"));
        assert_eq!(told.stage_elapsed.map(millis), Some(60_000));
        assert_eq!(told.obstacle.unwrap().code, "GATE_UNDECIDED");
        assert_eq!(told.reason.unwrap().actor, "ana");
        assert_eq!(told.create_time.map(timestamp), Some(Timestamp(500)));
    }

    #[test]
    fn a_plan_reads_back_from_its_message() {
        let request = proto::CreateRolloutRequest {
            rollout_id: "chat".to_owned(),
            rollout: Some(rollout(&view())),
            ..proto::CreateRolloutRequest::default()
        };
        let defaults = PlanDefaults {
            margins: vec![],
            copies_per_day_max: 1,
            judge_share: Share::NONE,
            review: Share::ALL,
            risk: Risk::default(),
        };
        let Created { name, plan: read } = created(request, &defaults).unwrap();
        assert_eq!((name.as_str(), read), ("chat", plan()));
    }

    #[test]
    fn an_event_names_the_stage_of_the_plan_that_held() {
        let record = Record {
            seq: 7,
            at: Timestamp(1_500),
            rollout: "chat".parse().unwrap(),
            actor: "controller".to_owned(),
            comment: String::new(),
            request_id: String::new(),
            event: Event::StageEntered { attempt: 2, stage: 1, cause: Cause::GatesPassed },
            from: State::Running,
            to: State::Running,
            plan_revision: 3,
            evidence: vec![],
        };
        let told = event(&record, Some(&plan()));
        assert_eq!(told.name, "rollouts/chat/events/7");
        assert_eq!((told.stage_id.as_str(), told.attempt), ("read-only", 2));
        assert_eq!(told.reason.as_ref().unwrap().code, "ALL_GATES_PASSED");
        assert_eq!(event(&record, None).stage_id, "");
    }
}
