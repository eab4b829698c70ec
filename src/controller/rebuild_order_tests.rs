//! What is stored in its order gives the evidence that was there live.

use super::*;
use crate::domain::{
    Agreement, Call, Choice, Counted, Excluded, Lease, Lot, Margin, Mark, Metric, Note, Order,
    Outcome, Pair, PairId, Plan, Record, Review, Risk, Share, Side, Slice, Times, Told, Watched,
    Weather, default_ladder,
};
use crate::store::{Bodies, Limits};

const LIMITS: Limits =
    Limits { bytes_max: 1 << 40, age_ms_max: 1 << 50, free_bytes_min: 0, queue_len_max: 8 };

fn plan() -> Plan {
    let margins =
        [Metric::ErrorRate, Metric::LatencyP99, Metric::HumanWinRate].map(Margin::default_of);
    Plan {
        primary: "gpt".parse().unwrap(),
        candidate: "cheap".parse().unwrap(),
        slice: Slice::default(),
        watched: Some(Watched { by: Mark::Task, values: vec!["tools".to_owned()] }),
        compared: crate::domain::Compared::default(),
        stages: default_ladder(&margins, &[], &[]),
        copies_per_day_max: 10_000,
        judge_share: Share::ALL,
        review: Share::ALL,
        noise: Share::NONE,
        risk: Risk::default(),
        times: Times::default(),
    }
}

/// A clock that has not gone back.
pub(super) const LATER: Timestamp = Timestamp(1 << 50);

fn storm() -> Vec<Weather> {
    vec![Weather { metric: Metric::ErrorRate, variance_permille: 2_000 }]
}

fn rollout() -> Rollout {
    let mut rollout = Rollout::new("chat".parse().unwrap(), plan());
    enter(&mut rollout, 0, 1_000);
    rollout
}

fn enter(rollout: &mut Rollout, stage: usize, at: u64) {
    let cause = Cause::GatesPassed;
    rollout.apply(Timestamp(at), &Event::StageEntered { attempt: 1, stage, cause });
}

fn call(provider: &str, outcome: Outcome, total_ms: u32) -> Call {
    Call {
        provider: provider.parse().unwrap(),
        model: None,
        status: 200,
        outcome,
        first_byte_ms: Some(1),
        total_ms,
        usage: None,
        finish_reason: None,
        cost_nano_usd: None,
        checks: crate::domain::Checks::default(),
        answer_chars: None,
        rouge_l_bps: None,
        estimated: false,
    }
}

/// Two requests in five are tool calls.
fn slice(seq: u64) -> String {
    if seq % 5 < 2 { "tools".to_owned() } else { String::new() }
}

fn pair(window: &Window, order: Order, candidate: Outcome) -> Pair {
    Pair {
        id: PairId((u128::from(order.at.0) << 80) | u128::from(order.seq)),
        // The later ones were asked first.
        at: Timestamp(order.at.0 - order.seq % 700),
        window: window.clone(),
        served: Side::Primary,
        answered: Some(Side::Primary),
        path: String::new(),
        feature: String::new(),
        segment: String::new(),
        watched: slice(order.seq),
        judgeable: false,
        primary: call("gpt", Outcome::Ok, 100),
        candidate: call("cheap", candidate, 120),
        agreement: Agreement::Unknown,
        lot: Some(Lot::Sticky(order.seq / 3)),
        order: Some(order),
    }
}

/// What somebody said of a pair that counted just before.
fn review(window: &Window, order: Order) -> Review {
    let before = Order { seq: order.seq - 4, at: Timestamp(order.at.0 - 80) };
    let said =
        if before.seq.is_multiple_of(3) { Choice::BothGood } else { Choice::Better(Side::Primary) };
    let lease = Lease {
        id: u128::from(order.seq),
        reviewer: "ana".to_owned(),
        until: order.at,
        first: Side::Candidate,
        said: Some((said, order.at)),
        comment: String::new(),
    };
    Review {
        pair: pair(window, before, Outcome::Ok).id,
        window: window.clone(),
        watched: slice(before.seq),
        weight_millionths: if before.seq.is_multiple_of(2) { 250_000 } else { 1_000_000 },
        leases: vec![lease],
        counted: Some(Counted { lease: u128::from(order.seq), order }),
    }
}

