//! The calibration set: what a judge made of rows whose winner is known.

use crate::analysis::kappa;
use crate::domain::Winner;

/// Cohen's kappa with the known winners that a judge must reach: what Landis and Koch (1977,
/// Biometrics 33, 159-174) call substantial.
pub(super) const KAPPA_MIN: f64 = 0.6;
/// How far its marks may move from those of its first run on the same rows, 0 to 1, on average.
const DRIFT_MAX: f64 = 0.1;
/// One in so many rows may be left without marks.
const UNREAD_ONE_IN: usize = 20;

/// A row of the calibration set, and what the judge made of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tried {
    /// Which answer is the better one.
    pub expected: Winner,
    /// Its marks, 0 to 1; none where it gave none.
    pub marks: Option<[f64; 2]>,
}

/// What a run of the calibration set came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibrated {
    /// The judge that was asked.
    pub source: String,
    /// Rows, those with marks, and those of them with the expected winner.
    pub rows: usize,
    /// See `rows`.
    pub read: usize,
    /// See `rows`.
    pub agreed: usize,
    /// Agreement with the expected winners beyond chance, -1 to 1.
    pub kappa: f64,
    /// Mean distance of its marks from those of its first run on the same rows, 0 to 1.
    pub drift: f64,
}

impl Calibrated {
    /// Whether as many rows were marked as it takes to tell.
    pub fn is_whole(&self) -> bool {
        self.rows * (UNREAD_ONE_IN - 1) <= self.read * UNREAD_ONE_IN
    }

    /// Why it is not believed, if so; `failed` says how calls of it failed.
    pub(super) fn problem(&self, failed: &str) -> Option<String> {
        let Self { rows, read, .. } = self;
        if !self.is_whole() {
            let why = if failed.is_empty() { "it changed meanwhile" } else { failed };
            return Some(format!(
                "the judge marked {read} of the {rows} rows of its calibration set ({why}); it is \
                 tried again soon"
            ));
        }
        let so = "it judges nothing until it does better: take another model or wording, or mend the set";
        if self.kappa < KAPPA_MIN {
            return Some(format!("{}, at least {KAPPA_MIN} is needed; {so}", self.text()));
        }
        (DRIFT_MAX < self.drift)
            .then(|| format!("{}, at most {DRIFT_MAX} is borne; {so}", self.text()))
    }

    /// Whether it did badly: what a judge said that did so is not to be believed.
    pub(super) fn is_bad(&self) -> bool {
        self.is_whole() && self.problem("").is_some()
    }

    /// What it came to, in words.
    pub(super) fn text(&self) -> String {
        format!(
            "on its calibration set the judge finds the expected winner in {} of {} rows, kappa {:.2}, \
             with marks {:.2} from its first ones",
            self.agreed, self.rows, self.kappa, self.drift
        )
    }
}

/// How far marks are from the first ones, where there are both.
pub(super) fn distances(first: &[Option<[f64; 2]>], now: &[Option<[f64; 2]>]) -> Vec<f64> {
    let both =
        first.iter().zip(now).filter_map(|(first, now)| Some((*first.as_ref()?, *now.as_ref()?)));
    both.flat_map(|(first, now)| [(now[0] - first[0]).abs(), (now[1] - first[1]).abs()]).collect()
}

/// What a run of them came to.
pub(super) fn calibrated(source: &str, rows: &[Tried], distances: &[f64]) -> Calibrated {
    let class = |it: Winner| match it {
        Winner::First => 0,
        Winner::Second => 1,
        Winner::Tie => 2,
    };
    let mut table = [[0; 3]; 3];
    let read: Vec<(Winner, Winner)> = rows
        .iter()
        .filter_map(|it| Some((it.expected, it.marks.map(|[a, b]| Winner::of(a, b))?)))
        .collect();
    for (expected, found) in &read {
        table[class(*expected)][class(*found)] += 1;
    }
    Calibrated {
        source: source.to_owned(),
        rows: rows.len(),
        read: read.len(),
        agreed: read.iter().filter(|(expected, found)| expected == found).count(),
        // Where it is not defined nothing was told apart.
        kappa: kappa(&table).unwrap_or(0.0),
        drift: if distances.is_empty() {
            0.0
        } else {
            distances.iter().sum::<f64>() / real(distances.len())
        },
    }
}

pub(super) fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
