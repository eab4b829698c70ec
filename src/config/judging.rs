//! How the judge judges: by which criteria, in which orders, and what it is tried on.

use std::path::Path;

use serde::Deserialize;

use crate::domain::Winner;

use super::{
    form::{Form, SOME, Unit, read_bounded},
    table::Table,
};

/// Most criteria of a rubric.
const CRITERIA_LEN_MAX: usize = 8;
/// Longest name of a criterion, in bytes.
const CRITERION_LEN_MAX: usize = 32;
/// Longest meaning of one, in letters.
const MEANS_LEN_MAX: usize = 300;
/// Least and most rows of a calibration set.
const ROWS_LEN_MIN: usize = 8;
const ROWS_LEN_MAX: usize = 200;
/// Largest file of them, in bytes, and longest text in it.
const SET_BYTES_MAX: u64 = 4 << 20;
const TEXT_LEN_MAX: usize = 24_000;
const HOUR_MS: u64 = 3_600_000;

/// One thing that answers are marked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criterion {
    /// Its name: small letters and `_`.
    pub name: String,
    /// What the judge is told that it means.
    pub means: String,
    /// How much it counts beside the others.
    pub weight: u32,
}

/// What the judge is shown at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Both answers of a pair.
    Pairwise(Orders),
    /// Each answer alone.
    Pointwise,
}

/// In which orders the judge is shown the answers of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orders {
    /// In both.
    Both,
    /// In one, drawn by lot.
    One,
}

/// What the judge is tried on.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// Questions of which it is known which answer is better.
    pub rows: Vec<Row>,
    /// How often it is asked all of them, in milliseconds.
    pub every_ms: u64,
}

/// A question with two answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The question.
    pub question: String,
    /// Its answers.
    pub answers: [String; 2],
    /// Which is the better one.
    pub better: Winner,
    /// A good answer, for the judge to go by.
    pub reference: Option<String>,
}

const MEANS: Form<String> = Form {
    name: "a meaning",
    remedy: "say what it asks of an answer in 1 to 300 letters on one line, like \"is it right?\"",
    read: |text| {
        let fits = !text.trim().is_empty() && text.chars().count() <= MEANS_LEN_MAX;
        (fits && !text.contains(char::is_control)).then(|| text.to_owned())
    },
};

/// The criteria, in the order of the file.
pub(super) fn rubric(judge: &Table<'_>) -> Vec<Criterion> {
    const REMEDY: &str =
        "write 1 to 8 lines like accuracy = { means = \"is it right?\", weight = 2 }";
    if !judge.has("rubric") {
        let criterion = |(name, means): (&str, &str)| Criterion {
            name: name.to_owned(),
            means: means.to_owned(),
            weight: 1,
        };
        let usual = [
            ("accuracy", "is it right and complete?"),
            ("relevance", "does it answer what was asked?"),
            ("tone", "does it fit the conversation?"),
        ];
        return usual.map(criterion).to_vec();
    }
    let plain = |it: char| it.is_ascii_lowercase() || it == '_';
    let read = |((name, spot), table): ((&str, _), Table<'_>)| {
        if !name.chars().all(plain) || CRITERION_LEN_MAX < name.len() {
            judge.fault_at(Some(&spot), name, "is no criterion", "use 1 to 32 of a-z and `_`");
        }
        table.need("means", MEANS.remedy);
        let criterion = Criterion {
            name: name.to_owned(),
            means: table.text("means", &MEANS).unwrap_or_default(),
            weight: table.amount("weight", Unit::Count, 1..=100).unwrap_or(1),
        };
        table.close();
        criterion
    };
    let criteria: Vec<Criterion> = judge.named("rubric").into_iter().map(read).collect();
    if !(1..=CRITERIA_LEN_MAX).contains(&criteria.len()) {
        judge.fault("rubric", &format!("has {} criteria", criteria.len()), REMEDY);
    }
    criteria
}

/// What the judge is shown at a time: both answers of a pair in both orders, if nothing else is said.
pub(super) fn asking(judge: &Table<'_>) -> Asking {
    let orders = judge.word("orders", &[("both", Orders::Both), ("one", Orders::One)]);
    let pairwise = Asking::Pairwise(orders.unwrap_or(Orders::Both));
    let modes = [("pairwise", pairwise), ("pointwise", Asking::Pointwise)];
    let asking = judge.word("mode", &modes).unwrap_or(pairwise);
    if asking == Asking::Pointwise && judge.has("orders") {
        let problem = "stands beside `mode = \"pointwise\"`, which shows one answer at a time";
        judge.fault("orders", problem, "leave one of them out");
    }
    asking
}

