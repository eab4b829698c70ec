//! Golden sets: put to two providers, stopped and gone on with, and what they come to.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
};

use crossfade::players::{Delivery, Fault, Latency, Provider, ProviderPlan, Rows};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{Dir, Serve, configured, rollout, skipped, slow, until};

/// Cases of the made-up set, and every how many the candidate is wrong.
const CASES: usize = 48;
const WRONG_EVERY: usize = 4;

/// Two providers that answer rows as two models, and a folder.
struct Golden {
    dir: Dir,
    primary: Provider,
    candidate: Provider,
}

impl Golden {
    async fn new(rows: Rows, models: [&str; 2], latency: Latency) -> Self {
        let rows = Arc::new(rows);
        let start = |model: &str| {
            let plan = ProviderPlan { latency, ..ProviderPlan::new(model) };
            Provider::start(Arc::clone(&rows), plan, ([127, 0, 0, 1], 0).into())
        };
        let [primary, candidate] = models;
        let (primary, candidate) = (start(primary).await.unwrap(), start(candidate).await.unwrap());
        Self { dir: Dir::new().await, primary, candidate }
    }

    /// The configuration, with prices, and a second name for the candidate.
    fn config(&self, more: &str) -> PathBuf {
        let addresses = [&self.primary, &self.candidate].map(Provider::address);
        let price = |name: &str, output: &str| {
            format!("[provider.{name}.price.\"*\"]\ninput = \"0\"\noutput = \"{output}\"\n")
        };
        let other = format!("[provider.other]\nbase_url = \"http://{}/v1/\"\n", addresses[1]);
        let more = price("primary", "10") + &price("candidate", "4") + &other + more;
        configured(self.dir.path(), addresses, &more)
    }

    fn replay(&self, set: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crossfade"));
        command.arg("replay").args(more).arg(set).arg("-c").arg(self.config(""));
        for (option, usual) in [("--candidate", "candidate"), ("-o", "json")] {
            if !more.contains(&option) {
                command.args([option, usual]);
            }
        }
        command.kill_on_drop(true);
        command
    }

    async fn run(&self, set: &Path, more: &[&str]) -> Output {
        self.replay(set, more).output().await.unwrap()
    }

    fn asked(&self) -> [u64; 2] {
        [self.primary.stats().requests, self.candidate.stats().requests]
    }
}

/// Rows of a classification: the primary is right, the candidate says `ham` now and then.
fn rows() -> Rows {
    let row = |index: usize| {
        let due = ["spam", "ham"][index % 2];
        let wrong = index.is_multiple_of(WRONG_EVERY);
        let output = |said: &str, out_tokens: u32| json!({"content": said, "in_tokens": 7, "out_tokens": out_tokens});
        json!({
            "id": format!("mail-{index}"), "primary": "big",
            "messages": [{"role": "user", "content": format!("Is number {index} spam?")}],
            "outputs": {"big": output(due, 10), "small": output(if wrong { "ham" } else { due }, 5)},
        })
    };
    let text: Vec<String> = (0..CASES).map(|it| row(it).to_string()).collect();
    Rows::parse(&text.join("\n"), "rows").unwrap()
}

fn set(dir: &Path, rows: &Rows) -> PathBuf {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let due = ["Spam", "Ham"][index % 2];
        let expected = json!({ "label": due });
        let case = json!({"id": row.id, "task": "mail", "model": "big", "messages": row.messages, "expected": expected});
        writeln!(text, "{case}").unwrap();
    }
    let file = dir.join("mail.jsonl");
    fs::write(&file, text).unwrap();
    file
}

