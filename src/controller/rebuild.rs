//! After a restart: evidence from the stored pairs, the day's copies from what was kept.

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::analysis::{Chances, Ledger};
use crate::domain::{Name, Order, Rollout, Seen, State, Told, Window};
use crate::store::Pairs;

use super::{
    actor::Controller,
    managed::{self, Managed},
};

/// The bets of an attempt made anew, and what has to go on from there.
struct Rebuilt {
    ledger: Ledger,
    /// Whether it is noted where the bets of the stage, or of the guard, began.
    noted: bool,
    seq: u64,
}

/// Enters the evidence kept of every running attempt in new bets, stage by stage.
///
/// So a restart forgets no evidence; what the store lost (a second at most, and what
/// its limits removed) only makes proofs take longer.
pub(super) async fn evidence(controller: &mut Controller) {
    let Some(pairs) = controller.pairs.clone() else { return };
    for managed in controller.managed.values_mut() {
        coverage(Some(&pairs), managed);
        if managed.rollout.window().is_none() {
            continue;
        }
        let (rollout, pairs) = (managed.rollout.clone(), pairs.clone());
        match spawn_blocking(move || rebuilt(&rollout, &pairs)).await {
            Ok(Rebuilt { ledger, noted, seq }) => {
                managed.ledger = ledger;
                managed.begun = managed.begun.take().filter(|_| !noted);
                controller.outbox.resume(seq);
            }
            Err(error) => tracing::error!(%error, "evidence could not be rebuilt; it begins anew"),
        }
    }
}

fn rebuilt(rollout: &Rollout, pairs: &Pairs) -> Rebuilt {
    let ledger = Ledger::new(rollout.plan());
    let mut rebuilt = Rebuilt { ledger, noted: false, seq: 0 };
    let mut counted = 0_u64;
    let last = rollout.stage_index();
    for stage in 0..=last {
        let window = |stage: usize| Window {
            rollout: rollout.name().clone(),
            attempt: rollout.attempt(),
            stage: u32::try_from(stage).unwrap_or(u32::MAX),
        };
        let opened = entered(pairs, &window(stage));
        // What came in after the next stage began counted no more.
        let next = (stage < last).then(|| entered(pairs, &window(stage + 1))).flatten();
        let left = next.map_or(u64::MAX, |it| it.seq);
        let chances = rollout.plan().stages.get(stage).map_or_else(Chances::default, Chances::of);
        rebuilt.noted = opened.is_some() && rollout.state() != State::Succeeded;
        let mut begun = opened.map(|it| rebuilt.ledger.enter(stage, it.at, chances));
        let read = pairs.of_window(&window(stage), &mut |seen| {
            let order = seen.order();
            rebuilt.seq = rebuilt.seq.max(order.seq);
            begun.get_or_insert_with(|| rebuilt.ledger.enter(stage, order.at, chances));
            if order.seq <= left {
                rebuilt.take(&seen);
                counted += 1;
            }
        });
        if let Err(error) = read {
            tracing::error!(rollout = %rollout.name(), stage, %error, "stored pairs of a stage cannot be read");
        }
        begun.get_or_insert_with(|| rebuilt.ledger.enter(stage, rollout.entered(), chances));
    }
    if rollout.state() == State::Succeeded && !rebuilt.noted {
        rebuilt.ledger.guard(rollout.entered());
    }
    tracing::info!(rollout = %rollout.name(), counted, "evidence rebuilt from what was stored");
    rebuilt
}

impl Rebuilt {
    fn take(&mut self, seen: &Seen) {
        match seen {
            Seen::Note(note) if note.told == Told::Guarded => {
                self.ledger.guard(note.order.at);
                self.noted = true;
            }
            Seen::Pair(_) | Seen::Score(_) | Seen::Note(_) => {
                managed::observe(&mut self.ledger, seen);
            }
        }
    }
}

/// Where a window was opened, if that was noted.
fn entered(pairs: &Pairs, window: &Window) -> Option<Order> {
    pairs.entered(window).unwrap_or_else(|error| {
        tracing::error!(rollout = %window.rollout, %error, "stored notes cannot be read");
        None
    })
}

/// What a restart must not forget of a rollout's traffic: the day and its copies, then the window
/// (attempt, stage) with the copies that were due and missing in it.
type Counts = [u64; 6];

fn key(rollout: &Name) -> String {
    format!("traffic/{rollout}")
}

fn kept(pairs: Option<&Pairs>, rollout: &Name) -> Option<Counts> {
    let kept = pairs?.kept(&key(rollout))?;
    let numbers = kept.chunks_exact(8).filter_map(|it| it.try_into().ok().map(u64::from_be_bytes));
    numbers.collect::<Vec<u64>>().try_into().ok()
}

/// Day and copies made on it, as last kept.
pub(super) fn copies(pairs: Option<&Pairs>, rollout: &Name) -> (u64, u64) {
    kept(pairs, rollout).map_or((0, 0), |counts| (counts[0], counts[1]))
}

/// Copies due and missing in the window that is open, as last kept: what could not be trusted
/// before a restart cannot be trusted after it.
fn coverage(pairs: Option<&Pairs>, managed: &mut Managed) {
    let Some(window) = managed.rollout.window() else { return };
    let here = [u64::from(window.attempt), u64::from(window.stage)];
    if let Some([_, _, attempt, stage, due, missing]) = kept(pairs, &window.rollout)
        && [attempt, stage] == here
    {
        managed.live = Arc::new(managed.live.resumed((due, missing)));
    }
}

