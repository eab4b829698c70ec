//! A candidate in shadow may do what it likes: callers get the primary's bytes, memory is bounded,
//! and every copy is accounted for.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{
    Asked, Evil, Fault,
    rig::{Got, Rig, WAYS, Way, body, deaf, patient, read},
};
use crate::world::until;

/// Sends a request of each kind, and compares it with what the primary says itself.
async fn compare(rig: &Rig, context: &str) {
    for way in WAYS {
        let user = format!("{context} {way:?}");
        let (through, direct) = (rig.ask(&user, way).await, rig.direct(&user, way).await);
        through.same(&direct);
        through.is_from("primary", &user);
    }
}

#[tokio::test]
async fn b02_whatever_a_candidate_does_callers_get_the_primarys_bytes() {
    let rig = Rig::new(&(patient("0%", "100%") + "[limits]\nmirror_timeout = \"2s\"\n")).await;
    rig.is_open().await;
    for fault in Fault::ALL.into_iter().chain([Fault::Interim]) {
        // Every other answer is good, or the tripwire would send the candidate back.
        rig.candidate.plays(move |number, asked: &Asked| {
            let fault = if number % 2 == 0 { fault } else { Fault::None };
            fault.steps("candidate", number, asked)
        });
        let before = (rig.candidate.begun(), rig.accounted().await);
        for _ in 0..3 {
            compare(&rig, &format!("{fault:?}")).await;
        }
        rig.accounts_for(6, before.1).await;
        // One may have met a connection that its provider was just closing.
        let begun = rig.candidate.begun() - before.0;
        assert!((5..=6).contains(&begun), "{fault:?}: {begun} reached it");
    }
    assert_eq!(rig.serve.json(&["status", "chat"]).await["state"], "STATE_RUNNING");
}

#[tokio::test]
async fn b02_a_candidate_that_cannot_be_reached_changes_no_byte() {
    let deaf = deaf().await;
    let deaf = format!("http://{}/v1", deaf.local_addr().unwrap());
    for case in ["tls", "deaf to tls", "dns", "closed", "deaf"] {
        let candidate = Evil::start("candidate").await;
        let url = match case {
            "tls" => format!("https://{}/v1", candidate.address),
            "deaf to tls" => deaf.replace("http://", "https://"),
            "dns" => "http://nobody.invalid/v1".to_owned(),
            "closed" => "http://127.0.0.1:9/v1".to_owned(),
            _ => deaf.clone(),
        };
        let more = patient("0%", "100%") + "[limits]\nmirror_timeout = \"400ms\"\n";
        let rig = Rig::to(&url, candidate, &more).await;
        rig.is_open().await;
        for _ in 0..6 {
            compare(&rig, case).await;
        }
        rig.is_quiet().await;
        assert_eq!(rig.candidate.begun(), 0, "{case}");
        let failed = rig.serve.metric("crossfade_requests_total{provider=\"candidate\"").await;
        assert!(0.5 < failed, "{case}: its failures are counted");
    }
}

/// So many requests from so many callers; each must get the primary's answer to it.
async fn ask(rig: &Arc<Rig>, requests: usize, callers: usize) {
    let mut all = JoinSet::new();
    for caller in 0..callers {
        let rig = Arc::clone(rig);
        all.spawn(async move {
            for number in (caller..requests).step_by(callers) {
                let user = format!("u-{number}");
                rig.ask(&user, WAYS[number % 2]).await.is_from("primary", &user);
            }
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn b01_a_candidate_that_hangs_takes_its_places_and_nothing_more() {
    for fault in [Fault::Stall(0), Fault::Stall(2), Fault::Endless, Fault::Crumbs] {
        let more =
            patient("0%", "100%") + "[limits]\nmirror_concurrency_max = 8\nbody_max = \"1GiB\"\n";
        let rig = Arc::new(Rig::new(&more).await);
        rig.is_open().await;
        let before = rig.accounted().await;
        rig.candidate.does(fault);
        ask(&rig, 300, 8).await;
        let memory = rig.memory();
        ask(&rig, 900, 8).await;
        let grown = rig.memory().saturating_sub(memory);
        until("every copy is accounted for", || async {
            (rig.accounted().await - before - 1_200.0).abs() < 0.5
        })
        .await;
        let busy = rig.serve.metric("crossfade_mirror_skipped_total{reason=\"busy\"}").await;
        assert!(1_000.0 < busy, "{fault:?}: {busy} dropped");
        assert!(grown < 24 * 1024, "{fault:?}: {grown} KiB more after 900 requests");
    }
}

#[tokio::test]
async fn b03_a_candidate_slower_than_its_copies_come_is_accounted_for_exactly() {
    let more = patient("0%", "100%") + "[limits]\nmirror_concurrency_max = 4\n";
    let rig = Arc::new(Rig::new(&more).await);
    rig.is_open().await;
    let (before, asked) = (rig.accounted().await, rig.candidate.begun());
    rig.candidate.does(Fault::Delay(50));
    ask(&rig, 600, 12).await;
    rig.accounts_for(600, before).await;
    let busy = rig.serve.metric("crossfade_mirror_skipped_total{reason=\"busy\"}").await;
    let copies = f64::from(u32::try_from(rig.candidate.begun() - asked).unwrap());
    assert!((busy + copies - 600.0).abs() < 0.5, "{busy} dropped and {copies} sent");
    assert!(0.0 < busy && 0.0 < copies);
    // What was due and dropped is told to whoever decides.
    until("missing copies are seen", || async {
        let rollout = rig.serve.json(&["status", "chat"]).await.to_string();
        rollout.contains("never became a pair")
    })
    .await;
}

#[tokio::test]
async fn b07_a_request_too_large_for_a_copy_streams_to_the_primary_alone() {
    let rig = Rig::new(&patient("0%", "100%")).await;
    rig.is_open().await;
    let (asked, read_before) = (rig.candidate.begun(), rig.primary.bytes());
    let memory = rig.memory();
    let start = body("large", Way::Whole);
    let mut large = start.trim_end_matches('}').to_owned() + ",\"pad\":\"";
    let len = 64 << 20;
    large.extend(std::iter::repeat_n('x', len - large.len() - 2));
    large.push_str("\"}");
    let got: Got = read(super::rig::begin(&rig.http, rig.serve.data, &large).await).await;
    assert_eq!((got.status, got.provider.as_str()), (200, "primary"));
    assert_eq!(rig.primary.bytes() - read_before, u64::try_from(len).unwrap());
    let skipped = rig.serve.metric("crossfade_mirror_skipped_total{reason=\"size\"}").await;
    assert!((skipped - 1.0).abs() < 0.5);
    assert_eq!(rig.candidate.begun(), asked);
    let grown = rig.memory_peak().saturating_sub(memory);
    assert!(grown < 24 * 1024, "{grown} KiB for a body of 64 MiB");
}
