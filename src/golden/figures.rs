//! Quality, latency and cost of two providers side by side, over the cases that both answered.

use crate::analysis::{paired_difference, resampled};
use crate::dialect::Schemas;
use crate::store::Answered;

use super::{
    Case, Set,
    marks::{Marked, Measure, marked},
};

/// Fewest cases of which a 99th percentile has an interval: among fewer there may be none above it.
const P99_CASES_MIN: usize = 400;

/// A case, and what both providers made of it.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// The case.
    pub case: &'a Case,
    /// What they answered; none where there is no answer yet.
    pub answers: [Option<&'a Answered>; 2],
}

/// What the answers come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Cases of the set.
    pub cases: usize,
    /// Cases that each has answered.
    pub answered: [usize; 2],
    /// Cases that both have answered: all below is about them.
    pub both: usize,
    /// Over all of these of which an answer is expected: the least mark of each; none without any.
    pub overall: Option<Quality>,
    /// For each task and measure.
    pub quality: Vec<Quality>,
    /// For each task and label.
    pub labels: Vec<LabelCount>,
    /// Milliseconds to the last byte: the median and the 99th percentile, candidate minus primary.
    pub latency: Vec<Amount>,
    /// Billionths of a dollar a request, candidate in parts of the primary; none where no case has
    /// a known cost on both sides.
    pub cost: Option<Amount>,
    /// Cases of which one side's tokens, and so what they cost, are an estimate of ours.
    pub estimated: usize,
}

/// Marks of both sides. Values are means of marks, 0 to 1, or F1.
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// The task; empty when unmarked.
    pub task: String,
    /// What is measured.
    pub measure: &'static str,
    /// Cases.
    pub cases: usize,
    /// The primary's value and the candidate's.
    pub values: [f64; 2],
    /// The 95% interval of candidate minus primary; none where there are too few.
    pub interval: Option<[f64; 2]>,
}

/// How often a label was due, given, and both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelCount {
    /// The task.
    pub task: String,
    /// The label.
    pub label: String,
    /// Cases of which it is expected.
    pub expected: usize,
    /// Cases to which each side gave it.
    pub given: [usize; 2],
    /// Cases to which each side gave it, and rightly.
    pub right: [usize; 2],
}

/// An amount of both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Amount {
    /// What it is.
    pub name: &'static str,
    /// Cases in which it is known on both sides.
    pub cases: usize,
    /// The primary's and the candidate's.
    pub values: [f64; 2],
    /// How they compare.
    pub compared: f64,
    /// The 95% interval of that; none where there are too few.
    pub interval: Option<[f64; 2]>,
}

/// A case that both have answered.
struct Pair<'a> {
    case: &'a Case,
    answers: [&'a Answered; 2],
    marked: [Marked; 2],
}

impl Quality {
    /// Candidate minus primary.
    pub fn difference(&self) -> f64 {
        let [primary, candidate] = self.values;
        candidate - primary
    }
}

impl Figures {
    /// What these answers to a set come to.
    pub fn of(set: &Set, rows: &[Row<'_>]) -> Self {
        let answered =
            [0, 1].map(|side: usize| rows.iter().filter(|it| it.answers[side].is_some()).count());
        let pairs = pairs(set, rows);
        let mut tasks: Vec<&str> = pairs.iter().map(|it| it.case.task.as_str()).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let (mut quality, mut labels) = (Vec::new(), Vec::new());
        for task in tasks {
            let of: Vec<&Pair<'_>> = pairs.iter().filter(|it| it.case.task == task).collect();
            quality.extend(
                measures(&of)
                    .into_iter()
                    .filter_map(|it| mean(&of, (task, it.as_str()), |marked| marked.mark(it))),
            );
            let told = Told::of(&of, set.labels(task));
            quality.extend(told.f1(task));
            labels.extend(told.counts(task));
        }
        let all: Vec<&Pair<'_>> = pairs.iter().collect();
        Self {
            cases: rows.len(),
            answered,
            both: pairs.len(),
            overall: mean(&all, ("", "worst"), Marked::least),
            quality,
            labels,
            latency: latency(&pairs),
            cost: cost(&pairs),
            estimated: pairs
                .iter()
                .filter(|it| it.answers.iter().any(|it| it.call.estimated))
                .count(),
        }
    }
}

fn pairs<'a>(set: &Set, rows: &[Row<'a>]) -> Vec<Pair<'a>> {
    let known = Schemas::default();
    let mut labels: Vec<(&str, Vec<String>)> = Vec::new();
    let mut pairs = Vec::new();
    for Row { case, answers } in rows {
        let [Some(primary), Some(candidate)] = *answers else { continue };
        if !labels.iter().any(|(task, _)| *task == case.task) {
            labels.push((&case.task, set.labels(&case.task)));
        }
        let of = labels.iter().find(|(task, _)| *task == case.task);
        let of = of.map_or(&[][..], |(_, labels)| labels);
        let answers = [primary, candidate];
        let marked = answers.map(|it| marked(case, of, it.transcript.as_ref(), &known));
        pairs.push(Pair { case, answers, marked });
    }
    pairs
}

