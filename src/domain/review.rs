//! Reviews: which pairs people are shown, to whom, and what they said.

use super::{Agreement, Order, Outcome, Pair, PairId, Score, Share, Side, Timestamp, Window};

/// Millionths in one.
const MILLION: u64 = 1_000_000;
/// A pair that raises doubt is drawn so many times as often as another.
const DOUBT: u16 = 4;
/// Marks of a judge that are so far apart say who is better.
const APART: f64 = 0.05;
/// Marks below this are low.
const LOW: f64 = 0.5;
/// Of the pairs drawn, so many in 10 000 are shown to a second reviewer too.
const SECOND_BPS: u16 = 2_000;
/// Leases that are kept of a pair; one that so many have passed over is shown to nobody more.
const LEASES_LEN_MAX: usize = 8;

/// A pair that was drawn, and whom it was shown to.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// The pair.
    pub pair: PairId,
    /// The evidence it belongs to.
    pub window: Window,
    /// The watched slice it is in; empty for none.
    pub watched: String,
    /// What it stands for among those drawn, in millionths of one that raised no doubt: the more
    /// likely a pair was drawn, the less.
    pub weight_millionths: u32,
    /// Whom it was shown to, in that order.
    pub leases: Vec<Lease>,
    /// What of it is evidence; none while that is open.
    pub counted: Option<Counted>,
}

/// A pair in the hands of a reviewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What it is known by; says nothing of the pair.
    pub id: u128,
    /// Who has it.
    pub reviewer: String,
    /// Until when it is theirs alone, and what they said may be changed.
    pub until: Timestamp,
    /// Whose answer stands first.
    pub first: Side,
    /// What they said, and when; none while they have not.
    pub said: Option<(Choice, Timestamp)>,
    /// Why, in their words.
    pub comment: String,
}

/// What a reviewer says of two answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One is better.
    Better(Side),
    /// Equally good.
    BothGood,
    /// Equally bad.
    BothBad,
    /// Nothing.
    Skipped,
}

/// What of a review is evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The lease that counts: the first that was answered, and not passed over.
    pub lease: u128,
    /// When it counted.
    pub order: Order,
}

/// Who wins a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preferred {
    /// The primary.
    Primary,
    /// Nobody.
    Neither,
    /// The candidate.
    Candidate,
}

impl Choice {
    /// Every choice.
    pub const ALL: [Self; 5] = [
        Self::Better(Side::Primary),
        Self::Better(Side::Candidate),
        Self::BothGood,
        Self::BothBad,
        Self::Skipped,
    ];

    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Better(side) => side.as_str(),
            Self::BothGood => "both_good",
            Self::BothBad => "both_bad",
            Self::Skipped => "skipped",
        }
    }

    /// Who wins by it; none where nothing was said.
    pub fn winner(self) -> Option<Preferred> {
        match self {
            Self::Better(Side::Primary) => Some(Preferred::Primary),
            Self::Better(Side::Candidate) => Some(Preferred::Candidate),
            Self::BothGood | Self::BothBad => Some(Preferred::Neither),
            Self::Skipped => None,
        }
    }
}

impl Preferred {
    /// Who wins by a judge's score.
    pub fn of(score: &Score) -> Self {
        Self::by([score.primary, score.candidate])
    }

    /// Who wins by a judge's marks of the primary and of the candidate.
    pub fn by([primary, candidate]: [f64; 2]) -> Self {
        let ahead = candidate - primary;
        if ahead.abs() < APART {
            Self::Neither
        } else if 0.0 < ahead {
            Self::Candidate
        } else {
            Self::Primary
        }
    }

    /// Its row or column in a table of two reviewers.
    pub fn place(self) -> usize {
        match self {
            Self::Primary => 0,
            Self::Neither => 1,
            Self::Candidate => 2,
        }
    }

    /// The candidate's part of the win: 0, 0.5 or 1.
    pub fn win(self) -> f64 {
        match self {
            Self::Primary => 0.0,
            Self::Neither => 0.5,
            Self::Candidate => 1.0,
        }
    }
}