fn told(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn near(found: &Value, expected: f64) {
    let it = found.as_f64().unwrap();
    assert!((it - expected).abs() < 1e-9, "{found}, not {expected}");
}

/// Lines of answers that are kept, the head aside.
fn kept(file: &Path) -> usize {
    fs::read_to_string(file).map_or(0, |it| it.lines().count().saturating_sub(1))
}

#[tokio::test]
async fn a_replay_that_is_killed_goes_on_where_it_was_and_counts_right() {
    let golden = Golden::new(rows(), ["big", "small"], slow(60)).await;
    let set = set(golden.dir.path(), &rows());
    let answers = golden.dir.path().join("store/golden");
    let file = answers.join("mail.candidate.jsonl");
    let concurrency = ["--concurrency", "2"];
    for signal in ["KILL", "INT"] {
        let before = kept(&file);
        let mut command = golden.replay(&set, &concurrency);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        until("some more is answered", || async { before + 3 < kept(&file) }).await;
        let pid = child.id().unwrap().to_string();
        let killed =
            std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(killed.unwrap().success());
        let output = child.wait_with_output().await.unwrap();
        assert!(!output.status.success(), "{signal}");
        if signal == "INT" {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(errors.contains("the same command goes on there"), "{errors}");
        }
    }
    let before = kept(&file);
    assert!((6..CASES).contains(&before), "{before}");
    let figures = told(&golden.run(&set, &concurrency).await);
    assert_eq!((figures["cases"].as_u64(), kept(&file)), (Some(48), CASES));
    // What was under way at each stop was asked again, and nothing else.
    let [least, most] = [CASES, CASES + 2 * 2].map(|it| u64::try_from(it).unwrap());
    let asked = golden.asked();
    assert!(asked.iter().all(|it| (least..=most).contains(it)), "{asked:?}");

    // Every fourth case is spam of which the candidate says ham: 12 of 24.
    let of = |measure: &str| {
        let all = figures["quality"].as_array().unwrap();
        all.iter().find(|it| it["measure"] == measure).unwrap().clone()
    };
    near(&of("accuracy")["primary"], 1.0);
    near(&of("accuracy")["candidate"], 0.75);
    // Spam: 2·12/(24+12); ham: 2·24/(24+36).
    near(&of("macro_f1")["candidate"], f64::midpoint(24.0 / 36.0, 48.0 / 60.0));
    near(&figures["overall"]["difference"], -0.25);
    let interval = figures["overall"]["interval"].as_array().unwrap();
    let [lower, upper] = [0, 1].map(|it: usize| interval[it].as_f64().unwrap());
    assert!(-0.38 < lower && lower < -0.3 && -0.2 < upper && upper < -0.1, "{interval:?}");
    let spam = json!({"task": "mail", "label": "spam", "due": 24,
        "given": {"primary": 24, "candidate": 12}, "right": {"primary": 24, "candidate": 12}});
    assert_eq!(figures["labels"][1], spam);
    // Ten tokens at ten dollars a million, five at four.
    let cost = &figures["costNanoUsd"];
    near(&cost["primary"], 100_000.0);
    near(&cost["candidate"], 20_000.0);
    near(&cost["compared"], 0.2);
    let median = figures["latencyMs"]["p50"]["primary"].as_f64().unwrap();
    assert!((60.0..2_000.0).contains(&median), "{median}");

    // Once more nobody is asked, and the same is told.
    assert_eq!(told(&golden.run(&set, &[]).await), figures);
    assert_eq!(golden.asked(), asked);
    let document = golden.run(&set, &["-o", "md"]).await;
    let document = String::from_utf8(document.stdout).unwrap();
    assert!(document.contains("| mail | macro\\_f1 | 48 | 1.000 | 0.733 |"), "{document}");
    assert!(document.contains("20.0% of the cost"), "{document}");
}

#[tokio::test]
async fn the_primary_is_not_asked_again_and_another_set_is_not_mixed_in() {
    let golden = Golden::new(rows(), ["big", "small"], Latency::None).await;
    let set = set(golden.dir.path(), &rows());
    told(&golden.run(&set, &[]).await);
    let all = u64::try_from(CASES).unwrap();
    assert_eq!(golden.asked(), [all, all]);
    let other = told(&golden.run(&set, &["--candidate", "other"]).await);
    assert_eq!((other["candidate"].as_str(), golden.asked()), (Some("other"), [all, 2 * all]));
    // `other` has no price.
    assert!(other["costNanoUsd"].is_null(), "{other}");

    let text = fs::read_to_string(&set).unwrap();
    fs::write(&set, text.replacen("Ham", "Spam", 1)).unwrap();
    let refused = golden.run(&set, &[]).await;
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{errors}");
    assert!(errors.contains("another set") && errors.contains("--anew"), "{errors}");
    let elsewhere = golden.dir.path().join("elsewhere");
    told(&golden.run(&set, &["--out", elsewhere.to_str().unwrap()]).await);
    assert_eq!(golden.asked(), [2 * all, 3 * all]);
    told(&golden.run(&set, &["--anew"]).await);
    assert_eq!(golden.asked(), [3 * all, 4 * all]);

    for (args, code, why) in [
        (["--candidate", "nobody"], 2, "no provider of the configuration: primary"),
        (["--candidate", "primary"], 2, "the primary itself"),
        (["--concurrency", "0"], 2, "1..=64"),
    ] {
        let refused = golden.run(&set, &args).await;
        let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(code) && errors.contains(why), "{args:?}: {errors}");
    }
    fs::write(&set, "{\"id\":\"a\"}").unwrap();
    let refused = golden.run(&set, &[]).await;
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(7) && errors.contains("line 1"), "{errors}");
}

