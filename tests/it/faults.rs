//! The journal's disk fails or hangs under the real program: `strace` puts the faults in.
//!
//! Nothing goes forward, everything goes back, callers see nothing of it, and each step has one
//! event once the disk is well again. What a crash leaves at each of these steps is tried on a
//! simulated disk, beside the store's code.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use crossfade::{
    players::Delivery,
    store::{Limits, Pairs, Query},
};
use serde_json::Value;

use crate::world::{Serve, World, rollout, until};

const LADDER: &str = r#"
[rollout.chat]
candidate = "candidate"
gates = { latency_p99 = "off", judge_score = "off" }
stage = [
  { name = "one",   serve = "0%",   mirror = "1%", duration = "1h", samples = 100 },
  { name = "two",   serve = "100%", mirror = "1%", duration = "1h", samples = 100 },
  { name = "three", serve = "100%", mirror = "1%", duration = "1h", samples = 100 },
]
"#;

const ADVANCE: [&str; 5] = ["advance", "chat", "--override-undecided", "--comment", "drill"];

/// Faults in the calls that a process makes on its journal, until it is dropped.
pub(crate) struct Faults(Child);

impl Faults {
    /// Puts `how` into `calls` of the process on these files; none without `strace`.
    pub(crate) async fn begin(
        serve: &Serve,
        files: &[PathBuf],
        calls: &str,
        how: &str,
    ) -> Option<Self> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &serve.pid().to_string()]);
        for file in files {
            strace.arg("-P").arg(file);
        }
        strace.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{how}")]);
        strace.stdin(Stdio::null()).stderr(Stdio::null());
        let mut faults = Self(strace.spawn().ok()?);
        let tasks = format!("/proc/{}/task", serve.pid());
        let traced = |task: &Path| {
            let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        let refused = AtomicBool::new(false);
        let child = std::cell::RefCell::new(&mut faults.0);
        until("strace holds every thread", || async {
            refused.store(child.borrow_mut().try_wait().unwrap().is_some(), Relaxed);
            let mut tasks = std::fs::read_dir(&tasks).unwrap().map(|it| it.unwrap().path());
            refused.load(Relaxed) || tasks.all(|it| traced(&it))
        })
        .await;
        (!refused.load(Relaxed)).then_some(faults)
    }

    /// Takes the faults away.
    pub(crate) fn end(mut self) {
        self.detach();
    }

    fn detach(&mut self) {
        // Asked, it lets go of every thread; killed, it might leave some stopped.
        let pid = self.0.id().to_string();
        drop(Command::new("kill").args(["-INT", &pid]).status());
        drop(self.0.wait());
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.detach();
        }
    }
}

/// Whether faults can be put in; says so where not.
pub(crate) fn can_inject(test: &str) -> bool {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    let found = found.is_ok_and(|it| it.success());
    if !found {
        crate::world::skipped(&format!("{test}: strace is not installed (apt install strace)"));
    }
    found
}

/// The files of the journal.
fn journal(world: &World) -> [PathBuf; 2] {
    ["journal.log", "journal.log.new"].map(|it| world.dir.path().join("store").join(it))
}

/// Who answers ten users, in order.
async fn answered_by(world: &World, serve: &Serve) -> Vec<String> {
    let mut providers = Vec::new();
    for user in 0..10 {
        let user = format!("user-{user}");
        let body = world.body(user.len(), Delivery::Whole);
        let answer = serve.chat(body, &[("x-crossfade-user", &user)]).await;
        assert_eq!(answer.status, 200);
        providers.push(answer.header("x-crossfade-provider").to_owned());
    }
    providers
}