impl Review {
    /// A pair that is drawn, if it is.
    ///
    /// Every pair of two answers that are not the same word for word is drawn with the chance of
    /// `share`, and one that raises doubt with four times that: where the judge sees one ahead or
    /// gives low marks, or where there is no judge's word and the answers differ by rule. The
    /// weight is the inverse of the chance, so that weighted means are those of all such pairs
    /// (Horvitz & Thompson 1952). It depends on its arguments alone.
    pub fn draw(share: Share, pair: &Pair, score: Option<&Score>) -> Option<Self> {
        if !Self::may_draw(share, pair) {
            return None;
        }
        let chance = if raises_doubt(pair, score) { doubtful(share) } else { share };
        if !chance.includes("review", &pair.id.to_string()) {
            return None;
        }
        let [whole, drawn] = [share, chance].map(|it| u64::from(it.basis_points()));
        let weight_millionths = MILLION * whole / drawn.max(1);
        Some(Self {
            pair: pair.id,
            window: pair.window.clone(),
            watched: pair.watched.clone(),
            weight_millionths: u32::try_from(weight_millionths).unwrap_or(u32::MAX),
            leases: Vec::new(),
            counted: None,
        })
    }

    /// Whether a pair may be drawn, whatever a judge says of it.
    pub fn may_draw(share: Share, pair: &Pair) -> bool {
        let whole = |it: Outcome| matches!(it, Outcome::Ok | Outcome::Refused);
        let apart = matches!(pair.agreement, Agreement::SameJson | Agreement::Different);
        apart
            && [&pair.primary, &pair.candidate].iter().all(|it| whole(it.outcome))
            && doubtful(share).includes("review", &pair.id.to_string())
    }

    /// Whether it is to be shown to this reviewer now.
    pub fn waits_for(&self, reviewer: &str, now: Timestamp) -> bool {
        let second = Share::from_basis_points(SECOND_BPS).unwrap_or(Share::NONE);
        let wanted = if second.includes("second opinion", &self.pair.to_string()) { 2 } else { 1 };
        let taken = self.leases.iter().filter(|it| match it.said {
            Some((choice, _)) => choice != Choice::Skipped,
            None => now < it.until,
        });
        // Whoever has answered it, or has it now, is not shown it again.
        let theirs = |it: &Lease| it.reviewer == reviewer && (it.said.is_some() || now < it.until);
        taken.count() < wanted
            && self.answered().count() + self.passed_over() < LEASES_LEN_MAX
            && !self.leases.iter().any(theirs)
    }

    /// Gives it to a reviewer. What others had and did not answer in time is theirs no more.
    pub fn give(&mut self, lease: Lease, now: Timestamp) {
        self.leases.retain(|it| it.said.is_some() || now < it.until);
        self.leases.push(lease);
    }

    /// The leases that were answered and not passed over, in the order they were given.
    pub fn answered(&self) -> impl Iterator<Item = (&Lease, Preferred)> {
        self.leases.iter().filter_map(|it| Some((it, it.said?.0.winner()?)))
    }

    /// Who wins by what of it is evidence.
    pub fn winner(&self) -> Option<Preferred> {
        let counted = self.counted?.lease;
        self.answered().find(|(it, _)| it.id == counted).map(|it| it.1)
    }

    fn passed_over(&self) -> usize {
        self.leases.iter().filter(|it| it.said.is_some_and(|it| it.0 == Choice::Skipped)).count()
    }
}

/// The chance of a pair that raises doubt.
fn doubtful(share: Share) -> Share {
    let basis_points = share.basis_points().saturating_mul(DOUBT);
    Share::from_basis_points(basis_points).unwrap_or(Share::ALL)
}

fn raises_doubt(pair: &Pair, score: Option<&Score>) -> bool {
    match score {
        Some(score) => {
            Preferred::of(score) != Preferred::Neither || score.primary.min(score.candidate) < LOW
        }
        None => pair.agreement == Agreement::Different,
    }
}

#[cfg(test)]
#[path = "review_tests.rs"]
pub(super) mod tests;
