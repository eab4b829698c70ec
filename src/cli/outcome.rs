//! What a replay came to, as a document or for programs.

use serde_json::{Value, json};

use super::{
    audit::money,
    commands::Format,
    ladder,
    paper::{Column, Paper},
};
use crate::domain::Name;
use crate::golden::{Amount, Figures, LabelCount, Quality};

/// The figures of two providers, as asked for.
pub(super) fn told(figures: &Figures, set: &str, names: [&Name; 2], format: Format) -> String {
    match format {
        Format::Json => as_json(figures, set, names).to_string(),
        Format::Table | Format::Md => paper(figures, set, names).markdown(),
        Format::Html => paper(figures, set, names).html(),
    }
}

fn paper(figures: &Figures, set: &str, [primary, candidate]: [&Name; 2]) -> Paper {
    let mut paper = Paper::new(&format!("`{candidate}` against `{primary}` on `{set}`"));
    paper.text(&sentence(figures));
    if figures.both < figures.cases {
        paper.text(&format!(
            "Both answered {} of {} cases, and all of this is about those.",
            number(figures.both),
            number(figures.cases)
        ));
    }
    paper.heading("Quality");
    let head = [
        Column::Words("task"),
        Column::Words("measure"),
        Column::Numbers("cases"),
        Column::Numbers("primary"),
        Column::Numbers("candidate"),
        Column::Numbers("difference"),
        Column::Numbers("95% interval"),
    ];
    let all = figures.overall.iter().map(|it| quality("all", it));
    let each = figures.quality.iter().map(|it| quality(&it.task, it));
    let rows: Vec<Vec<String>> = all.chain(each).collect();
    if rows.is_empty() {
        paper.text("Nothing is expected of any answer, so there is nothing to measure it by.");
    }
    paper.table(&head, rows);
    labels(&mut paper, &figures.labels);
    paper.heading("Latency and cost");
    let head = [
        Column::Words("what"),
        Column::Numbers("cases"),
        Column::Numbers("primary"),
        Column::Numbers("candidate"),
        Column::Numbers("compared"),
        Column::Numbers("95% interval"),
    ];
    let rows = figures.latency.iter().map(latency).chain(figures.cost.iter().map(cost));
    paper.table(&head, rows.collect());
    if 0 < figures.estimated {
        paper.text(&format!(
            "Of {} cases a provider told no tokens: those, and their cost, are estimates.",
            number(figures.estimated)
        ));
    }
    if figures.cost.is_none() {
        paper.text("Cost is not known: no case has tokens and a price on both sides.");
    }
    paper
}

/// The answer first.
fn sentence(figures: &Figures) -> String {
    let Some(overall) = &figures.overall else {
        return "No answer is expected of any case.".to_owned();
    };
    let [primary, candidate] = overall.values.map(|it| percent(100.0 * it));
    let cost = figures.cost.as_ref().map_or_else(
        || "; its cost is not known".to_owned(),
        |it| format!(" at {} of the cost", percent(100.0 * it.compared)),
    );
    format!(
        "The candidate is right to {candidate} where the primary is to {primary}{cost}: {} with \
         95% confidence, over {} cases of which the answer is known.",
        points(overall.interval),
        number(overall.cases)
    )
}

fn quality(task: &str, quality: &Quality) -> Vec<String> {
    let [primary, candidate] = quality.values.map(|it| format!("{it:.3}"));
    vec![
        task.to_owned(),
        quality.measure.to_owned(),
        number(quality.cases),
        primary,
        candidate,
        format!("{:+.1} pp", 100.0 * quality.difference()),
        points(quality.interval),
    ]
}

fn labels(paper: &mut Paper, labels: &[LabelCount]) {
    if labels.is_empty() {
        return;
    }
    paper.heading("Labels");
    let head = [
        Column::Words("task"),
        Column::Words("label"),
        Column::Numbers("due"),
        Column::Numbers("primary: given"),
        Column::Numbers("right"),
        Column::Numbers("candidate: given"),
        Column::Numbers("right"),
    ];
    let row = |it: &LabelCount| {
        let LabelCount { task, label, expected, given, right } = it;
        let counts = [*expected, given[0], right[0], given[1], right[1]].map(number);
        [task.clone(), label.clone()].into_iter().chain(counts).collect()
    };
    paper.table(&head, labels.iter().map(row).collect());
}

fn latency(amount: &Amount) -> Vec<String> {
    let [primary, candidate] = amount.values.map(|it| format!("{it:.0} ms"));
    let interval = ends(amount.interval, |it| format!("{it:+.0}"), " ms");
    let (name, cases) = (format!("latency {}", amount.name), number(amount.cases));
    vec![name, cases, primary, candidate, format!("{:+.0} ms", amount.compared), interval]
}

fn cost(amount: &Amount) -> Vec<String> {
    let [primary, candidate] = amount.values.map(dollars);
    let interval = ends(amount.interval, |it| format!("{:.1}", 100.0 * it), "%");
    let cases = number(amount.cases);
    let compared = percent(100.0 * amount.compared);
    vec!["cost a request".to_owned(), cases, primary, candidate, compared, interval]
}

/// Billionths of a dollar, a mean, as dollars.
fn dollars(nano_usd: f64) -> String {
    // Whole billionths of what costs less than two billion dollars a request.
    format!("{nano_usd:.0}").parse().map_or_else(|_| "–".to_owned(), money)
}

fn percent(percent: f64) -> String {
    format!("{percent:.1}%")
}

fn points(interval: Option<[f64; 2]>) -> String {
    ends(interval, |it| format!("{:+.1}", 100.0 * it), " pp")
}

fn ends(interval: Option<[f64; 2]>, end: impl Fn(f64) -> String, unit: &str) -> String {
    let Some([lower, upper]) = interval else { return "too few cases".to_owned() };
    format!("[{}, {}]{unit}", end(lower), end(upper))
}

fn number(count: usize) -> String {
    ladder::count(i64::try_from(count).unwrap_or(i64::MAX))
}

/// The same for programs.
fn as_json(figures: &Figures, set: &str, [primary, candidate]: [&Name; 2]) -> Value {
    let sides =
        |[primary, candidate]: [usize; 2]| json!({"primary": primary, "candidate": candidate});
    let quality = |it: &Quality| {
        json!({
            "task": it.task, "measure": it.measure, "cases": it.cases,
            "primary": it.values[0], "candidate": it.values[1],
            "difference": it.difference(), "interval": it.interval,
        })
    };
    let amount = |it: &Amount| {
        json!({
            "cases": it.cases, "primary": it.values[0], "candidate": it.values[1],
            "compared": it.compared, "interval": it.interval,
        })
    };
    let label = |it: &LabelCount| {
        json!({
            "task": it.task, "label": it.label, "due": it.expected,
            "given": sides(it.given), "right": sides(it.right),
        })
    };
    let latency = figures.latency.iter().map(|it| (it.name.to_owned(), amount(it)));
    json!({
        "set": set,
        "primary": primary.as_str(),
        "candidate": candidate.as_str(),
        "cases": figures.cases,
        "answered": sides(figures.answered),
        "overall": figures.overall.as_ref().map(quality),
        "quality": figures.quality.iter().map(quality).collect::<Vec<_>>(),
        "labels": figures.labels.iter().map(label).collect::<Vec<_>>(),
        "latencyMs": latency.collect::<serde_json::Map<_, _>>(),
        "casesEstimated": figures.estimated,
        "costNanoUsd": figures.cost.as_ref().map(amount),
    })
}