/// What the judge is tried on, if anything.
pub(super) fn calibration(judge: &Table<'_>) -> Option<Calibration> {
    const REMEDY: &str = "name a file with 8 to 200 lines like {\"question\": \"…\", \"a\": \"…\", \
                          \"b\": \"…\", \"better\": \"a\"}; `better` is \"a\", \"b\" or \"tie\"; a \
                          `reference`, a good answer, may stand beside them";
    let table = judge.table("calibration")?;
    table.need("file", REMEDY);
    let file = table.text("file", &SOME);
    let every = table.amount("every", Unit::Millis, 60_000..=720 * HOUR_MS);
    table.close();
    match rows(&file?) {
        Ok(rows) => Some(Calibration { rows, every_ms: every.unwrap_or(6 * HOUR_MS) }),
        Err(problem) => {
            table.fault("file", &problem, REMEDY);
            None
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    question: String,
    a: String,
    b: String,
    better: Better,
    reference: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Better {
    A,
    B,
    Tie,
}

/// The rows of a file, or what is wrong with it: it may say things that are not to be shown.
fn rows(file: &str) -> Result<Vec<Row>, String> {
    let text = read_bounded(Path::new(file), SET_BYTES_MAX)
        .map_err(|error| format!("refers to a file that cannot be read: {error}"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(place, line): (usize, &str)| {
        let row: Line = serde_json::from_str(line)
            .map_err(|_| format!("has a line that is no row, number {}", place + 1))?;
        let texts = [&row.question, &row.a, &row.b].into_iter().chain(&row.reference);
        if texts.into_iter().any(|it| TEXT_LEN_MAX < it.len()) {
            return Err(format!("has a text of more than 24,000 bytes in line {}", place + 1));
        }
        let better = match row.better {
            Better::A => Winner::First,
            Better::B => Winner::Second,
            Better::Tie => Winner::Tie,
        };
        let (question, answers, reference) = (row.question, [row.a, row.b], row.reference);
        Ok(Row { question, answers, better, reference })
    };
    let rows: Vec<Row> = lines.map(read).collect::<Result<_, _>>()?;
    if !(ROWS_LEN_MIN..=ROWS_LEN_MAX).contains(&rows.len()) {
        return Err(format!("has {} rows", rows.len()));
    }
    // Of a set with one kind of winner nobody can say how much of the agreement is chance.
    if [Winner::First, Winner::Second]
        .iter()
        .any(|wanted| rows.iter().all(|it| it.better != *wanted))
    {
        return Err("has no row where `a`, or none where `b` is the better one".to_owned());
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::config::tests::{faults_below, parse};

    fn judge(lines: &str) -> crate::config::Judge {
        let providers = crate::config::tests::PROVIDERS;
        let text = format!("{providers}[judge]\nmodel = 'm'\nbase_url = 'http://c'\n{lines}");
        parse(&text).unwrap().judge.unwrap()
    }

    fn told(lines: &str) -> String {
        faults_below(&format!("[judge]\nmodel = 'm'\nbase_url = 'http://c'\n{lines}"))
    }

    #[test]
    fn a_rubric_has_a_few_criteria_with_meanings_and_weights() {
        let names = |lines: &str| {
            let rubric = judge(lines).rubric;
            rubric.iter().map(|it| format!("{}*{}", it.name, it.weight)).collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["accuracy*1", "relevance*1", "tone*1"]);
        let own = "[judge.rubric]\nsafe_advice = { means = 'is it safe?', weight = 3 }\n\
                   brevity = { means = 'is it short?' }\n";
        assert_eq!(names(own), ["safe_advice*3", "brevity*1"]);
        let many: String = ('a'..='i').fold("[judge.rubric]\n".to_owned(), |mut text, name| {
            let _ = writeln!(text, "{name} = {{ means = 'x' }}");
            text
        });
        let long = format!("[judge.rubric]\na = {{ means = '{}' }}", "x".repeat(301));
        for (lines, problem) in [
            (many.as_str(), "`rubric` in [judge] has 9 criteria"),
            ("rubric = {}", "`rubric` in [judge] has 0 criteria"),
            ("[judge.rubric]\nA1 = { means = 'x' }", "`A1` in [judge] is no criterion"),
            ("[judge.rubric]\na = { weight = 1 }", "`means` is missing in [judge.rubric.a]"),
            ("[judge.rubric]\na = { means = 'x', weight = 0 }", "`weight` in [judge.rubric.a]"),
            (&long, "`means` in [judge.rubric.a] is not a meaning"),
        ] {
            let told = told(lines);
            assert!(told.contains(problem), "{told}");
        }
    }

    #[test]
    fn both_orders_are_asked_unless_another_way_is_wanted() {
        assert_eq!(judge("").asking, Asking::Pairwise(Orders::Both));
        assert_eq!(judge("orders = 'one'").asking, Asking::Pairwise(Orders::One));
        assert_eq!(judge("mode = 'pointwise'").asking, Asking::Pointwise);
        let told = told("mode = 'pointwise'\norders = 'both'");
        assert!(told.contains("`orders` in [judge] stands beside"), "{told}");
    }

    #[test]
    fn a_judge_never_stands_alone() {
        let rollout = |judge: &str, gates: &str| {
            let providers = crate::config::tests::PROVIDERS;
            let judge = judge.replace("JUDGE", "[judge]\nmodel = 'm'\nbase_url = 'http://c'");
            format!("{providers}{judge}\n[rollout.chat]\ncandidate = 'b'\n{gates}")
        };
        let gates = |judge: &str, gates: &str| {
            let plan = parse(&rollout(judge, gates)).unwrap().rollouts.remove(0).plan;
            let metrics = plan.stages[0].gates.iter().map(|it| it.metric().as_str());
            metrics.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(gates("JUDGE", ""), "error_rate latency_p99 judge_score repeated_rate");
        assert_eq!(gates("", ""), "error_rate latency_p99");
        let off = "gates = { judge_score = 'off' }";
        assert_eq!(gates("JUDGE", off), "error_rate latency_p99");
        let kept = "gates = { judge_score = 'off', repeated_rate = '+1pp' }";
        assert_eq!(gates("JUDGE", kept), "error_rate latency_p99 repeated_rate");
        let other =
            "gates = { repeated_rate = 'off', feedback = '>= 90%', schema_valid_rate = '-1pp' }";
        let fine = "error_rate latency_p99 judge_score schema_valid_rate feedback";
        assert_eq!(gates("JUDGE", other), fine);
        for alone in [
            "gates = { repeated_rate = 'off' }",
            "stage = [{ name = 's', serve = '0%', duration = '1s', prove = ['judge_score'] }]",
        ] {
            let told = parse(&rollout("JUDGE", alone)).expect_err(alone).to_string();
            assert!(told.contains("let the judge alone prove"), "{told}");
            assert!(told.contains("like repeated_rate = \"+0.5pp\""), "{told}");
        }
    }

    #[test]
    fn a_calibration_set_is_checked_before_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let row = |better: &str| {
            format!("{{\"question\":\"q\",\"a\":\"1\",\"b\":\"2\",\"better\":\"{better}\"}}\n")
        };
        let lines = |text: &str| {
            let file = dir.path().join("set.jsonl");
            std::fs::write(&file, text).unwrap();
            format!("calibration = {{ file = '{}' }}", file.display())
        };
        let set = judge(&lines(&(row("a").repeat(7) + "\n" + &row("b")))).calibration.unwrap();
        assert_eq!((set.rows.len(), set.every_ms), (8, 6 * HOUR_MS));
        assert_eq!((set.rows[7].better, &set.rows[7].reference), (Winner::Second, &None));
        let known = row("b").replace('}', ",\"reference\":\"3\"}");
        let set = judge(&lines(&(row("a").repeat(7) + &known))).calibration.unwrap();
        assert_eq!(set.rows[7].reference.as_deref(), Some("3"));
        let secret = row("a").repeat(8) + "{\"question\": \"Ann Lee\"}";
        for (text, problem) in [
            (row("a").repeat(4), "has 4 rows"),
            (row("a").repeat(8), "none where `b` is the better one"),
            (secret, "has a line that is no row, number 9"),
            (row("a").repeat(7) + &row(&"x".repeat(9)), "has a line that is no row, number 8"),
        ] {
            let told = told(&lines(&text));
            assert!(told.contains(problem) && !told.contains("Ann Lee"), "{told}");
        }
        let told = told("calibration = { file = 'tests/golden/none' }");
        assert!(told.contains("refers to a file that cannot be read"), "{told}");
    }
}