/// What a stage is told: pairs, solos of both sides and lost copies, all mixed.
fn told(window: &Window, places: std::ops::Range<u64>) -> Vec<Seen> {
    let told = |seq: u64| {
        let order = Order { seq, at: Timestamp(1_000 + seq * 20) };
        let note = |told| Seen::Note(Box::new(Note { window: window.clone(), order, told }));
        let failed = if seq.is_multiple_of(101) { Outcome::Timeout } else { Outcome::Ok };
        let solo = |side: Side, provider| {
            let call = Box::new(call(provider, failed, 90 + u32::try_from(seq % 50).unwrap()));
            let (lot, watched) = (Lot::Sticky(seq / 3), slice(seq));
            note(Told::Solo { lot, side, call, watched })
        };
        match seq % 20 {
            0 => Seen::Pair(Box::new(pair(window, order, failed))),
            1 => solo(Side::Candidate, "cheap"),
            2 if seq.is_multiple_of(7) => note(Told::CopyLost),
            3 => note(Told::Feedback {
                request: PairId((u128::from(order.at.0 - seq % 300) << 80) | u128::from(seq)),
                lot: Lot::Sticky(seq / 3),
                side: if seq % 40 < 20 { Side::Primary } else { Side::Candidate },
                score_millionths: u32::try_from(seq % 11).unwrap() * 100_000,
                watched: slice(seq),
                key: String::new(),
            }),
            4 => Seen::Review(Box::new(review(window, order))),
            _ => solo(Side::Primary, "gpt"),
        }
    };
    places.map(told).collect()
}

fn keep(pairs: &Pairs, seen: &[Seen]) {
    let mut notes = Vec::new();
    for it in seen {
        match it {
            Seen::Pair(pair) => {
                pairs.put_batch(&[((**pair).clone(), Bodies::default())]).unwrap();
            }
            Seen::Note(note) => notes.push((**note).clone()),
            Seen::Review(review) => {
                pairs.put_review(review, review.counted.unwrap().order.at).unwrap();
            }
            Seen::Score(_) => {}
        }
    }
    pairs.put_notes(notes).unwrap();
}

/// Takes what is told in a visit, as the controller does.
fn take(live: &mut Ledger, seen: &[Seen], since: Timestamp) {
    for it in seen.iter().filter(|it| since <= News::of(it).made) {
        live.hear(&News::of(it));
    }
}

#[test]
fn a_restart_gives_the_evidence_that_was_there_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
    let mut rollout = rollout();
    let mut live = Ledger::new(rollout.plan());
    let chances = |stage: usize| Chances::of(&plan().stages[stage]);
    let begin = |rollout: &Rollout, seq: u64, at: u64| {
        let order = Order { seq, at: Timestamp(at) };
        let told = Told::Entered(storm());
        let note = Note { window: rollout.window().unwrap(), order, told };
        pairs.put_notes(vec![note]).unwrap();
    };

    let first = rollout.window().unwrap();
    live.enter(0, Timestamp(1_000), chances(0));
    live.tell_weather(&storm());
    begin(&rollout, 0, 1_000);
    let seen = told(&first, 1..3_000);
    take(&mut live, &seen, Timestamp(1_000));
    keep(&pairs, &seen);

    enter(&mut rollout, 1, 61_010);
    let second = rollout.window().unwrap();
    live.enter(1, Timestamp(61_010), chances(1));
    live.tell_weather(&storm());
    begin(&rollout, 2_999, 61_010);
    // A pair of the first stage that came too late to count is kept all the same.
    let late = Order { seq: 3_000, at: Timestamp(61_020) };
    keep(&pairs, &[Seen::Pair(Box::new(pair(&first, late, Outcome::Timeout)))]);
    let seen = told(&second, 3_001..5_000);
    take(&mut live, &seen, Timestamp(61_010));
    keep(&pairs, &seen);

    let rebuilt = rebuilt(&rollout, Some(&pairs), LATER);
    assert_eq!(format!("{:?}", rebuilt.ledger.evidence()), format!("{:?}", live.evidence()));
    assert!(500 < live.evidence().solos && rebuilt.unnoted.is_none() && rebuilt.seq == 4_999);
}