/// Runs `work` while callers ask without a pause; every one of them must be answered.
async fn under_traffic<T>(world: &World, serve: &Serve, work: impl Future<Output = T>) -> T {
    let (done, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let callers = async {
        while !done.load(Relaxed) {
            let index = calls.fetch_add(1, Relaxed);
            let answer = serve.chat(world.body(index, Delivery::Whole), &[]).await;
            assert_eq!(answer.status, 200, "a caller saw the fault");
        }
    };
    let work = async {
        let result = work.await;
        done.store(true, Relaxed);
        result
    };
    let (result, ()) = tokio::join!(work, callers);
    assert!(3 < calls.load(Relaxed), "only {calls:?} calls during the fault");
    result
}

async fn in_stage_two(world: &World) -> Serve {
    let serve = world.serve(LADDER).await;
    until("the controller is up", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    assert_eq!(serve.cli(&["start", "chat"]).await.0, 0);
    let (code, text) = serve.cli(&ADVANCE).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(answered_by(world, &serve).await, ["candidate"; 10]);
    serve
}

/// Kinds of events, oldest first.
async fn kinds(serve: &Serve) -> Vec<String> {
    let events = serve.json_lines(&["events", "chat", "--limit", "100"]).await;
    events.iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect()
}

fn is_durable(status: &Value) -> bool {
    status["durable"] == true
}

#[tokio::test]
async fn b33_c5_a_journal_that_cannot_be_written_holds_what_goes_forward_and_nothing_that_goes_back()
 {
    if !can_inject("a_journal_that_cannot_be_written") {
        return;
    }
    for (calls, how) in [
        ("fdatasync,fsync", "error=EIO"),
        ("write,writev,pwrite64", "error=ENOSPC"),
        ("write,writev,pwrite64,fdatasync,fsync", "error=EIO"),
        ("rename,renameat,renameat2,fdatasync", "error=EIO"),
    ] {
        let world = World::new().await;
        let serve = in_stage_two(&world).await;
        let Some(faults) = Faults::begin(&serve, &journal(&world), calls, how).await else {
            crate::world::skipped("faults: strace may not trace here");
            return;
        };
        let during = async {
            let (code, text) = serve.cli(&ADVANCE).await;
            assert!(code != 0 && text.contains("not possible now"), "{calls}: {code}: {text}");
            assert_eq!(serve.json(&["status", "chat"]).await["stageIndex"], 1, "{calls}");
            let (code, text) = serve.cli(&["rollback", "chat"]).await;
            assert_eq!(code, 0, "{calls}: {text}");
            let status = serve.json(&["status", "chat"]).await;
            assert_eq!(status["state"], "STATE_ROLLED_BACK", "{calls}");
            assert!(!is_durable(&status), "{calls}: {status}");
            assert_eq!(answered_by(&world, &serve).await, ["primary"; 10], "{calls}");
            let ready = serve.page("/readyz").await;
            assert!(ready.contains("degraded") && ready.contains("not on disk"), "{ready}");
        };
        under_traffic(&world, &serve, during).await;
        faults.end();
        well_again(&world, serve, calls).await;
    }
}

/// Durable soon, one event each, and the same after a kill -9.
async fn well_again(world: &World, serve: Serve, context: &str) {
    until("the rollback is durable", || async {
        is_durable(&serve.json(&["status", "chat"]).await)
    })
    .await;
    let expected = ["TYPE_CREATED", "TYPE_STAGE_ENTERED", "TYPE_STAGE_ENTERED", "TYPE_ROLLED_BACK"];
    assert_eq!(kinds(&serve).await, expected, "{context}");
    assert!(serve.page("/readyz").await.contains("\"ready\""), "{context}");
    serve.kill().await;
    let serve = Serve::start(&world.dir.path().join("crossfade.toml")).await;
    until("it stands again", || async { serve.cli(&["list"]).await.0 == 0 }).await;
    assert_eq!(serve.json(&["status", "chat"]).await["state"], "STATE_ROLLED_BACK");
    assert_eq!(kinds(&serve).await, expected, "{context}");
    assert_eq!(answered_by(world, &serve).await, ["primary"; 10], "{context}");
}

#[tokio::test]
async fn a_journal_that_hangs_keeps_no_rollback_waiting() {
    if !can_inject("a_journal_that_hangs") {
        return;
    }
    let world = World::new().await;
    let serve = Arc::new(in_stage_two(&world).await);
    let how = "delay_enter=300000000";
    let Some(faults) = Faults::begin(&serve, &journal(&world), "fdatasync", how).await else {
        crate::world::skipped("faults: strace may not trace here");
        return;
    };
    let during = async {
        let step = serve.cli(&ADVANCE);
        let back = async {
            until("the write hangs", || async {
                serve.page("/readyz").await.contains("waiting for the disk")
            })
            .await;
            let (code, text) = serve.cli(&["rollback", "chat"]).await;
            assert_eq!(code, 0, "{text}");
            let status = serve.json(&["status", "chat"]).await;
            assert_eq!(status["state"], "STATE_ROLLED_BACK");
            assert!(!is_durable(&status), "{status}");
            assert_eq!(answered_by(&world, &serve).await, ["primary"; 10]);
        };
        let ((code, text), ()) = tokio::join!(step, back);
        assert!(code != 0 && text.contains("look again"), "{code}: {text}");
    };
    under_traffic(&world, &serve, during).await;
    faults.end();
    until("the rollback is durable", || async {
        is_durable(&serve.json(&["status", "chat"]).await)
    })
    .await;
    // The step was on its way to the disk and got there; the rollback came behind it.
    let kinds = kinds(&serve).await;
    let expected = ["TYPE_STAGE_ENTERED", "TYPE_STAGE_ENTERED", "TYPE_STAGE_ENTERED"];
    assert_eq!(kinds[1..4], expected);
    assert_eq!(kinds[4..], ["TYPE_ROLLED_BACK"]);
    assert_eq!(answered_by(&world, &serve).await, ["primary"; 10]);
}

#[tokio::test]
async fn pairs_that_wait_for_a_slow_disk_are_stored_before_the_program_ends() {
    if !can_inject("pairs_that_wait_for_a_slow_disk_are_stored_before_the_program_ends") {
        return;
    }
    let world = World::new().await;
    let serve = world.serve(&rollout("0%", "100%")).await;
    let stored = async || serve.metric("crossfade_store_pairs").await;
    let ask = async |index| drop(serve.chat(world.body(index, Delivery::Whole), &[]).await);
    until("a pair is stored", || async {
        ask(0).await;
        0.5 < stored().await
    })
    .await;
    let segments = std::fs::read_dir(world.dir.path().join("store/segments")).unwrap();
    let segments: Vec<PathBuf> = segments.map(|it| it.unwrap().path()).collect();
    let how = "delay_enter=5000000";
    let Some(faults) = Faults::begin(&serve, &segments, "fsync,fdatasync", how).await else {
        return crate::world::skipped("strace may not attach here");
    };
    let told = async || {
        let samples = serve.json(&["status", "chat"]).await["evidence"][0]["samples"].clone();
        samples.as_str().map_or(0.0, |it| it.parse::<f64>().unwrap())
    };
    until("the recorder waits for its disk", || async {
        ask(1).await;
        stored().await + 4.5 < told().await
    })
    .await;
    until("all copies are told", || async {
        let copies = u32::try_from(world.candidate.stats().requests).unwrap();
        (told().await - f64::from(copies)).abs() < 0.5
    })
    .await;
    serve.signal("TERM");
    assert!(serve.ended().await.success());
    faults.end();
    let limits = Limits {
        bytes_max: 1 << 30,
        age_ms_max: u64::MAX / 2,
        free_bytes_min: 0,
        queue_len_max: 8,
    };
    let pairs = Pairs::open(&world.dir.path().join("store"), limits).unwrap();
    let kept = pairs.list(&Query { len_max: 1_000, ..Query::default() }).unwrap().len();
    assert_eq!(u64::try_from(kept).unwrap(), world.candidate.stats().requests);
}
