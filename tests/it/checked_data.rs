//! Deterministic checks over recorded answers. Skipped, saying so, where these are absent.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use crossfade::analysis::{Chances, Ledger, News, Observation, Said, Sample};
use crossfade::config;
use crossfade::dialect::{Answer, Form, Prompt, Schemas, check, compare, rouge_l};
use crossfade::domain::{
    Call, Check, Checks, Compared, Endpoint, Evidence, Metric, Outcome, Side, Timestamp, ToolCall,
    Transcript, Verdict, hash,
};
use crossfade::traffic::{Copies, Live};
use serde_json::{Value, json};

use crate::world::skipped;

/// Where recorded answers are, if they are.
pub(crate) fn data() -> PathBuf {
    std::env::var_os("CROSSFADE_DATA").unwrap_or_else(|| "../shared/data".into()).into()
}

/// The rows of a file of recorded answers; none where it is absent.
pub(crate) fn rows(file: &str) -> Vec<Value> {
    let path = data().join(file);
    let Ok(text) = fs::read_to_string(&path) else {
        skipped(&format!("no {}; CROSSFADE_DATA says where it is", path.display()));
        return Vec::new();
    };
    text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

fn models(rows: &[Value]) -> Vec<String> {
    let mut models: Vec<String> = Vec::new();
    for row in rows {
        models.extend(row["outputs"].as_object().unwrap().keys().cloned());
    }
    models.sort();
    models.dedup();
    models
}

/// What a model answered, if it did.
pub(crate) fn said(row: &Value, model: &str) -> Option<Transcript> {
    let output = row["outputs"].get(model)?;
    if let Some(text) = output.as_str() {
        return Some(Transcript { text: text.to_owned(), ..Transcript::default() });
    }
    if output.get("error").is_some() {
        return None;
    }
    let call = |it: &Value| ToolCall {
        id: String::new(),
        name: it["name"].as_str().unwrap_or_default().to_owned(),
        arguments: it["arguments"].as_str().unwrap_or_default().to_owned(),
    };
    let tool_calls = output["tool_calls"].as_array().into_iter().flatten().map(call).collect();
    let text = output["content"].as_str().unwrap_or_default().to_owned();
    Some(Transcript { text, tool_calls, refusal: None })
}

pub(crate) fn sample(checks: Checks, rouge_l_bps: Option<u16>) -> Sample {
    Sample::of(&Call {
        provider: "any".parse().unwrap(),
        model: None,
        status: 200,
        outcome: Outcome::Ok,
        first_byte_ms: None,
        total_ms: 900,
        usage: None,
        finish_reason: None,
        cost_nano_usd: None,
        checks,
        answer_chars: None,
        rouge_l_bps,
        estimated: false,
    })
}

/// A ledger in a stage that copies everything, with these gates.
pub(crate) fn ledger(gates: &str, more: &str) -> Ledger {
    let text = format!(
        "[rollout.chat]\ncandidate = 'candidate'\n{more}\n\
         gates = {{ latency_p99 = 'off', {gates} }}\n\
         stage = [{{ name = 'only', serve = '0%', mirror = '100%', duration = '1h', samples = 10 }}]\n"
    );
    let plan = config::plan(&text, "plan").unwrap().plan;
    let mut ledger = Ledger::new(&plan);
    ledger.enter(0, Timestamp(0), Chances::of(&plan.stages[0]));
    ledger
}

pub(crate) fn tell(
    ledger: &mut Ledger,
    at: u64,
    (primary, candidate): (Sample, Sample),
    watched: &str,
) {
    let (primary, candidate) = (Some(primary), Some(candidate));
    let seen = Observation { lot: None, primary, candidate, watched: watched.to_owned() };
    let at = Timestamp(at * 1_000);
    ledger.hear(&News { at, made: at, said: Said::Request(seen) });
}

pub(crate) fn verdict(evidence: &Evidence, metric: Metric, slice: &str) -> Verdict {
    let gate = |it: &&crossfade::domain::GateEvidence| it.metric == metric && it.watched == slice;
    evidence.gates.iter().find(gate).unwrap().verdict
}

/// What the tool calls of an answer keep to, by themselves and against the primary's.
fn tools_kept(row: &Value, model: &str, known: &Schemas) -> Option<Checks> {
    let body = json!({ "tools": row["tools"] }).to_string();
    let prompt = Prompt { endpoint: Endpoint::Chat, body: body.as_bytes(), form: Form::Free };
    let answered = said(row, model)?;
    let primary = said(row, row["primary"].as_str()?)?;
    let answer = Answer { transcript: &answered, finish_reason: None };
    let checks = check(prompt, answer, &[Metric::ToolCallValidRate], known);
    Some(checks.and(compare(&primary, &answered, &Compared::default())))
}

#[test]
fn tool_calls_that_cannot_be_right_never_pass() {
    let (rows, known) = (rows("tools/bfcl.jsonl"), Schemas::default());
    println!("model: answers; kept and valid, kept and not, broken though valid, broken and not");
    for model in models(&rows) {
        let mut counts = [0; 4];
        let (mut matched, mut matched_valid, mut compared) = (0, 0, 0);
        for row in &rows {
            let Some(checks) = tools_kept(row, &model, &known) else { continue };
            let verdict = &row["verdict"][&model];
            let valid = verdict["valid"] == true;
            let kept = checks.kept(Check::ToolCalls).unwrap();
            counts[usize::from(!kept) * 2 + usize::from(!valid)] += 1;
            let why = verdict["error_type"].as_str().unwrap_or_default();
            // What misses arguments cannot be valid by the tool's schema.
            let impossible = why == "simple_function_checker:missing_required";
            assert!(!kept || !impossible, "{} {model}: {verdict}", row["id"]);
            let primary = row["primary"].as_str().unwrap();
            let Some(alike) = checks.kept(Check::ToolCallMatch) else { continue };
            compared += 1;
            matched += usize::from(alike);
            // Who calls what a right primary calls is right.
            let right = row["verdict"][primary]["valid"] == true;
            matched_valid += usize::from(alike && right && valid);
            assert!(!(alike && right) || valid, "{} {model}: {verdict}", row["id"]);
        }
        println!(
            "{model}: {}; {counts:?}; {matched} of {compared} match the primary, {matched_valid} \
             of these where it is right, and all of them are",
            counts.iter().sum::<i32>()
        );
    }
}

#[test]
fn an_average_hides_no_broken_slice() {
    let (rows, known) = (rows("tools/bfcl.jsonl"), Schemas::default());
    if rows.is_empty() {
        return;
    }
    let slices = ["simple", "parallel_function"];
    let more = format!("slices = {{ by = 'task', values = {slices:?} }}");
    let mut ledger = ledger("judge_score = 'off', tool_call_match_rate = '-40pp'", &more);
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for (at, row) in (1..).zip(&rows) {
        let category = row["category"].as_str().unwrap();
        let model = "claude-3-haiku-20240307-FC";
        let Some(checks) = tools_kept(row, model, &known) else { continue };
        *seen.entry(category).or_default() += 1;
        tell(&mut ledger, at, (sample(checks.all_kept(), None), sample(checks, None)), category);
    }
    let evidence = ledger.evidence();
    for gate in evidence.gates.iter().filter(|it| it.metric == Metric::ToolCallMatchRate) {
        println!("{}: {} {}", gate.name(), gate.verdict.as_str(), gate.figures());
    }
    println!("{seen:?}");
    assert_eq!(verdict(&evidence, Metric::ToolCallMatchRate, "simple"), Verdict::Pass);
    assert_eq!(verdict(&evidence, Metric::ToolCallMatchRate, "parallel_function"), Verdict::Breach);
}

#[test]
fn who_always_says_the_same_is_caught_and_nobody_else() {
    let rows = rows("pairs/alpaca.jsonl");
    for model in models(&rows) {
        let primary = rows[0]["primary"].as_str().unwrap();
        let gates = "judge_score = 'off', repeated_rate = '+0.5pp', rouge_l = '>= 10%'";
        let mut ledger = ledger(gates, "");
        let live = Live::new(Arc::new(Copies::new(1, (0, 0))));
        let (mut answers, mut repeated) = (0, 0);
        for (at, row) in (1..).zip(&rows) {
            let (Some(ours), Some(theirs)) = (said(row, primary), said(row, &model)) else {
                continue;
            };
            let question = hash("question", row["messages"][0]["content"].as_str().unwrap());
            let mut kept = |side, answer: &Transcript| {
                let again = live.is_repeated(side, question, &answer.text);
                repeated += usize::from(again && side == Side::Candidate);
                Checks::default().with(Check::NotRepeated, Some(!again))
            };
            let (ours_kept, theirs_kept) =
                (kept(Side::Primary, &ours), kept(Side::Candidate, &theirs));
            let likeness = rouge_l(&ours.text, &theirs.text);
            answers += 1;
            tell(&mut ledger, at, (sample(ours_kept, None), sample(theirs_kept, likeness)), "");
        }
        let evidence = ledger.evidence();
        let [repeats, likeness] =
            [Metric::RepeatedRate, Metric::RougeL].map(|it| verdict(&evidence, it, ""));
        let mean = evidence.of(Metric::RougeL).unwrap().candidate;
        println!(
            "{model}: {repeated} of {answers} repeated: {}; ROUGE-L {mean:.3}: {}",
            repeats.as_str(),
            likeness.as_str()
        );
        let caught = repeats == Verdict::Breach;
        assert_eq!(caught, ["NullModel", "gpt4_gamed"].contains(&model.as_str()), "{model}");
        assert_eq!(repeated != 0, caught, "{model}");
        let honest = !["NullModel", "gpt4_gamed"].contains(&model.as_str());
        assert!(!honest || likeness != Verdict::Breach, "{model}");
        assert!(honest || likeness == Verdict::Breach, "{model}");
    }
}
