//! What is shared is divided fairly, bounded by number and by bytes, and never costs a caller
//! anything.

use std::path::{Path, PathBuf};

use crossfade::players::Delivery;

use crate::{
    evil::{Evil, Fault, Rig, Step, Way, patient},
    faults::{Faults, can_inject},
    world::{World, rollout, until},
};

/// Two rollouts, by feature, each with a candidate of its own.
fn two(other: &Evil) -> String {
    let one =
        patient("0%", "100%").replace("autostart", "slice = { features = [\"one\"] }\nautostart");
    let two = one.replace("chat", "other").replace("\"candidate\"", "\"other\"");
    let two = two.replace("[\"one\"]", "[\"two\"]");
    format!(
        "[provider.other]\nbase_url = \"{}\"\n{one}{two}[limits]\nmirror_concurrency_max = 16\n\
         side_memory_max = \"16MiB\"\n",
        other.url()
    )
}

#[tokio::test]
async fn a_rollout_whose_candidate_hangs_takes_no_place_and_no_memory_of_another() {
    let other = Evil::start("other").await;
    let rig = Rig::new(&two(&other)).await;
    let ask = async |feature: &str, user: &str| {
        let got = rig.ask_as(&[("x-crossfade-feature", feature)], user, Way::Whole).await;
        got.is_from("primary", user);
    };
    until("both rollouts copy", || async {
        ask("one", "probe").await;
        ask("two", "probe").await;
        0 < rig.candidate.begun() && 0 < other.begun()
    })
    .await;
    rig.is_quiet().await;
    rig.candidate.does(Fault::Stall(0));
    let large = "x".repeat(400_000);
    for _ in 0..40 {
        ask("one", &large).await;
    }
    // It has its half of the places, or of what copies may hold of the memory, and no more.
    let under_way = rig.serve.metric("crossfade_mirror_in_flight ").await;
    assert!(0.5 < under_way && under_way < 8.5, "{under_way} copies under way");
    let skipped = async || {
        let series = |it: &str| format!("crossfade_mirror_skipped_total{{reason=\"{it}\"}}");
        rig.serve.metric(&series("busy")).await + rig.serve.metric(&series("memory")).await
    };
    let (before, begun) = (skipped().await, other.begun());
    assert!(20.0 < before);
    for number in 0..40 {
        ask("two", &format!("u-{number}")).await;
        until("its copy is made", || async {
            rig.serve.metric("crossfade_mirror_in_flight ").await < under_way + 0.5
        })
        .await;
    }
    until("all of them are made", || async { other.begun() == begun + 40 }).await;
    assert!((skipped().await - before).abs() < 0.5, "none of the other's was dropped");
}

#[tokio::test]
async fn b03_copies_are_bounded_by_their_bytes_and_what_is_shed_is_counted() {
    let more = patient("0%", "100%") + "[limits]\nside_memory_max = \"16MiB\"\n";
    let rig = Rig::new(&more).await;
    rig.is_open().await;
    let (before, memory) = (rig.accounted().await, rig.memory());
    rig.candidate.does(Fault::Stall(0));
    for number in 0..150 {
        let user = format!("{number}-{}", "x".repeat(500_000));
        rig.ask(&user, Way::Whole).await.is_from("primary", &user);
        let held = rig.serve.metric("crossfade_side_memory_bytes ").await;
        assert!(held <= 16.0 * 1_048_576.0, "{held} bytes");
    }
    until("every copy is accounted for", || async {
        (rig.accounted().await - before - 150.0).abs() < 0.5
    })
    .await;
    let shed = rig.serve.metric("crossfade_mirror_skipped_total{reason=\"memory\"}").await;
    let under_way = rig.serve.metric("crossfade_mirror_in_flight ").await;
    // Each holds a request twice, and copies may hold half of it all.
    assert!((100.0..148.0).contains(&shed) && under_way <= 9.0, "{shed} shed, {under_way} made");
    let grown = rig.memory_peak().saturating_sub(memory);
    assert!(grown < 64 * 1024, "{grown} KiB more");
    let told = async || rig.serve.json(&["status", "chat"]).await.to_string();
    until("what is missing is seen", || async { told().await.contains("never became a pair") })
        .await;
}