/// What is measured in some of these, in a fixed order.
fn measures(pairs: &[&Pair<'_>]) -> Vec<Measure> {
    let marks = pairs.iter().flat_map(|it| &it.marked[0].marks);
    let mut measures: Vec<Measure> = marks.map(|(measure, _)| *measure).collect();
    measures.sort();
    measures.dedup();
    measures
}

/// The means of both sides' marks; none where nothing is marked.
fn mean(
    pairs: &[&Pair<'_>],
    (task, measure): (&str, &'static str),
    mark: impl Fn(&Marked) -> Option<f64>,
) -> Option<Quality> {
    let both = |it: &&Pair<'_>| Some([mark(&it.marked[0])?, mark(&it.marked[1])?]);
    let marks: Vec<[f64; 2]> = pairs.iter().filter_map(both).collect();
    let values = means(&marks)?;
    let differences: Vec<f64> = marks.iter().map(|[one, other]| other - one).collect();
    let (cases, interval) = (marks.len(), Some(paired_difference(&differences)));
    Some(Quality { task: task.to_owned(), measure, cases, values, interval })
}

fn means(values: &[[f64; 2]]) -> Option<[f64; 2]> {
    let count = u32::try_from(values.len()).ok().filter(|it| 0 < *it)?;
    Some([0, 1].map(|side: usize| values.iter().map(|it| it[side]).sum::<f64>() / f64::from(count)))
}

/// The labels that are due and that both sides give, as places among those there are.
struct Told {
    labels: Vec<String>,
    rows: Vec<(usize, [Option<usize>; 2])>,
}

impl Told {
    fn of(pairs: &[&Pair<'_>], labels: Vec<String>) -> Self {
        let place = |label: &str| labels.iter().position(|it| it == label);
        let row = |it: &&Pair<'_>| {
            let due = place(&it.case.expected.label.as_ref()?.to_lowercase())?;
            let given = it.marked.each_ref().map(|it| place(it.label.as_ref()?));
            Some((due, given))
        };
        Self { rows: pairs.iter().filter_map(row).collect(), labels }
    }

    /// How often each label was due among these rows, and given by a side, and both.
    fn tallies(&self, drawn: impl Iterator<Item = usize>, side: usize) -> Vec<[u32; 3]> {
        let mut tallies = vec![[0; 3]; self.labels.len()];
        for (due, given) in drawn.map(|it| self.rows[it]) {
            tallies[due][0] += 1;
            if let Some(given) = given[side] {
                tallies[given][1] += 1;
                tallies[given][2] += u32::from(given == due);
            }
        }
        tallies
    }

    /// The mean over labels of the harmonic mean of precision and recall. A label that is neither
    /// due nor given does not count.
    fn macro_f1(&self, drawn: impl Iterator<Item = usize>, side: usize) -> Option<f64> {
        let seen = self.tallies(drawn, side).into_iter().filter(|[due, given, _]| 0 < due + given);
        let each: Vec<f64> = seen
            .map(|[due, given, right]| 2.0 * f64::from(right) / f64::from(due + given))
            .collect();
        let count = u32::try_from(each.len()).ok().filter(|it| 0 < *it)?;
        Some(each.iter().sum::<f64>() / f64::from(count))
    }

    fn f1(&self, task: &str) -> Option<Quality> {
        let all = || 0..self.rows.len();
        let values = [self.macro_f1(all(), 0)?, self.macro_f1(all(), 1)?];
        let interval = resampled(self.rows.len(), |drawn| {
            let drawn = || drawn.iter().copied();
            Some(self.macro_f1(drawn(), 1)? - self.macro_f1(drawn(), 0)?)
        });
        let (task, cases) = (task.to_owned(), self.rows.len());
        Some(Quality { task, measure: "macro_f1", cases, values, interval })
    }

    fn counts(&self, task: &str) -> Vec<LabelCount> {
        let sides = [0, 1].map(|side| self.tallies(0..self.rows.len(), side));
        let size = |it: u32| usize::try_from(it).unwrap_or(usize::MAX);
        let count = |(place, label): (usize, &String)| {
            let of = |what: usize| sides.each_ref().map(|it| size(it[place][what]));
            let (task, label) = (task.to_owned(), label.clone());
            LabelCount { task, label, expected: of(0)[0], given: of(1), right: of(2) }
        };
        self.labels.iter().enumerate().map(count).filter(|it| 0 < it.expected).collect()
    }
}

fn latency(pairs: &[Pair<'_>]) -> Vec<Amount> {
    let ms = |it: &Pair<'_>| it.answers.map(|it| f64::from(it.call.total_ms));
    let times: Vec<[f64; 2]> = pairs.iter().map(ms).collect();
    let amount = |(name, percent, cases_min): (&'static str, usize, usize)| {
        let values = |drawn: &mut dyn Iterator<Item = usize>| {
            let drawn: Vec<usize> = drawn.collect();
            let of = |side: usize| percentile(drawn.iter().map(|it| times[*it][side]), percent);
            Some([of(0)?, of(1)?])
        };
        let found = values(&mut (0..times.len()))?;
        let enough = Some(times.len()).filter(|it| cases_min <= *it);
        let interval = enough.and_then(|len| {
            resampled(len, |drawn| {
                let [primary, candidate] = values(&mut drawn.iter().copied())?;
                Some(candidate - primary)
            })
        });
        let compared = found[1] - found[0];
        Some(Amount { name, cases: times.len(), values: found, compared, interval })
    };
    [("p50", 50, 1), ("p99", 99, P99_CASES_MIN)].into_iter().filter_map(amount).collect()
}

/// The least value that so many percent of all are not above.
fn percentile(values: impl Iterator<Item = f64>, percent: usize) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    let place = (values.len() * percent).div_ceil(100).checked_sub(1)?;
    let (_, found, _) = values.select_nth_unstable_by(place, f64::total_cmp);
    Some(*found)
}

fn cost(pairs: &[Pair<'_>]) -> Option<Amount> {
    let known = |it: &Pair<'_>| {
        let [primary, candidate] = it.answers.map(|it| it.call.cost_nano_usd);
        // A sum of no single call comes near to what a float tells apart.
        let nano = |it: u64| {
            Some(
                f64::from(u32::try_from(it / 1_000).ok()?) * 1_000.0
                    + f64::from(u32::try_from(it % 1_000).ok()?),
            )
        };
        Some([nano(primary?)?, nano(candidate?)?])
    };
    let costs: Vec<[f64; 2]> = pairs.iter().filter_map(known).collect();
    let ratio = |drawn: &[usize]| {
        let sum = |side: usize| drawn.iter().map(|it| costs[*it][side]).sum::<f64>();
        Some(sum(1) / sum(0)).filter(|it| it.is_finite())
    };
    let all: Vec<usize> = (0..costs.len()).collect();
    let (values, compared) = (means(&costs)?, ratio(&all)?);
    let interval = resampled(costs.len(), ratio);
    Some(Amount { name: "cost", cases: costs.len(), values, compared, interval })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Call, Checks, Outcome, Transcript};

    fn answered(text: &str, total_ms: u32, cost_nano_usd: Option<u64>) -> Answered {
        let call = Call {
            provider: "a".parse().unwrap(),
            model: None,
            status: 200,
            outcome: Outcome::Ok,
            first_byte_ms: None,
            total_ms,
            usage: None,
            finish_reason: None,
            cost_nano_usd,
            checks: Checks::default(),
            answer_chars: None,
            rouge_l_bps: None,
            estimated: false,
        };
        let transcript = Transcript { text: text.to_owned(), ..Transcript::default() };
        Answered { call, transcript: Some(transcript) }
    }

    /// What comes of cases of a task: what is expected, and what both said.
    fn figures(cases: &[(&str, &str, [&str; 2])]) -> Figures {
        let line = |(index, (task, expected, _)): (usize, &(&str, &str, [&str; 2]))| {
            format!(
                "{{\"id\":\"{index}\",\"task\":\"{task}\",\"model\":\"m\",\"messages\":[],\
                 \"expected\":{expected}}}\n"
            )
        };
        let text: String = cases.iter().enumerate().map(line).collect();
        let set = Set::parse(&text).unwrap();
        let said: Vec<[Answered; 2]> =
            cases.iter().map(|(_, _, said)| said.map(|it| answered(it, 5, None))).collect();
        let rows = set.cases.iter().zip(&said);
        let rows: Vec<Row<'_>> = rows
            .map(|(case, [one, other])| Row { case, answers: [Some(one), Some(other)] })
            .collect();
        Figures::of(&set, &rows)
    }

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
    }

    /// By hand, of the primary: spam due 3, given 3, right 2: 2·2/6; ham due 2, given 1, right 1:
    /// 2/3; eggs due 1, given 1, right 1 (one answer is no label).
    #[test]
    fn accuracy_and_f1_are_those_of_the_confusion_matrix() {
        let due = ["spam", "spam", "spam", "ham", "ham", "eggs"];
        let ours = ["spam", "SPAM.", "no idea", "ham", "spam", "eggs"];
        let cases: Vec<_> = due
            .iter()
            .zip(ours)
            .map(|(due, said)| {
                let expected = format!("{{\"label\":\"{due}\"}}");
                (expected, [said, "spam"])
            })
            .collect();
        let cases: Vec<_> = cases.iter().map(|(due, said)| ("mail", due.as_str(), *said)).collect();
        let figures = figures(&cases);
        let [accuracy, f1] = &figures.quality[..] else { panic!("{figures:?}") };
        assert_eq!(
            (accuracy.measure, f1.measure, f1.task.as_str()),
            ("accuracy", "macro_f1", "mail")
        );
        near(accuracy.values[0], 4.0 / 6.0);
        near(accuracy.values[1], 0.5);
        near(f1.values[0], (2.0 / 3.0 + 2.0 / 3.0 + 1.0) / 3.0);
        // All is spam: 2·3/9, and nothing else is ever right.
        near(f1.values[1], (2.0 / 3.0) / 3.0);
        assert!(
            f1.difference() < 0.0 && f1.interval.is_some_and(|[lower, _]| lower < f1.difference())
        );
        let spam = &figures.labels[2];
        assert_eq!((spam.label.as_str(), spam.expected), ("spam", 3));
        assert_eq!((spam.given, spam.right), ([3, 6], [2, 3]));
    }

    #[test]
    fn each_task_is_told_apart_and_all_of_them_by_the_worst_of_each_answer() {
        let figures = figures(&[
            ("a", r#"{"exact":"1"}"#, ["1", "2"]),
            ("a", r#"{"exact":"1","text":"1 2"}"#, ["1", "1 2"]),
            ("b", r#"{"exact":"1"}"#, ["1", "1"]),
            ("c", "{}", ["1", "2"]),
        ]);
        let told: Vec<_> =
            figures.quality.iter().map(|it| (it.task.as_str(), it.measure, it.cases)).collect();
        assert_eq!(told, [("a", "rouge_l", 1), ("a", "exact_match", 2), ("b", "exact_match", 1)]);
        let overall = figures.overall.unwrap();
        assert_eq!((overall.cases, figures.both), (3, 4));
        // Of the second answer the primary's worst is ROUGE-L, 2·1/3; the candidate's that it is not
        // word for word.
        near(overall.values[0], (1.0 + 0.6666 + 1.0) / 3.0);
        near(overall.values[1], 1.0 / 3.0);
    }

    #[test]
    fn only_what_both_answered_is_compared() {
        let line = |id: &str| {
            format!(
                "{{\"id\":\"{id}\",\"model\":\"m\",\"messages\":[],\"expected\":{{\"exact\":\"1\"}}}}\n"
            )
        };
        let set = Set::parse(&(line("a") + &line("b") + &line("c"))).unwrap();
        let (right, wrong) = (answered("1", 100, Some(2_000)), answered("2", 300, Some(500)));
        let cases = &set.cases;
        let rows = [
            Row { case: &cases[0], answers: [Some(&right), None] },
            Row { case: &cases[1], answers: [Some(&right), Some(&wrong)] },
            Row { case: &cases[2], answers: [None, Some(&wrong)] },
        ];
        let figures = Figures::of(&set, &rows);
        assert_eq!((figures.cases, figures.answered, figures.both), (3, [2, 2], 1));
        let overall = figures.overall.unwrap();
        assert_eq!((overall.cases, overall.values), (1, [1.0, 0.0]));
        let cost = figures.cost.unwrap();
        assert_eq!(
            (cost.values, cost.compared, cost.interval),
            ([2_000.0, 500.0], 0.25, Some([0.25; 2]))
        );
        let [median, p99] = &figures.latency[..] else { panic!() };
        assert_eq!(
            (median.values, median.compared, median.interval),
            ([100.0, 300.0], 200.0, Some([200.0; 2]))
        );
        assert_eq!((p99.compared, p99.interval), (200.0, None));
        assert_eq!(Figures::of(&set, &rows[..1]).cost, None);
    }

    #[test]
    fn a_percentile_is_the_least_value_that_so_many_are_not_above() {
        let of = |len: u32, percent| percentile((1..=len).map(f64::from), percent);
        let found = [of(100, 99), of(101, 99), of(4, 50), of(5, 50), of(1, 99)];
        assert_eq!(found, [99.0, 100.0, 2.0, 3.0, 1.0].map(Some));
        assert_eq!(of(0, 50), None);
    }
}
