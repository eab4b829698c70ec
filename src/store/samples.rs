//! Records and pairs for the tests of the store.

use bytes::Bytes;

use super::{Bodies, Limits};
use crate::domain::{
    Agreement, Approval, Call, Cause, Event, GateEvidence, Lot, Margin, Metric, Note, Order,
    Outcome, Pair, PairId, Plan, Record, Risk, Role, Score, ScorePart, Share, Side, Slice, State,
    Timestamp, Told, Usage, Verdict, Window, default_ladder,
};

pub(super) const HOUR_MS: u64 = 3_600_000;

pub(super) const LIMITS: Limits =
    Limits { bytes_max: 1 << 40, age_ms_max: 1 << 50, free_bytes_min: 0, queue_len_max: 8 };

pub(super) fn plan() -> Plan {
    let margins = [
        Margin::parse(Metric::ErrorRate, "+0.05pp").unwrap(),
        Margin::parse(Metric::LatencyP99, "+15%").unwrap(),
        Margin::parse(Metric::JudgeScore, ">= 97%").unwrap(),
    ];
    let mut stages = default_ladder(&margins, &["search".to_owned()], &["tag \"x\"".to_owned()]);
    stages[0].approval = Approval::Needed;
    stages[1].gates[1].role = Role::Guard;
    Plan {
        primary: "gpt".parse().unwrap(),
        candidate: "cheap".parse().unwrap(),
        slice: Slice { models: vec!["gpt-é".to_owned()], ..Slice::default() },
        stages,
        copies_per_day_max: u64::MAX,
        judge_share: Share::from_basis_points(2_500).unwrap(),
        risk: Risk::default(),
    }
}

/// Every kind of event, and every cause.
pub(super) fn events() -> Vec<Event> {
    let causes = [
        Cause::Operator,
        Cause::Override,
        Cause::GatesPassed,
        Cause::Approved,
        Cause::Declined,
        Cause::Tripwire,
        Cause::Breach(Metric::ErrorRate),
        Cause::Breach(Metric::LatencyP99),
        Cause::Breach(Metric::JudgeScore),
    ];
    let mut events = vec![
        Event::Created(Box::new(plan())),
        Event::Revised(Box::new(plan())),
        Event::ApprovalRequested,
        Event::Paused,
        Event::Resumed,
    ];
    for cause in causes {
        events.push(Event::StageEntered { attempt: 3, stage: 4, cause });
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

/// A rollout's records from its creation to a guarded success, keys and all.
pub(super) fn life(rollout: &str) -> Vec<Record> {
    let enter = |attempt, stage, cause| Event::StageEntered { attempt, stage, cause };
    let events = [
        Event::Created(Box::new(plan())),
        enter(1, 0, Cause::Operator),
        Event::Paused,
        Event::Resumed,
        Event::ApprovalRequested,
        enter(1, 1, Cause::Approved),
        Event::RolledBack(Cause::Breach(Metric::ErrorRate)),
        Event::Revised(Box::new(Plan { copies_per_day_max: 7, ..plan() })),
        enter(2, 0, Cause::Operator),
        enter(2, 1, Cause::Override),
        Event::Succeeded(Cause::GatesPassed),
    ];
    let named = |(seq, event): (u64, Event)| Record {
        rollout: rollout.parse().unwrap(),
        request_id: if seq % 3 == 0 { format!("build-{seq}") } else { String::new() },
        comment: format!("{rollout} {seq}"),
        ..record(seq, event)
    };
    (1..).zip(events).map(named).collect()
}

/// An id as a request at that time would get it.
pub(super) fn id(at: u64, number: u64) -> PairId {
    PairId((u128::from(at) << 80) | (7 << 76) | u128::from(number))
}

pub(super) fn pair(rollout: &str, at: u64, number: u64) -> Pair {
    let call = |provider: &str| Call {
        provider: provider.parse().unwrap(),
        model: Some("m-1".to_owned()),
        status: 200,
        outcome: Outcome::Ok,
        first_byte_ms: Some(20),
        total_ms: 120,
        usage: Some(Usage { input: 10, cache_read: 1, cache_write: 2, output: 30 }),
        finish_reason: None,
        cost_nano_usd: Some(12_500),
        well_formed: Some(true),
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
        lot: Some(Lot::Sticky(u64::MAX)),
        order: Some(Order { seq: number, at: Timestamp(at + 150) }),
    }
}

/// Notes of the window of a pair, so many from a place on, one each millisecond.
pub(super) fn notes(pair: &Pair, seq: u64, len: u64) -> Vec<Note> {
    let told = |number: u64| match number % 8 {
        0 => Told::CopyLost,
        1 => Told::ScoreLost,
        2 => Told::Entered,
        3 => Told::Guarded,
        _ => Told::Solo {
            lot: if number.is_multiple_of(2) { Lot::Once } else { Lot::Sticky(number) },
            side: Side::Primary,
            call: Box::new(Call { total_ms: 100, ..pair.primary.clone() }),
        },
    };
    let note = |seq| {
        let order = Order { seq, at: Timestamp(pair.at.0 + seq) };
        Note { window: pair.window.clone(), order, told: told(seq) }
    };
    (seq..seq + len).map(note).collect()
}

pub(super) fn bodies(text: &str) -> Bodies {
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
        order: pair.order.map(|it| Order { seq: it.seq + 1, at: Timestamp(it.at.0 + 5) }),
        source: source.to_owned(),
        primary: 0.9,
        candidate: 1.0 / 3.0,
        parts: vec![ScorePart { dimension: "tone".to_owned(), primary: 0.9, candidate: 0.1 }],
        rationale: "terse".to_owned(),
    }
}