#[tokio::test]
async fn b71_names_without_end_are_not_remembered_from_either_side() {
    let rig = Rig::new(&patient("0%", "100%")).await;
    rig.is_open().await;
    let name = "n".repeat(500_000);
    let says = serde_json::json!({
        "model": name, "choices": [{"finish_reason": name, "message": {"content": "x"}}],
    });
    let says = says.to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{says}",
        says.len()
    );
    rig.candidate.plays(move |_, _| vec![Step::Send(answer.clone().into_bytes())]);
    let question = Rig::question("u").replace("\"m\"", &format!("\"{name}\""));
    let memory = rig.memory();
    for _ in 0..100 {
        assert_eq!(rig.send(&question).await.status, 200);
    }
    rig.is_quiet().await;
    let grown = rig.memory().saturating_sub(memory);
    assert!(grown < 40 * 1024, "{grown} KiB more for 100 requests with names of 500 KB");
}

#[tokio::test]
async fn b71_marks_without_end_are_not_remembered() {
    let fields = "[fields]\nfeature = \"metadata.feature\"\ndata = \"metadata.data\"\n";
    let rig = Rig::new(&(patient("0%", "100%") + fields)).await;
    rig.is_open().await;
    let mark = "m,".repeat(250_000);
    let says = format!("\"metadata\":{{\"feature\":\"{mark}\",\"data\":\"{mark}\"}},\"model\"");
    let question = Rig::question("u").replacen("\"model\"", &says, 1);
    let memory = rig.memory();
    for _ in 0..100 {
        assert_eq!(rig.send(&question).await.status, 200);
    }
    rig.is_quiet().await;
    let grown = rig.memory().saturating_sub(memory);
    assert!(grown < 40 * 1024, "{grown} KiB more for 100 requests with marks of 500 KB");
}

/// Every file of the store but the journal, which has tests of its own.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            all.extend(files(&entry.path()));
        } else if !entry.file_name().to_string_lossy().starts_with("journal") {
            all.push(entry.path());
        }
    }
    all
}

#[tokio::test]
async fn b08_a_store_that_hangs_drops_pairs_counts_them_and_keeps_no_caller_waiting() {
    if !can_inject("b08_a_store_that_hangs") {
        return;
    }
    let world = World::new().await;
    let more = rollout("0%", "100%") + "[limits]\nrecorder_queue_len_max = 4\n";
    let serve = world.serve(&more).await;
    until("pairs are stored", || async {
        assert_eq!(serve.chat(world.body(0, Delivery::Whole), &[]).await.status, 200);
        0.5 < serve.metric("crossfade_store_pairs ").await
    })
    .await;
    let files = files(&world.dir.path().join("store"));
    let calls = "write,writev,pwrite64,pwritev,fdatasync,fsync,sync_file_range";
    let how = "delay_enter=300000000";
    let Some(faults) = Faults::begin(&serve, &files, calls, how).await else {
        crate::world::skipped("isolation: strace may not trace here");
        return;
    };
    let full = "crossfade_lost_total{reason=\"recorder_full\"}";
    let mut asked = 0;
    until("pairs are dropped", || {
        asked += 1;
        let (world, serve) = (&world, &serve);
        async move {
            assert_eq!(serve.chat(world.body(asked, Delivery::Whole), &[]).await.status, 200);
            20.0 < serve.metric(full).await
        }
    })
    .await;
    until("the copies are done", || async {
        serve.metric("crossfade_mirror_in_flight ").await < 0.5
    })
    .await;
    faults.end();
    // Evidence is in memory: what the disk lost counts all the same.
    until("every pair counts, kept or not", || async {
        let kept = serve.metric("crossfade_store_pairs ").await;
        let dropped = serve.metric("crossfade_store_dropped ").await;
        let counted = serve.metric("crossfade_stage_pairs").await;
        let made = serve.metric("crossfade_requests_total{provider=\"candidate\"").await;
        (kept + dropped - made).abs() < 0.5 && (counted - made).abs() < 0.5
    })
    .await;
}
