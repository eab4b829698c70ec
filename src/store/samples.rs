//! Records and pairs for the tests of the store.

use bytes::Bytes;

use super::{Bodies, Limits};
use crate::domain::{
    Agreement, Approval, Call, Cause, Check, Checks, Event, Flag, Freeze, FreezeText, GateEvidence,
    Lot, Margin, Mark, Metric, Name, Noise, Note, OnIdle, Order, Outcome, Pair, PairId, Placed,
    Plan, Record, Risk, Role, Score, ScorePart, Share, Side, Slice, State, Times, Timestamp, Told,
    Usage, Verdict, Watched, Weather, Window, default_ladder,
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
    stages[4].delay_ms = 60_000;
    stages[1].gates[1].role = Role::Guard;
    Plan {
        primary: "gpt".parse().unwrap(),
        candidate: "cheap".parse().unwrap(),
        slice: Slice { models: vec!["gpt-é".to_owned()], ..Slice::default() },
        watched: Some(watched()),
        compared: crate::domain::Compared {
            labels: vec!["spam".to_owned(), "ham".to_owned()],
            fields: vec!["order.id".to_owned()],
        },
        stages,
        copies_per_day_max: u64::MAX,
        judge_share: Share::from_basis_points(2_500).unwrap(),
        review: Share::from_basis_points(700).unwrap(),
        noise: Share::from_basis_points(150).unwrap(),
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

fn watched() -> Watched {
    Watched { by: Mark::Task, values: ["tools", "tag \"x\""].map(str::to_owned).into() }
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
        Event::Deleted,
        Event::Stopped,
        Event::Lifted,
        Event::Flagged(Box::new(flag("paid", 0))),
        Event::Unflagged("paid".parse().unwrap()),
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
            watched: "tools".to_owned(),
            verdict: Verdict::Undecided,
            alarm_from_percent: 70,
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
            noise: Some(Noise { samples: 9, difference: 0.0, lower: -1.0, upper: f64::INFINITY }),
            basis: None,
            tiers: Vec::new(),
            fixed: None,
        }],
    }
}

/// A rollout's records from its creation to a guarded success, keys and all.
pub(super) fn first_life(rollout: &str) -> Vec<Record> {
    lived(rollout, first_events())
}

/// The same life and how it goes on: every event there is, the ones about the whole node too.
pub(super) fn life(rollout: &str) -> Vec<Record> {
    let mut tighter = Plan { copies_per_day_max: 8, ..plan() };
    tighter.stages[0].samples_min += 1;
    let mut events = first_events();
    events.extend([
        Event::RolledBack(Cause::Superseded),
        enter(3, 1, Cause::Operator),
        Event::Overdue,
        Event::Loosened(Box::new(plan())),
        Event::Paused(Cause::Idle),
        enter(3, 0, Cause::Jump),
        Event::Revised(Box::new(tighter)),
        Event::Paused(Cause::Operator),
        Event::Resumed,
        Event::Succeeded(Cause::Override),
        Event::Baked,
        Event::Stopped,
        Event::RolledBack(Cause::Stopped),
        Event::Lifted,
        enter(4, 0, Cause::Operator),
        Event::Overdue,
        Event::Flagged(Box::new(flag("paid", 0))),
        Event::Flagged(Box::new(flag("all", 300))),
        Event::Flagged(Box::new(flag("paid", 700))),
        Event::Unflagged("all".parse().unwrap()),
        Event::Paused(Cause::Operator),
        Event::Stopped,
    ]);
    lived(rollout, events)
}

pub(super) fn flag(name: &str, serve: u16) -> Flag {
    Flag {
        name: name.parse().unwrap(),
        rollout: Some("chat".parse().unwrap()),
        feature: "help".to_owned(),
        segment: String::new(),
        serve: Some(Share::from_basis_points(serve).unwrap()),
        mirror: (serve != 0).then_some(Share::ALL),
    }
}

fn enter(attempt: u32, stage: usize, cause: Cause) -> Event {
    Event::StageEntered { attempt, stage, cause }
}

/// What the first version could write.
fn first_events() -> Vec<Event> {
    vec![
        Event::Created(Box::new(plan())),
        enter(1, 0, Cause::Operator),
        Event::Paused(Cause::Operator),
        Event::Resumed,
        Event::ApprovalRequested,
        enter(1, 1, Cause::Approved),
        Event::RolledBack(Cause::Breach(Metric::ErrorRate)),
        Event::Revised(Box::new(Plan { copies_per_day_max: 7, ..plan() })),
        enter(2, 0, Cause::Operator),
        enter(2, 1, Cause::Override),
        Event::Succeeded(Cause::GatesPassed),
    ]
}

fn lived(rollout: &str, events: Vec<Event>) -> Vec<Record> {
    let named = |(seq, event): (u64, Event)| Record {
        rollout: if matches!(event, Event::Stopped | Event::Lifted) || event.flag().is_some() {
            Name::every()
        } else {
            rollout.parse().unwrap()
        },
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
        cost_nano_usd: Some(12_500),
        checks: Checks::default().with(Check::Json, Some(true)).with(Check::Schema, Some(false)),
        answer_chars: Some(160),
        rouge_l_bps: Some(9_900),
        estimated: true,
    };
    Pair {
        id: id(at, number),
        at: Timestamp(at),
        window: Window { rollout: rollout.parse().unwrap(), attempt: 1, stage: 0 },
        served: Side::Candidate,
        answered: Some(Side::Primary),
        path: "/v1/chat/completions".to_owned(),
        feature: "chat".to_owned(),
        segment: String::new(),
        watched: "tools".to_owned(),
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
        2 => Told::Entered(vec![Weather { metric: Metric::LatencyP99, variance_permille: 450 }]),
        3 => Told::Guarded,
        7 => Told::JudgeFailed,
        5 => Told::Noise {
            served: Box::new(pair.primary.clone()),
            again: Box::new(Call { outcome: Outcome::Timeout, ..pair.primary.clone() }),
            watched: pair.watched.clone(),
        },
        6 => Told::Feedback {
            request: pair.id,
            lot: Lot::Sticky(number),
            side: Side::Candidate,
            score_millionths: 250_000,
            watched: pair.watched.clone(),
            key: format!("thumb-{number}"),
        },
        _ => Told::Solo {
            lot: match number % 4 {
                0 => Lot::Once,
                1 => Lot::Sticky(number),
                2 => Lot::Uncopied(None),
                _ => Lot::Uncopied(Some(number)),
            },
            side: Side::Primary,
            call: Box::new(Call { total_ms: 100, ..pair.primary.clone() }),
            watched: if number % 8 == 4 { pair.watched.clone() } else { String::new() },
        },
    };
    let note = |seq| {
        let order = Order { seq, at: Timestamp(pair.at.0 + seq) };
        Note { window: pair.window.clone(), order, told: told(seq) }
    };
    (seq..seq + len).map(note).collect()
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
        watched: pair.watched.clone(),
        at: Timestamp(pair.at.0 + 5),
        order: pair.order.map(|it| Order { seq: it.seq + 1, at: Timestamp(it.at.0 + 5) }),
        source: source.to_owned(),
        primary: 0.9,
        candidate: 1.0 / 3.0,
        parts: vec![ScorePart { dimension: "tone".to_owned(), primary: 0.9, candidate: 0.1 }],
        rationale: "terse".to_owned(),
        placed: Some(Placed::Once(Side::Candidate)),
    }
}
