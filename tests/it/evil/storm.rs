//! A storm of faults: a candidate and a judge that do anything, callers who do not notice, and an
//! account of every copy.
//!
//! `CROSSFADE_STORM` says how many requests (2,000), `CROSSFADE_STORM_SEED` which storm.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crossfade::domain::Splitmix;
use tokio::{task::JoinSet, time::Instant};

use super::{
    Evil, Fault,
    rig::{HASTY, Rig, Way, begin, body, patient},
};
use crate::world::until;

/// Callers at a time.
const CALLERS: usize = 32;
/// Good ones of ten answers.
const GOOD: u64 = 6;
/// How much more memory than before the storm the program may ever take, in KiB: the budget of
/// the side work twice (what grows is copied once), the store's queue, and what reading takes.
const GROWTH_KIB_MAX: u64 = 192 * 1024;

const LIMITS: &str = "[limits]\nmirror_timeout = \"2s\"\nmirror_concurrency_max = 48\n\
                      body_max = \"4MiB\"\nside_memory_max = \"32MiB\"\nfirst_byte_timeout = \"1s\"\n";

fn setting(name: &str, default: u64) -> u64 {
    std::env::var_os(name).map_or(default, |it| it.to_str().unwrap().parse().unwrap())
}

/// A rig with a judge that is as evil as the candidate will be.
async fn rig(plan: &str) -> (Rig, Evil) {
    let judge = Evil::start("judge").await;
    let url = judge.url();
    let plan = plan.replace("autostart", "copies_per_day = 1_000_000\nautostart");
    let judged = plan.replace("judge_score = \"off\"", "judge_score = \">= 5%\"");
    let more = format!(
        "[judge]\nbase_url = \"{url}\"\nmodel = \"j\"\ntimeout = \"500ms\"\nretries_max = 0\n{judged}{LIMITS}"
    );
    (Rig::new(&more).await, judge)
}

/// What callers saw.
#[derive(Default)]
struct Tally {
    left: AtomicUsize,
    by_candidate: AtomicUsize,
    broken: AtomicUsize,
}

