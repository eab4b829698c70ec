//! What evidence is made of: everything the controller is told, each at its place and time.

use super::{Call, Lot, Metric, Pair, PairId, Review, Score, Side, Timestamp, Window};

/// When the controller was told something, and its place among all it was ever told.
///
/// Evidence is moved by what is told in this order, at these times, and by nothing else: so it is
/// the same live, after a restart and in a backtest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// Rises by one, also over restarts.
    pub seq: u64,
    /// The time; never goes back while the program runs.
    pub at: Timestamp,
}

/// What the controller is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Both sides of a request are known.
    Pair(Box<Pair>),
    /// A pair was judged.
    Score(Box<Score>),
    /// Somebody has compared the answers of a pair.
    Review(Box<Review>),
    /// Anything else that counts.
    Note(Box<Note>),
}

/// Evidence of a window that is no pair and no score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The evidence it belongs to.
    pub window: Window,
    /// When it counted.
    pub order: Order,
    /// What it says.
    pub told: Told,
}

/// What a note says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A request of which a lot drew one side alone.
    Solo {
        /// The lot.
        lot: Lot,
        /// The side that answered.
        side: Side,
        /// Its call.
        call: Box<Call>,
        /// The watched slice it is in; empty for none.
        watched: String,
    },
    /// The primary was asked the same twice: once for the caller, and once more as a candidate is.
    Noise {
        /// Its call that the caller saw.
        served: Box<Call>,
        /// Its other call.
        again: Box<Call>,
        /// The watched slice of the request; empty for none.
        watched: String,
    },
    /// Somebody scored the answer that a caller got.
    Feedback {
        /// The request, which says when it came too.
        request: PairId,
        /// The lot that drew whose answer it was.
        lot: Lot,
        /// Whose answer it was.
        side: Side,
        /// The score in millionths, 0 to 1 000 000.
        score_millionths: u32,
        /// The watched slice of the request; empty for none.
        watched: String,
        /// The idempotency key with which it was told; empty for none.
        key: String,
    },
    /// A copy was sent, and how it ended was lost.
    CopyLost,
    /// A pair was to be judged and could not be.
    ScoreLost,
    /// The judge was found unfit: what it said of the attempt before is not to be believed.
    JudgeFailed,
    /// The window was opened at this time, after all that was told up to this place, in this
    /// weather.
    Entered(Vec<Weather>),
    /// The guard after success began at this time, after all that was told up to this place.
    Guarded,
}

/// How unevenly the primary's failures or slow calls fall over time, beyond chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// The metric whose bets it slows down.
    pub metric: Metric,
    /// The variance of the rate between half hours beyond that of independent calls, relative
    /// to the rate's square, in thousandths.
    pub variance_permille: u32,
}

impl Order {
    /// Before everything.
    pub const FIRST: Self = Self { seq: 0, at: Timestamp(0) };
}

impl Seen {
    /// A note that has not been handed over yet.
    pub fn note(window: &Window, told: Told) -> Self {
        Self::Note(Box::new(Note { window: window.clone(), order: Order::FIRST, told }))
    }

    /// The evidence it belongs to.
    pub fn window(&self) -> &Window {
        match self {
            Self::Pair(it) => &it.window,
            Self::Score(it) => &it.window,
            Self::Review(it) => &it.window,
            Self::Note(it) => &it.window,
        }
    }

    /// Its place. What was kept before places were kept comes first, in the order of its time.
    pub fn order(&self) -> Order {
        let first = |at| Order { seq: 0, at };
        match self {
            Self::Pair(it) => it.order.unwrap_or(first(it.at)),
            Self::Score(it) => it.order.unwrap_or(first(it.at)),
            Self::Review(it) => it.counted.map_or(first(it.pair.at()), |it| it.order),
            Self::Note(it) => it.order,
        }
    }

    /// Gives it its place.
    pub fn place(&mut self, order: Order) {
        match self {
            Self::Pair(it) => it.order = Some(order),
            Self::Score(it) => it.order = Some(order),
            Self::Review(it) => {
                if let Some(counted) = &mut it.counted {
                    counted.order = order;
                }
            }
            Self::Note(it) => it.order = order,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Name;

    #[test]
    fn what_is_told_has_the_place_it_was_given() {
        let window = Window { rollout: Name::every(), attempt: 1, stage: 0 };
        let mut seen = Seen::note(&window, Told::CopyLost);
        assert_eq!(seen.order(), Order { seq: 0, at: Timestamp(0) });
        let order = Order { seq: 7, at: Timestamp(9) };
        seen.place(order);
        assert_eq!((seen.order(), seen.window()), (order, &window));
    }
}
