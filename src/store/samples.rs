//! Records and pairs for the tests of the store.

use bytes::Bytes;

use super::{Bodies, Limits};
use crate::domain::{
    Agreement, Approval, Call, Cause, Event, Freeze, FreezeText, GateEvidence, Margin, Metric,
    OnIdle, Outcome, Pair, PairId, Plan, Record, Risk, Role, Score, ScorePart, Share, Side, Slice,
    State, Times, Timestamp, Usage, Verdict, Window, default_ladder,
};

pub(super) const HOUR_MS: u64 = 3_600_000;

pub(crate) const LIMITS: Limits =
    Limits { bytes_max: 1 << 40, age_ms_max: 1 << 50, free_bytes_min: 0, queue_len_max: 8 };

pub(crate) fn plan() -> Plan {
    let margins = [
        Margin::parse(Metric::ErrorRate, "+0.05pp").unwrap(),
        Margin::parse(Metric::LatencyP99, "+15%").unwrap(),
        Margin::parse(Metric::JudgeScore, ">= 97%").unwrap(),
    ];
    let mut stages = default_ladder(&margins, &["search".to_owned()], &["tag \"x\"".to_owned()]);
    stages[0].approval = Approval::Needed;
    stages[0].duration_ms_max = Some(u64::MAX);
    stages[1].gates[1].role = Role::Guard;
    Plan {
        primary: "gpt".parse().unwrap(),
        candidate: "cheap".parse().unwrap(),
        slice: Slice { models: vec!["gpt-é".to_owned()], ..Slice::default() },
        stages,
        copies_per_day_max: u64::MAX,
        judge_share: Share::from_basis_points(2_500).unwrap(),
        risk: Risk::default(),
        times: Times {
            freezes: vec![
                freeze(&["fri", "sat"], "18:00", "08:00"),
                freeze(&[], "2026-12-20T00:00", "2027-01-02T00:00"),
            ],
            idle_ms_max: 7,
            on_idle: OnIdle::Rollback,
            bake_ms: Some(9),
        },
    }
}

fn freeze(days: &[&str], from: &str, to: &str) -> Freeze {
    let days = days.iter().map(|it| (*it).to_owned()).collect();
    let [from, to, zone] = [from, to, "Europe/Berlin"].map(str::to_owned);
    Freeze::read(&FreezeText { days, from, to, zone }).unwrap()
}

/// Every kind of event, and every cause.
pub(super) fn events() -> Vec<Event> {
    let causes = Cause::PLAIN.into_iter().chain(Metric::ALL.map(Cause::Breach));
    let mut events = vec![
        Event::Created(Box::new(plan())),
        Event::Revised(Box::new(plan())),
        Event::Loosened(Box::new(plan())),
        Event::ApprovalRequested,
        Event::Resumed,
        Event::Overdue,
        Event::Baked,
        Event::Stopped,
        Event::Lifted,
    ];
    for cause in causes {
        events.push(Event::StageEntered { attempt: 3, stage: 4, cause });
        events.push(Event::Paused(cause));
        events.push(Event::Succeeded(cause));
        events.push(Event::RolledBack(cause));
    }
    events
}

pub(super) fn record(seq: u64, event: Event) -> Record {
    Record {
        seq,
        at: Timestamp(1_795_000_000_000 + seq),
        rollout: "chat".parse().unwrap(),
        actor: "deploy/\u{1b}[31m".to_owned(),
        comment: "line\nbreak and \"quotes\"".to_owned(),
        request_id: String::new(),
        event,
        from: State::Running,
        to: State::Paused,
        plan_revision: 2,
        evidence: vec![GateEvidence {
            metric: Metric::LatencyP99,
            verdict: Verdict::Undecided,
            alarm_from_percent: 100,
            problem: String::new(),
            samples: 12,
            samples_needed: None,
            primary: 812.25,
            candidate: 0.1 + 0.2,
            difference: -0.0,
            lower: f64::NEG_INFINITY,
            upper: f64::INFINITY,
            bound: 200.0,
            harm: 0.5,
            safe: 1.0,
        }],
    }
}

/// An id as a request at that time would get it.
pub(super) fn id(at: u64, number: u64) -> PairId {
    PairId((u128::from(at) << 80) | (7 << 76) | u128::from(number))
}

pub(crate) fn pair(rollout: &str, at: u64, number: u64) -> Pair {
    let call = |provider: &str| Call {
        provider: provider.parse().unwrap(),
        model: Some("m-1".to_owned()),
        status: 200,
        outcome: Outcome::Ok,
        first_byte_ms: Some(20),
        total_ms: 120,
        usage: Some(Usage { input: 10, cache_read: 1, cache_write: 2, output: 30 }),
        finish_reason: None,
    };
    Pair {
        id: id(at, number),
        at: Timestamp(at),
        window: Window { rollout: rollout.parse().unwrap(), attempt: 1, stage: 0 },
        served: Side::Candidate,
        path: "/v1/chat/completions".to_owned(),
        feature: "chat".to_owned(),
        segment: String::new(),
        judgeable: true,
        primary: call("gpt"),
        candidate: Call { outcome: Outcome::Timeout, usage: None, ..call("cheap") },
        agreement: Agreement::SameJson,
    }
}

pub(crate) fn bodies(text: &str) -> Bodies {
    Bodies {
        request: Bytes::from(format!("request {text}")),
        primary: Bytes::from(format!("{{\"text\":\"{text}\"}}")),
        candidate: Bytes::new(),
    }
}

pub(super) fn score(pair: &Pair, source: &str) -> Score {
    Score {
        pair: pair.id,
        window: pair.window.clone(),
        at: Timestamp(pair.at.0 + 5),
        source: source.to_owned(),
        primary: 0.9,
        candidate: 1.0 / 3.0,
        parts: vec![ScorePart { dimension: "tone".to_owned(), primary: 0.9, candidate: 0.1 }],
        rationale: "terse".to_owned(),
    }
}