#[tokio::test]
async fn a_provider_that_fails_is_asked_again_and_then_nobody_is_asked_any_more() {
    let golden = Golden::new(rows(), ["big", "small"], Latency::None).await;
    let set = set(golden.dir.path(), &rows());
    golden.candidate.set_fault(Fault::Errors(401));
    let stopped = golden.run(&set, &["--concurrency", "16"]).await;
    let errors = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(stopped.status.code() == Some(1) && errors.contains("8 cases in a row"), "{errors}");
    assert!(errors.contains("in trouble") && errors.contains("goes on there"), "{errors}");
    let [primary, candidate] = golden.asked();
    // Eight and those under way with them, three times each.
    assert!(primary < 48 && candidate <= 3 * 24, "{primary} {candidate}");
    // The first answer fails, and the forty-first; each is there at the second try.
    golden.candidate.set_fault(Fault::Every(40));
    let figures = told(&golden.run(&set, &["--concurrency", "16"]).await);
    assert_eq!(figures["answered"], json!({"primary": 48, "candidate": 48}));
}

/// A rollout that stands behind the set.
fn behind(set: &Path, within: &str) -> String {
    let rollout = rollout("1%", "1%").replace("autostart = true", "");
    let required = format!("golden = {{ set = '{}', within = \"{within}\" }}\n", set.display());
    rollout.replace("stage =", &format!("{required}stage ="))
}