/// A rollout in its second stage, with a checkpoint somewhere in it, and the bets as they were.
fn checkpointed(pairs: &Pairs, revised: Option<&Plan>) -> (Rollout, Ledger) {
    let mut managed =
        Managed::new("chat".parse().unwrap(), plan(), Timestamp(0), &Copies::new(0, (0, 0)));
    let mut step = record(Event::Created(Box::new(plan())), 0);
    managed.apply(&step);
    for (stage, at, places) in [(0, 1_000, 1..2_000), (1, 41_020, 2_001..4_000)] {
        let cause = Cause::GatesPassed;
        step = record(Event::StageEntered { attempt: 1, stage, cause }, at);
        managed.apply(&step);
        managed.tell_weather(&storm());
        pairs.put_notes(managed.begun.take().into_iter().collect()).unwrap();
        let window = managed.rollout.window().unwrap();
        for seen in told(&window, places) {
            managed.told = seen.order();
            if managed.rollout.since() <= News::of(&seen).made {
                managed.ledger.hear(&News::of(&seen));
            }
            keep(pairs, &[seen]);
            if managed.told.seq == 3_000 {
                if let Some(plan) = revised.cloned() {
                    let at = managed.told.at.0;
                    managed.apply(&record(Event::Revised(Box::new(plan)), at));
                }
                checkpoint(&mut managed, LATER).unwrap().save(pairs).unwrap();
            }
        }
    }
    (managed.rollout, managed.ledger)
}

fn record(event: Event, at: u64) -> Record {
    Record {
        seq: 1,
        at: Timestamp(at),
        rollout: "chat".parse().unwrap(),
        actor: "test".to_owned(),
        comment: String::new(),
        request_id: String::new(),
        event,
        from: State::Running,
        to: State::Running,
        plan_revision: 1,
        evidence: Vec::new(),
    }
}

#[test]
fn a_restart_goes_on_from_a_checkpoint_as_if_nothing_had_happened() {
    let mut narrower = plan();
    narrower.stages[1].mirror = Share::from_basis_points(5_000).unwrap();
    let mut fewer = plan();
    fewer.stages[4].gates.truncate(1);
    for revised in [None, Some(&narrower), Some(&fewer)] {
        let dir = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
        let (rollout, live) = checkpointed(&pairs, revised);
        let rebuilt = rebuilt(&rollout, Some(&pairs), LATER);
        assert_eq!(format!("{:?}", rebuilt.ledger.evidence()), format!("{:?}", live.evidence()));
        assert!((900..1_000).contains(&rebuilt.counted), "{} of 3,998 told", rebuilt.counted);
        assert_eq!(rebuilt.seq, 3_999);
    }
}

/// E22
#[test]
fn a_call_that_was_asked_while_the_candidate_warmed_up_is_left_out_however_long_it_takes() {
    let mut plan = plan();
    plan.stages[0].delay_ms = 8_000;
    let mut ledger = Ledger::new(&plan);
    ledger.enter(0, Timestamp(0), Chances::of(&plan.stages[0]));
    let window = Window { rollout: "chat".parse().unwrap(), attempt: 1, stage: 0 };
    for (asked, told) in [(7_999, 7_999), (3_000, 9_000), (8_000, 14_000)] {
        let order = Order { seq: told, at: Timestamp(told) };
        let pair = Pair { at: Timestamp(asked), ..pair(&window, order, Outcome::Ok) };
        ledger.hear(&News::of(&Seen::Pair(Box::new(pair))));
    }
    let evidence = ledger.evidence();
    assert_eq!(evidence.pairs, 1);
    assert_eq!(evidence.excluded, [Excluded { reason: "initial_delay", count: 2 }]);
}

#[test]
fn what_is_later_than_the_clock_counts_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
    let rollout = rollout();
    keep(&pairs, &told(&rollout.window().unwrap(), 1..1_000));
    let counted = |now| rebuilt(&rollout, Some(&pairs), Timestamp(now)).counted;
    assert!((400..=500).contains(&counted(1_000 + 500 * 20)));
    assert!(900 < counted(1 << 50));
}