/// Keeps the counts of every rollout, on a thread of its own: the index may wait for its disk.
pub(super) fn keep_counts(
    pairs: Option<&Pairs>,
    managed: &BTreeMap<Name, Managed>,
) -> Option<JoinHandle<()>> {
    let pairs = pairs?.clone();
    let counts = |it: &Managed| {
        let ((day, made), (due, missing)) = (it.live.copies().made(), it.live.coverage());
        let window = it.rollout.window();
        let (attempt, stage) = window.map_or((0, 0), |it| (it.attempt, it.stage));
        let counts: Counts = [day, made, attempt.into(), stage.into(), due, missing];
        (it.rollout.name().clone(), counts.map(u64::to_be_bytes).concat())
    };
    let counted: Vec<(Name, Vec<u8>)> = managed.values().map(counts).collect();
    Some(spawn_blocking(move || {
        for (rollout, value) in counted {
            if let Err(error) = pairs.keep(&key(&rollout), &value) {
                tracing::warn!(%rollout, %error, "the day's copies are not kept");
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        Agreement, Call, Cause, Event, Lot, Margin, Metric, Note, Outcome, Pair, PairId, Plan,
        Risk, Share, Side, Slice, Timestamp, Verdict, default_ladder,
    };
    use crate::store::{Bodies, Limits};

    const LIMITS: Limits =
        Limits { bytes_max: 1 << 40, age_ms_max: 1 << 50, free_bytes_min: 0, queue_len_max: 8 };

    fn plan() -> Plan {
        let margins = [Metric::ErrorRate, Metric::LatencyP99].map(Margin::default_of);
        Plan {
            primary: "gpt".parse().unwrap(),
            candidate: "cheap".parse().unwrap(),
            slice: Slice::default(),
            stages: default_ladder(&margins, &[], &[]),
            copies_per_day_max: 10_000,
            judge_share: Share::ALL,
            risk: Risk::default(),
        }
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
            well_formed: None,
        }
    }

    fn pair(window: &Window, order: Order, candidate: Outcome) -> Pair {
        Pair {
            id: PairId((u128::from(order.at.0) << 80) | u128::from(order.seq)),
            // The later ones were asked first.
            at: Timestamp(order.at.0 - order.seq % 700),
            window: window.clone(),
            served: Side::Primary,
            path: String::new(),
            feature: String::new(),
            segment: String::new(),
            judgeable: false,
            primary: call("gpt", Outcome::Ok, 100),
            candidate: call("cheap", candidate, 120),
            agreement: Agreement::Unknown,
            lot: Some(Lot::Sticky(order.seq / 3)),
            order: Some(order),
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
                note(Told::Solo { lot: Lot::Sticky(seq / 3), side, call })
            };
            match seq % 20 {
                0 => Seen::Pair(Box::new(pair(window, order, failed))),
                1 => solo(Side::Candidate, "cheap"),
                2 if seq.is_multiple_of(7) => note(Told::CopyLost),
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
                Seen::Score(_) => {}
            }
        }
        pairs.put_notes(notes).unwrap();
    }

    #[test]
    fn a_restart_gives_the_evidence_that_was_there_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let pairs = Pairs::open(dir.path(), LIMITS).unwrap();
        let mut rollout = rollout();
        let mut live = Ledger::new(rollout.plan());
        let chances = |stage: usize| Chances::of(&plan().stages[stage]);
        let mut managed = Managed::new("chat".parse().unwrap(), plan(), Timestamp(0), (0, 0));
        let mut begin = |rollout: &Rollout, seq: u64, at: u64| {
            managed.rollout = rollout.clone();
            managed.begun = Some((Told::Entered, Timestamp(at)));
            pairs.put_notes(vec![managed.begun_before(seq).unwrap()]).unwrap();
        };

        let first = rollout.window().unwrap();
        live.enter(0, Timestamp(1_000), chances(0));
        begin(&rollout, 1, 1_000);
        let seen = told(&first, 1..3_000);
        for it in &seen {
            managed::observe(&mut live, it);
        }
        keep(&pairs, &seen);

        enter(&mut rollout, 1, 61_010);
        let second = rollout.window().unwrap();
        live.enter(1, Timestamp(61_010), chances(1));
        begin(&rollout, 3_000, 61_010);
        // A pair of the first stage that came too late to count is kept all the same.
        let late = Order { seq: 3_000, at: Timestamp(61_020) };
        keep(&pairs, &[Seen::Pair(Box::new(pair(&first, late, Outcome::Timeout)))]);
        let seen = told(&second, 3_001..5_000);
        for it in &seen {
            managed::observe(&mut live, it);
        }
        keep(&pairs, &seen);

        let rebuilt = rebuilt(&rollout, &pairs);
        assert_eq!(format!("{:?}", rebuilt.ledger.evidence()), format!("{:?}", live.evidence()));
        assert!(500 < live.evidence().solos && rebuilt.noted && rebuilt.seq == 4_999);
    }

    #[test]
    fn copies_of_failures_that_are_lost_never_prove_safe() {
        let verdict = |lost: Told| {
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
                managed::observe(&mut ledger, &seen);
            }
            ledger.evidence().gates[0].verdict
        };
        assert_eq!(verdict(Told::CopyLost), Verdict::Undecided);
        assert_eq!(verdict(Told::ScoreLost), Verdict::Pass, "without them it would be proven");
    }
}