#[tokio::test]
async fn a_rollout_begins_once_its_golden_set_is_answered_well_enough() {
    let golden = Golden::new(rows(), ["big", "small"], Latency::None).await;
    let set = set(golden.dir.path(), &rows());
    let serve = Serve::start(&golden.config(&behind(&set, "6pp"))).await;
    let refused = async |why: &str| {
        let (code, text) = serve.cli(&["start", "chat"]).await;
        assert!(code == 6 && text.contains(why), "{why}: {code} {text}");
        text
    };
    let told = refused("was not put to these two providers").await;
    let command = format!("`crossfade replay {} --candidate candidate`", set.display());
    assert!(told.contains(&command), "{told}");
    for verb in ["status", "explain"] {
        let (_, told) = serve.cli(&[verb, "chat"]).await;
        assert!(told.replace('\n', " ").contains("crossfade replay"), "{verb}: {told}");
    }
    // Half of it is not enough.
    golden.candidate.set_fault(Fault::Errors(500));
    assert!(!golden.run(&set, &["--concurrency", "16"]).await.status.success());
    refused("was not put to these two providers").await;
    golden.candidate.set_fault(Fault::None);
    self::told(&golden.run(&set, &["--concurrency", "16"]).await);
    refused("the candidate is at best").await;
    until("the status says so", || async {
        serve.cli(&["status", "chat"]).await.1.replace('\n', " ").contains("at best")
    })
    .await;
    assert!(serve.stop().await.success());

    // Where less is asked it begins at once, and what stands in its file is what counts.
    let serve = Serve::start(&golden.config(&behind(&set, "40pp"))).await;
    assert_eq!(serve.cli(&["start", "chat"]).await.0, 0);
    assert_eq!(serve.json(&["status", "chat"]).await["state"], "STATE_RUNNING");
    assert_eq!(serve.cli(&["rollback", "chat"]).await.0, 0);
    assert!(serve.stop().await.success());
    let text = fs::read_to_string(&set).unwrap();
    fs::write(&set, format!("{text}\n")).unwrap();
    let serve = Serve::start(&golden.config(&behind(&set, "40pp"))).await;
    let (code, text) = serve.cli(&["start", "chat"]).await;
    assert!(code == 6 && text.contains("was changed"), "{text}");
    assert!(serve.stop().await.success());
}

#[tokio::test]
async fn a_set_is_drawn_from_stored_pairs_by_kind_and_can_be_asked() {
    let rows = rows();
    let golden = Golden::new(rows.clone(), ["big", "small"], Latency::None).await;
    let compare = "compare = { labels = [\"spam\", \"ham\"] }\nstage =";
    let rollout = rollout("0%", "100%").replace("stage =", compare);
    let serve = Serve::start(&golden.config(&rollout)).await;
    until("pairs are made", || async {
        serve.chat(rows.request(40, "big", Delivery::Whole).unwrap().to_string().into(), &[]).await;
        0 < golden.candidate.stats().requests
    })
    .await;
    for index in 0..24 {
        let body = rows.request(index % 12, "big", Delivery::Whole).unwrap().to_string();
        let feature = ["chat", "search", "search"][index % 3];
        serve.chat(body.into(), &[("x-crossfade-feature", feature)]).await;
    }
    serve.is_quiet().await;
    let draw = async |each: &str, data: &str| {
        let (code, text) = serve.cli(&["pairs", "chat", "--golden", each, "--data", data]).await;
        assert_eq!(code, 0, "{text}");
        let is_case = |it: &&str| it.starts_with('{');
        text.lines()
            .filter(is_case)
            .map(|it| serde_json::from_str(it).unwrap())
            .collect::<Vec<Value>>()
    };
    until("all of it is stored", || async { 10 < draw("20", "none").await.len() }).await;
    let cases = draw("3", "none").await;
    let of = |kind: &str| cases.iter().filter(|it| it["task"] == kind).count();
    assert_eq!(
        (of("chat completions"), of("search completions"), of("completions")),
        (3, 3, 1),
        "{cases:?}"
    );
    assert!(cases.iter().all(|it| it["expected"]["label"].is_string() && it["data"] == json!([])));
    assert_eq!(draw("3", "none").await, cases);
    assert_eq!(draw("1", "eu,pii").await[0]["data"], json!(["eu", "pii"]));
    assert_eq!(serve.cli(&["pairs", "chat", "--golden", "3"]).await.0, 2);

    let set = golden.dir.path().join("drawn.jsonl");
    let text: Vec<String> = cases.iter().map(Value::to_string).collect();
    fs::write(&set, text.join("\n")).unwrap();
    let figures = told(&golden.run(&set, &[]).await);
    assert_eq!(figures["overall"]["cases"], 7);
    near(&figures["overall"]["primary"], 1.0);
    assert!(serve.stop().await.success());
}

