//! What was measured, by round, target and figure, and the tables made of it.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use crate::{
    load::Size,
    targets::{Candidate, NGINX_MIRROR_SECONDS, SLOW, Target, Via},
};

/// The columns of the tables.
const REQUESTS: [&str; 11] = [
    "mirrored",
    "requests/s",
    "÷ direct",
    "÷ floor",
    "÷ nginx",
    "CPU µs a request",
    "÷ floor",
    "÷ nginx",
    "added p50 ms",
    "added p99 ms",
    "memory MiB",
];
const STREAMS: [&str; 4] =
    ["first byte: added p50 ms", "added p99 ms", "later pieces: added p50 ms", "added p99 ms"];
const ILL: [&str; 5] =
    ["mirrored", "p50 ms", "p99 ms", "p50 ÷ mirroring off", "p99 ÷ mirroring off"];

/// One kind of number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// Requests a second of a closed loop.
    Throughput,
    /// CPU time of the program a request, in microseconds.
    Cpu,
    /// Requests to the candidate, in percent of those to the primary.
    Mirrored,
    /// Latency of whole answers, in milliseconds.
    P50,
    P99,
    /// Time to the first byte of a stream, in milliseconds.
    BegunP50,
    BegunP99,
    /// Time from the sending of a later piece of a stream to its arrival, in milliseconds.
    PieceP50,
    PieceP99,
    /// Resident memory after the load, in MiB.
    Memory,
    /// Cores that other programs used meanwhile.
    Others,
}

/// The numbers of one round.
pub(crate) type Round = BTreeMap<(Target, Figure), f64>;

/// All rounds.
pub(crate) struct Figures(pub(crate) Vec<Round>);

impl Figures {
    /// The tables, in Markdown.
    pub(crate) fn tables(&self, targets: &[Target]) -> String {
        let of = |size| {
            let answers = targets.iter().filter(|it| it.candidate == Candidate::Answers);
            answers.filter(move |it| it.size == size)
        };
        let streaming = of(Size::Small).filter(|it| it.via != Via::Direct);
        let ill = targets.iter().filter(|it| it.candidate != Candidate::Answers);
        let requests = |it: &Target| (name(*it), self.requests(*it));
        let tables = [
            table(&REQUESTS, "2 KB requests", of(Size::Small).map(requests)),
            table(&REQUESTS, "64 KB requests", of(Size::Large).map(requests)),
            table(&STREAMS, "streams", streaming.map(|it| (name(*it), self.streams(*it)))),
            table(
                &ILL,
                "the candidate, all mirrored",
                ill.map(|it| (ill_name(*it), self.ill(*it))),
            ),
        ];
        tables.into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    /// How many cores other programs used, in the middle of all visits.
    pub(crate) fn others(&self) -> Option<f64> {
        let visits = self.0.iter().flatten().filter(|((_, figure), _)| *figure == Figure::Others);
        median(visits.map(|(_, value)| *value))
    }

    fn requests(&self, target: Target) -> Vec<String> {
        let direct = target.direct();
        let floor = Target { via: Via::Floor, ..target };
        let nginx = Target { via: Via::Nginx, ..target };
        vec![
            percent(self.value(target, Figure::Mirrored)),
            number(self.value(target, Figure::Throughput), 0),
            number(self.ratio(target, direct, Figure::Throughput), 2),
            number(self.ratio(target, floor, Figure::Throughput), 2),
            number(self.ratio(target, nginx, Figure::Throughput), 2),
            number(self.value(target, Figure::Cpu), 1),
            number(self.ratio(target, floor, Figure::Cpu), 2),
            number(self.ratio(target, nginx, Figure::Cpu), 2),
            number(self.added(target, direct, Figure::P50), 2),
            number(self.added(target, direct, Figure::P99), 2),
            number(self.value(target, Figure::Memory), 0),
        ]
    }

    fn streams(&self, target: Target) -> Vec<String> {
        let figures = [Figure::BegunP50, Figure::BegunP99, Figure::PieceP50, Figure::PieceP99];
        let added = figures.map(|it| number(self.added(target, target.direct(), it), 2));
        added.into()
    }

    fn ill(&self, target: Target) -> Vec<String> {
        vec![
            percent(self.value(target, Figure::Mirrored)),
            number(self.value(target, Figure::P50), 2),
            number(self.value(target, Figure::P99), 2),
            number(self.ratio(target, target.off(), Figure::P50), 2),
            number(self.ratio(target, target.off(), Figure::P99), 2),
        ]
    }

    fn value(&self, target: Target, figure: Figure) -> Option<f64> {
        median(self.0.iter().filter_map(|it| it.get(&(target, figure)).copied()))
    }

    /// Both from the same round, because a machine is not equally fast in all of them.
    fn ratio(&self, target: Target, base: Target, figure: Figure) -> Option<f64> {
        self.both(target, base, figure, |it, base| it / base)
    }

    fn added(&self, target: Target, base: Target, figure: Figure) -> Option<f64> {
        self.both(target, base, figure, |it, base| it - base)
    }

    fn both(
        &self,
        target: Target,
        base: Target,
        figure: Figure,
        compare: fn(f64, f64) -> f64,
    ) -> Option<f64> {
        if target == base {
            return None;
        }
        median(self.0.iter().filter_map(|round| {
            Some(compare(*round.get(&(target, figure))?, *round.get(&(base, figure))?))
        }))
    }
}

/// Notes when so many percent of the answers were there.
pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let at = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(at).copied().unwrap_or_default()
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get(values.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

fn name(target: Target) -> String {
    match target.via {
        Via::Direct => "direct".to_owned(),
        Via::Floor => format!("floor, {} %", target.percent),
        Via::Nginx if target.percent == 0 => "nginx".to_owned(),
        Via::Nginx => format!("nginx `mirror`, {} %", target.percent),
        Via::Crossfade => format!("Crossfade, {} %", target.percent),
    }
}

fn ill_name(target: Target) -> String {
    let candidate = match target.candidate {
        Candidate::Answers => "answers".to_owned(),
        Candidate::Hangs => "hangs".to_owned(),
        Candidate::Slow => format!("answers after {} s", SLOW.as_secs()),
        Candidate::Dead => "refuses connections".to_owned(),
        Candidate::Fails => "fails (500)".to_owned(),
    };
    match target.via {
        Via::Nginx => {
            format!("{candidate}: nginx `mirror`, which gives up after {NGINX_MIRROR_SECONDS} s")
        }
        Via::Direct | Via::Floor | Via::Crossfade => format!("{candidate}: Crossfade"),
    }
}

/// A table with these columns; none without rows.
fn table(
    columns: &[&str],
    title: &str,
    rows: impl Iterator<Item = (String, Vec<String>)>,
) -> Option<String> {
    let mut text = String::new();
    for (name, cells) in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    let rule = "--:|".repeat(columns.len());
    let head = format!("| {title} | {} |\n|---|{rule}\n", columns.join(" | "));
    (!text.is_empty()).then(|| head + &text)
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |it| format!("{it:.digits$}"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |it| format!("{it:.0} %"))
}
