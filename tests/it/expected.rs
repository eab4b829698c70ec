//! What the gates say of every candidate of the recorded answers, beside what the recorded scores
//! say of it themselves. Skipped, saying so, where these are absent.

use std::{collections::BTreeMap, fs, sync::Arc};

use crossfade::analysis::{Ledger, Marks, News, Said};
use crossfade::domain::{Check, Checks, GateEvidence, Metric, Side, Timestamp, Verdict, hash};
use crossfade::traffic::{Copies, Live};
use serde_json::Value;

use crate::checked_data::{data, ledger, rows, said, sample, tell};

/// What the recorded scores or the gates say of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Pass,
    Fail,
    Open,
}

impl Word {
    fn expected(text: &str) -> Self {
        match text.split(':').next() {
            Some("pass") => Self::Pass,
            Some("fail") => Self::Fail,
            _ => Self::Open,
        }
    }

    fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Breach => Self::Fail,
            Verdict::Undecided | Verdict::Invalid => Self::Open,
        }
    }

    /// What the interval for who looks once says.
    fn once(gate: &GateEvidence) -> Self {
        match gate.fixed.unwrap() {
            [lower, _] if gate.bound <= lower => Self::Pass,
            [_, upper] if upper < gate.bound => Self::Fail,
            _ => Self::Open,
        }
    }

    fn is_opposite(self, other: Self) -> bool {
        self != Self::Open && other != Self::Open && self != other
    }
}

/// What was recorded of both answers, each 0 to 1. Where that is which one was preferred, the
/// primary is worth what an equal one is, as the expectations have it.
fn marks(row: &Value, primary: &str, candidate: &str) -> Option<(f64, f64)> {
    if let Some(better) = row["judge"]["by_model"][candidate]["pref"].as_f64() {
        return Some((0.5, better));
    }
    let of = |model: &str| {
        let right = |it: &Value| it.as_bool().map(|it| if it { 1.0 } else { 0.0 });
        let mark = &row["judge"]["by_model"][model];
        let mean = |scores: &Vec<Value>| {
            let sum: f64 = scores.iter().filter_map(Value::as_f64).sum();
            sum / f64::from(u32::try_from(scores.len()).unwrap()) / 10.0
        };
        let scored = mark["scores"].as_array().map(mean);
        let right = || right(&mark["correct"]).or_else(|| right(&row["verdict"][model]["valid"]));
        scored.or_else(right)
    };
    of(primary).zip(of(candidate))
}

/// A stage in which this candidate was copied everything, and the judge said what was recorded.
fn played(rows: &[Value], primary: &str, candidate: &str, slices: &str) -> Ledger {
    let mut ledger = ledger("judge_score = '>= 95%', repeated_rate = '+0.5pp'", slices);
    let live = Live::new(Arc::new(Copies::new(1, (0, 0))));
    for (at, row) in (1..).zip(rows) {
        let watched = row["category"].as_str().filter(|_| !slices.is_empty()).unwrap_or_default();
        let question = hash("question", &row["messages"].to_string());
        let kept = |side, model| {
            let answer = said(row, model)?;
            let again = live.is_repeated(side, question, &answer.text);
            Some(sample(Checks::default().with(Check::NotRepeated, Some(!again)), None))
        };
        let both = kept(Side::Primary, primary).zip(kept(Side::Candidate, candidate));
        // Of tool calls the words say nothing.
        if let Some(both) = both.filter(|_| slices.is_empty()) {
            tell(&mut ledger, at, both, watched);
        }
        if let Some((primary, candidate)) = marks(row, primary, candidate) {
            let (at, watched) = (Timestamp(at * 1_000), watched.to_owned());
            let said = Said::Score { watched, marks: Marks::unplaced(primary, candidate) };
            ledger.hear(&News { at, made: at, said });
        }
    }
    ledger
}

/// Asks the gates of one source, all of it or a slice, and sets them beside the expectation.
fn compare(
    (source, slice): (&str, &str),
    expected: &Value,
    ledgers: &BTreeMap<String, Ledger>,
    counts: &mut BTreeMap<[Word; 3], u32>,
) -> Vec<String> {
    let mut lines = Vec::new();
    for (candidate, ledger) in ledgers {
        let Some(of) = expected.get(candidate) else { continue };
        let word = Word::expected(of["expect"].as_str().unwrap());
        let evidence = ledger.evidence();
        let gate = |metric| {
            let gates = &evidence.gates;
            gates.iter().find(|it| it.metric == metric && it.watched == slice).unwrap()
        };
        let score = gate(Metric::JudgeScore);
        let repeats = Word::of(gate(Metric::RepeatedRate).verdict);
        let said = Word::of(score.verdict);
        // Any gate that is broken refuses.
        let all = if repeats == Word::Fail { Word::Fail } else { said };
        let once = if repeats == Word::Fail { Word::Fail } else { Word::once(score) };
        lines.push(format!(
            "{source}/{slice} {candidate}: {}; expected {word:?}, gates {all:?}, once {once:?} \
             (judge {said:?})",
            score.figures()
        ));
        *counts.entry([word, all, once]).or_default() += 1;
        assert!(!word.is_opposite(all), "{source}/{slice} {candidate}");
        assert!(word != Word::Open || all != Word::Pass, "{source}/{slice} {candidate}");
        if all == Word::Open {
            assert!(!word.is_opposite(once), "{source}/{slice} {candidate}");
        }
    }
    lines
}

#[test]
fn no_candidate_is_called_the_opposite_of_what_its_scores_say() {
    let Ok(text) = fs::read_to_string(data().join("answers.json")) else { return };
    let expected: Value = serde_json::from_str(&text).unwrap();
    let mut counts = BTreeMap::new();
    for (source, file) in [
        ("alpaca", "pairs/alpaca.jsonl"),
        ("mtbench", "pairs/mtbench.jsonl"),
        ("gsm8k", "pairs/gsm8k.jsonl"),
        ("bfcl", "tools/bfcl.jsonl"),
    ] {
        let rows = rows(file);
        let expected = expected.as_object().unwrap();
        let tasks: Vec<&str> =
            expected.keys().filter_map(|it| it.strip_prefix(source)?.strip_prefix('/')).collect();
        let slices = if tasks.is_empty() {
            String::new()
        } else {
            format!("slices = {{ by = 'task', values = {tasks:?} }}")
        };
        let primary = expected[source]["primary"].as_str().unwrap();
        let candidates = expected[source].as_object().unwrap();
        let candidates = candidates.iter().filter(|(_, it)| it.is_object());
        let ledgers =
            candidates.map(|(it, _)| (it.clone(), played(&rows, primary, it, &slices))).collect();
        let mut lines = compare((source, ""), &expected[source], &ledgers, &mut counts);
        for task in tasks {
            let of = &expected[&format!("{source}/{task}")];
            lines.extend(compare((source, task), of, &ledgers, &mut counts));
        }
        println!("{}", lines.join("\n"));
    }
    println!("expected, by the gates, by the interval for who looks once: candidates");
    for ([expected, told, once], count) in &counts {
        println!("{expected:?}, {told:?}, {once:?}: {count}");
    }
}
