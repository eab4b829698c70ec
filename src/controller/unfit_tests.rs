//! What a judge said before it was found unfit counts no more: live, after a restart and replayed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::controller::{
    Judged, Setup,
    rig::{Rig, SOON, Store, by, name, plan, until},
};
use crate::domain::{
    Command, Gate, GateEvidence, Margin, Metric, Plan, Role, Score, Seen, Share, Timestamp,
    Verdict, Winner,
};
use crate::store::{Recorder, RecorderThread, samples};
use crate::traffic::{Fitness, Tried};

const START: Timestamp = Timestamp(1_795_000_000_000);
const LATER: Timestamp = Timestamp(1_795_000_600_000);
const JUDGE: &str = "judge:m@r";

/// A stage of an hour that a judge has to prove, and a rule.
fn judged() -> Plan {
    let mut plan = plan("a");
    plan.stages.truncate(1);
    let gate = |it| Gate { margin: Margin::default_of(it), role: Role::Prove };
    plan.stages[0].gates = [Metric::JudgeScore, Metric::RepeatedRate].map(gate).to_vec();
    plan.judge_share = Share::ALL;
    plan
}

/// A run of a calibration set that goes well, or with all winners the other way round.
fn calibrate(fitness: &Fitness, well: bool) {
    let row = |first: bool| Tried {
        expected: if first { Winner::First } else { Winner::Second },
        marks: Some(if first == well { [0.9, 0.4] } else { [0.4, 0.9] }),
    };
    fitness.calibrate(JUDGE, &[true, false].repeat(5).into_iter().map(row).collect::<Vec<_>>());
}

async fn open(store: &Store, fitness: &Arc<Fitness>, at: Timestamp) -> (Rig, RecorderThread) {
    let (fitness, judge) = (Arc::clone(fitness), Judged::Yes(BTreeMap::new()));
    let setup = Setup { judge, fitness, ..store.setup(at) };
    let clock = setup.clock;
    let (handle, recorder) = Recorder::start(store.pairs.clone(), move || clock.now()).unwrap();
    setup.recorder.set(handle).unwrap();
    (Rig::set_up(store.sim.clone(), setup).await, recorder)
}

/// A judge marks so many pairs of answers that both sides have just given.
async fn mark(rig: &Rig, store: &Store, count: u64, marks: [f64; 2]) {
    let (view, mut scores) = (rig.look("a").await.view, Vec::new());
    let window = view.rollout.window().unwrap();
    for serial in 0..count {
        let mut pair = samples::pair("a", view.now.0, 1 + serial);
        (pair.window, pair.order) = (window.clone(), None);
        store.pairs.put_batch(&[(pair.clone(), samples::bodies(""))]).unwrap();
        let [primary, candidate] = if serial % 7 == 0 { [0.8, 0.8] } else { marks };
        let mut judged = Score {
            pair: pair.id,
            window: window.clone(),
            watched: String::new(),
            at: view.now,
            order: None,
            source: JUDGE.to_owned(),
            primary,
            candidate,
            parts: Vec::new(),
            rationale: String::new(),
            placed: None,
        };
        judged.order = rig.outbox.send(Seen::Score(Box::new(judged.clone()))).await;
        scores.push(judged);
    }
    for it in &scores {
        store.pairs.put_score(it).unwrap();
    }
}

async fn gate(rig: &Rig) -> GateEvidence {
    let view = rig.look("a").await.view;
    view.evidence.gates.into_iter().find(|it| it.metric == Metric::JudgeScore).unwrap()
}

async fn until_gate(rig: &Rig, holds: impl Fn(&GateEvidence) -> bool) {
    let ends = Instant::now() + SOON;
    while !holds(&gate(rig).await) {
        assert!(Instant::now() < ends, "{:?}", gate(rig).await);
        sleep(Duration::from_millis(5)).await;
    }
}

/// O5 B-80
#[tokio::test]
async fn what_an_unfit_judge_said_counts_no_more_once_it_is_fit_again() {
    for (marks, verdict) in [([0.5, 0.9], Verdict::Pass), ([0.9, 0.3], Verdict::Undecided)] {
        let (store, fitness) = (Store::new(), Arc::new(Fitness::untried(7)));
        calibrate(&fitness, true);
        let (rig, recorder) = open(&store, &fitness, START).await;
        rig.handle.create(name("a"), judged(), by("")).await.unwrap();
        rig.run("a", Command::Start).await.unwrap();
        // What speaks against the candidate stops short of what sends it back.
        let count = if verdict == Verdict::Pass { 400 } else { 3 };
        mark(&rig, &store, count, marks).await;
        until_gate(&rig, |it| it.samples == count && it.verdict == verdict).await;

        calibrate(&fitness, false);
        until_gate(&rig, |it| it.verdict == Verdict::Invalid && it.samples == 0).await;
        calibrate(&fitness, true);
        until_gate(&rig, |it| it.verdict == Verdict::Undecided && it.samples == 0).await;
        let told = rig.view("a").judge;
        assert!(told.contains("found unfit 1 times since we started"), "{told}");
        mark(&rig, &store, 10, marks).await;
        until_gate(&rig, |it| it.samples == 10).await;
        let shown = gate(&rig).await;
        rig.end().await;
        recorder.join().unwrap();

        // By the checkpoint, and by all that is stored.
        for checkpoint in [true, false] {
            if !checkpoint {
                store.pairs.keep("checkpoint/a", b"").unwrap();
            }
            let (rig, recorder) = open(&store, &Arc::default(), LATER).await;
            let again = gate(&rig).await;
            assert_eq!((again.samples, again.harm), (shown.samples, shown.harm), "{checkpoint}");
            rig.end().await;
            recorder.join().unwrap();
        }
    }
}

#[tokio::test]
async fn marks_are_compared_with_the_first_ones_over_a_restart() {
    let store = Store::new();
    let fitness = Arc::new(Fitness::untried(7));
    let (rig, recorder) = open(&store, &fitness, START).await;
    calibrate(&fitness, true);
    until("the first marks are kept", || store.pairs.kept("judge").is_some()).await;
    rig.end().await;
    recorder.join().unwrap();
    let row = |first: bool| Tried {
        expected: if first { Winner::First } else { Winner::Second },
        marks: Some(if first { [0.7, 0.2] } else { [0.2, 0.7] }),
    };
    let moved: Vec<Tried> = [true, false].repeat(5).into_iter().map(row).collect();
    for (set, drifted) in [(7, true), (8, false)] {
        let fitness = Arc::new(Fitness::untried(set));
        let (rig, recorder) = open(&store, &fitness, LATER).await;
        fitness.calibrate(JUDGE, &moved);
        assert_eq!(fitness.problem().is_some_and(|it| it.contains("marks 0.20 from")), drifted);
        rig.end().await;
        recorder.join().unwrap();
    }
}