/// One caller after the other asks, and looks at every byte.
async fn callers(rig: &Arc<Rig>, seed: u64, requests: usize) -> Arc<Tally> {
    let (tally, next) = (Arc::new(Tally::default()), Arc::new(AtomicUsize::new(0)));
    let mut all = JoinSet::new();
    for _ in 0..CALLERS {
        let (rig, tally, next) = (Arc::clone(rig), Arc::clone(&tally), Arc::clone(&next));
        all.spawn(async move {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if requests <= number {
                    break;
                }
                ask(&rig, &tally, (seed, number)).await;
            }
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
    tally
}

async fn ask(rig: &Rig, tally: &Tally, (seed, number): (u64, usize)) {
    let mut dice = Splitmix(seed ^ u64::try_from(number).unwrap().rotate_left(32));
    let way = if dice.roll().is_multiple_of(2) { Way::Whole } else { Way::Stream };
    let pad = if dice.roll().is_multiple_of(20) { 300_000 } else { 0 };
    let user = format!("u-{number}-{}", "x".repeat(pad));
    if dice.roll().is_multiple_of(25) {
        // A caller who leaves once its answer has begun.
        drop(begin(&rig.http, rig.serve.data, &body(&user, way)).await);
        tally.left.fetch_add(1, Relaxed);
        return;
    }
    let got = rig.ask_as(&[HASTY], &user, way).await;
    if got.provider == "candidate" {
        tally.by_candidate.fetch_add(1, Relaxed);
        let text = String::from_utf8_lossy(&got.body);
        assert!(got.status == 200 && !text.contains("primary answers"), "{number}: {text}");
        tally.broken.fetch_add(usize::from(got.ended != super::rig::End::Whole), Relaxed);
    } else {
        got.is_from("primary", &user);
    }
}

/// Copies that ended, by what became of them: kept, dropped on the way to the disk, or of no use.
async fn ends(rig: &Rig) -> f64 {
    let mut ends = 0.0;
    for series in [
        "crossfade_store_pairs ",
        "crossfade_store_failed ",
        "crossfade_store_dropped ",
        "crossfade_lost_total{reason=\"caller_gone\"}",
        "crossfade_lost_total{reason=\"memory\"}",
        "crossfade_lost_total{reason=\"late\"}",
        "crossfade_lost_total{reason=\"coding\"}",
        "crossfade_lost_total{reason=\"controller_full\"}",
    ] {
        ends += rig.serve.metric(series).await;
    }
    ends
}

#[tokio::test]
async fn b02_b03_a_storm_of_faults_costs_no_caller_anything_and_every_copy_is_accounted_for() {
    let requests = usize::try_from(setting("CROSSFADE_STORM", 2_000)).unwrap();
    let seed = setting("CROSSFADE_STORM_SEED", 7);
    println!("{requests} requests, CROSSFADE_STORM_SEED={seed}");
    let (rig, judge) = rig(&patient("0%", "100%")).await;
    let rig = Arc::new(rig);
    rig.is_open().await;
    // Calm traffic first, as a candidate that begins with failures is sent back by the tripwire.
    callers(&rig, seed, 300).await;
    rig.is_quiet().await;
    let (due, memory) = (rig.accounted().await, rig.memory());
    let sent = "crossfade_requests_total{provider=\"candidate\",role=\"mirror\"";
    let calm = rig.serve.metric(sent).await;
    for evil in [&rig.candidate, &judge] {
        evil.plays(move |number, asked| {
            Fault::drawn(seed, number, GOOD).steps("candidate", number, asked)
        });
    }
    let started = Instant::now();
    let tally = callers(&rig, seed, requests).await;
    let took = started.elapsed();
    rig.accounts_for(requests, due).await;
    let sent = rig.serve.metric(sent).await;
    until("every copy has its end", || async { (ends(&rig).await - sent).abs() < 0.5 }).await;
    assert_eq!(tally.by_candidate.load(Relaxed), 0);
    let state = rig.serve.json(&["status", "chat"]).await["state"].clone();
    assert_eq!(state, "STATE_RUNNING", "the tripwire took a storm for a death");
    assert!(rig.serve.metric("crossfade_panics ").await < 0.5);
    let grown = rig.memory_peak().saturating_sub(memory);
    println!(
        "{took:?}: {} sent, {} not, {} callers left; {} KiB before, {} at most, {} after",
        sent - calm,
        f64::from(u32::try_from(requests).unwrap()) - sent + calm,
        tally.left.load(Relaxed),
        memory,
        rig.memory_peak(),
        rig.memory()
    );
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more");
    until("its memory is given back", || async {
        rig.serve.metric("crossfade_side_memory_bytes ").await < 0.5
    })
    .await;
}

#[tokio::test]
async fn b11_a_storm_while_the_candidate_serves_half_never_mixes_two_answers() {
    let seed = setting("CROSSFADE_STORM_SEED", 7);
    let requests = usize::try_from(setting("CROSSFADE_STORM", 2_000)).unwrap() / 4;
    println!("{requests} requests, CROSSFADE_STORM_SEED={seed}");
    let (rig, _judge) = rig(&patient("50%", "20%")).await;
    let rig = Arc::new(rig);
    rig.is_open().await;
    callers(&rig, seed, 300).await;
    rig.candidate.plays(move |number, asked| {
        let fault = Fault::drawn(seed, number, GOOD);
        // What never ends is never ended for its caller either.
        let endless = matches!(
            fault,
            Fault::Endless | Fault::Crumbs | Fault::Stall(1..) | Fault::HalfClose(1..)
        );
        let fault = if endless { Fault::Reset(1) } else { fault };
        fault.steps("candidate", number, asked)
    });
    let tally = callers(&rig, seed, requests).await;
    let (by_candidate, broken) = (tally.by_candidate.load(Relaxed), tally.broken.load(Relaxed));
    let fallbacks = rig.serve.metric("crossfade_fallbacks_total").await;
    println!("{by_candidate} by the candidate, {broken} of them broke off, {fallbacks} fallbacks");
    assert!(requests / 8 < by_candidate && broken < by_candidate && 3.0 < fallbacks);
}