/// The models of the recorded tool calls.
const BFCL: [&str; 2] = ["gpt-4o-2024-08-06-FC", "claude-3-haiku-20240307-FC"];

/// Equal as JSON, 1 and 1.0 included.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, it)| same(one, it))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|it| same(one, it)))
        }
        (one, other) => one == other,
    }
}

/// The calls of a recorded answer, by name, those of one name in their order.
fn calls(output: &Value) -> Vec<(String, Value)> {
    let all = output["tool_calls"].as_array().cloned().unwrap_or_default();
    let mut all: Vec<(String, Value)> = all
        .iter()
        .map(|it| {
            let arguments = it["arguments"].as_str().unwrap();
            let arguments = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
            (it["name"].as_str().unwrap().replace('.', "_"), arguments)
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

/// Over recorded tool calls: right is what the primary's calls are, where BFCL calls those valid.
#[tokio::test]
async fn recorded_tool_calls_are_marked_as_a_count_by_hand_marks_them() {
    let data = std::env::var_os("CROSSFADE_DATA").unwrap_or_else(|| "../shared/data".into());
    let path = Path::new(&data).join("tools/bfcl.jsonl");
    let Ok(text) = fs::read_to_string(&path) else {
        return skipped(&format!("no {}; CROSSFADE_DATA says where it is", path.display()));
    };
    let rows: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let usable = |row: &&Value| {
        let valid = row["verdict"][BFCL[0]]["valid"] == true;
        valid
            && BFCL
                .iter()
                .all(|it| row["outputs"][it].is_object() && row["outputs"][it]["error"].is_null())
    };
    let mut seen = std::collections::HashSet::new();
    let rows: Vec<&Value> =
        rows.iter().filter(usable).filter(|it| seen.insert(it["messages"].to_string())).collect();
    assert!(300 < rows.len(), "{}", rows.len());
    let lines = |of: &dyn Fn(&Value) -> Value| {
        rows.iter().map(|it| of(it).to_string()).collect::<Vec<_>>().join("\n")
    };
    let golden =
        Golden::new(Rows::parse(&lines(&Value::clone), "bfcl").unwrap(), BFCL, Latency::None).await;
    let case = |row: &Value| {
        let due: Vec<Value> = calls(&row["outputs"][BFCL[0]])
            .into_iter()
            .map(|(name, arguments)| json!({"name": name, "arguments": arguments}))
            .collect();
        json!({"id": row["id"], "task": row["category"], "model": "any", "messages": row["messages"],
            "tools": row["tools"], "expected": {"tool_calls": due}})
    };
    let set = golden.dir.path().join("bfcl.jsonl");
    fs::write(&set, lines(&case)).unwrap();
    let figures = told(&golden.run(&set, &["--concurrency", "16"]).await);
    for quality in figures["quality"].as_array().unwrap() {
        let of = rows.iter().filter(|it| it["category"] == quality["task"]);
        let right = |row: &&&Value| {
            let [due, found] = BFCL.map(|it| calls(&row["outputs"][it]));
            due.len() == found.len()
                && due.iter().zip(&found).all(|(due, it)| due.0 == it.0 && same(&due.1, &it.1))
        };
        let (cases, right) = (of.clone().count(), of.filter(right).count());
        assert_eq!(quality["cases"].as_u64(), u64::try_from(cases).ok(), "{quality}");
        near(&quality["primary"], 1.0);
        let [right, cases] = [right, cases].map(|it| f64::from(u32::try_from(it).unwrap()));
        near(&quality["candidate"], right / cases);
        // The average hides it: this one calls one tool where several are due.
        if quality["task"].as_str().unwrap().starts_with("parallel") {
            assert!(right / cases < 0.1, "{quality}");
        }
        if quality["task"] == "simple" {
            assert!(0.5 < right / cases, "{quality}");
        }
    }
}