#[test]
fn copies_of_failures_that_are_lost_never_prove_safe() {
    let unproven = |lost: Told| {
        let rollout = rollout();
        let window = rollout.window().unwrap();
        let mut ledger = Ledger::new(rollout.plan());
        ledger.enter(0, Timestamp(0), Chances::of(&plan().stages[0]));
        for seq in 0..20_000 {
            let order = Order { seq, at: Timestamp(1_000 + seq * 100) };
            let seen = if seq % 20 == 0 {
                Seen::Note(Box::new(Note { window: window.clone(), order, told: lost.clone() }))
            } else {
                let pair = pair(&window, order, Outcome::Ok);
                Seen::Pair(Box::new(Pair { lot: None, ..pair }))
            };
            ledger.hear(&News::of(&seen));
        }
        ledger.unproven().count()
    };
    // Of people nothing was heard.
    assert_eq!(unproven(Told::CopyLost), 2);
    assert_eq!(unproven(Told::ScoreLost), 1, "without them it would be proven");
}

/// Half is served and a fifth copied, and then a twentieth is served: both sides fail alike. What was
/// drawn by the first shares is not what the second ones would have drawn.
#[test]
fn a_restart_takes_what_was_drawn_by_the_shares_that_were_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
    let share = |it| Share::from_basis_points(it).unwrap();
    let mut plan = plan();
    plan.watched = None;
    (plan.stages[0].serve, plan.stages[0].mirror) = (share(5_000), share(2_000));
    let mut rollout = Rollout::new("chat".parse().unwrap(), plan.clone());
    enter(&mut rollout, 0, 1_000);
    let window = rollout.window().unwrap();
    let seen = |seq: u64| {
        let order = Order { seq, at: Timestamp(1_000 + seq * 20) };
        let failed = if seq.is_multiple_of(27) { Outcome::Timeout } else { Outcome::Ok };
        let solo = |side: Side, provider| {
            let told = Told::Solo {
                lot: Lot::Once,
                side,
                call: Box::new(call(provider, failed, 10)),
                watched: String::new(),
            };
            Seen::Note(Box::new(Note { window: window.clone(), order, told }))
        };
        match seq % 5 {
            0 => {
                let mut both = pair(&window, order, failed);
                (both.primary.outcome, both.at, both.lot) = (failed, order.at, Some(Lot::Once));
                both.watched = String::new();
                Seen::Pair(Box::new(both))
            }
            1 | 2 => solo(Side::Candidate, "cheap"),
            _ => solo(Side::Primary, "gpt"),
        }
    };
    keep(&pairs, &(1..=10_000).map(seen).collect::<Vec<_>>());
    plan.stages[0].serve = share(500);
    rollout.apply(Timestamp(300_000), &Event::Revised(Box::new(plan)));
    let known = rebuilt(&rollout, Some(&pairs), LATER).ledger;
    let harm = |it: &Ledger| it.evidence().gates[0].harm;
    assert!(!known.is_broken() && harm(&known) < 0.5, "{}", harm(&known));
    // Where that was not kept a pair is still a pair.
    let mut saved = rollout.save();
    saved.visits[0].shares = None;
    let unknown = rebuilt(&Rollout::restore(saved), Some(&pairs), LATER);
    assert!(!unknown.ledger.is_broken() && harm(&unknown.ledger) < 0.5);
    assert_eq!(unknown.counted, 2_000);
}

/// A note that is older than what is kept is not written anew at another place.
#[test]
fn after_a_checkpoint_nobody_says_again_where_bets_began() {
    let dir = tempfile::tempdir().unwrap();
    let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
    let mut managed =
        Managed::new("chat".parse().unwrap(), plan(), Timestamp(0), &Copies::new(0, (0, 0)));
    managed.apply(&record(Event::Created(Box::new(plan())), 0));
    let cause = Cause::GatesPassed;
    managed.apply(&record(Event::StageEntered { attempt: 1, stage: 0, cause }, 1_000));
    keep(&pairs, &told(&managed.rollout.window().unwrap(), 1..100));
    assert!(rebuilt(&managed.rollout, Some(&pairs), LATER).unnoted.is_some());
    managed.told.seq = 50;
    checkpoint(&mut managed, LATER).unwrap().save(&pairs).unwrap();
    assert_eq!(rebuilt(&managed.rollout, Some(&pairs), LATER).unnoted, None);
}
