//! What is spent on copies and scores: reserved before a call, settled after it.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use super::lock;
use crate::domain::{Budget, Timestamp, show_usd};

/// One part in how many of its tightest budget a purse may spend beyond what it spent lately, before
/// the store is asked again.
const AHEAD_ONE_IN: u64 = 100;
/// Output tokens that a call is expected to stay below where its request does not say, until one
/// is seen that does not.
const OUTPUT_TOKENS_MOST: u64 = 4_096;
/// The same where its request allows more: some ask for as many as a number can say.
const OUTPUT_TOKENS_ALLOWED: u64 = 32_768;
/// How far a clock may have gone back over a restart for the day that it had to count on.
const DAYS_BACK_MAX: u64 = 1;

/// What may be spent of a budget, and what was. Amounts are billionths of a US dollar.
#[derive(Debug, Default)]
pub struct Pot {
    budget: Budget,
    books: Mutex<Books>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Books {
    spent: Spent,
    reserved: u64,
    /// What a restart would know to be spent in all, of this day; none where nothing has to be known.
    assured: Option<u64>,
    /// What was spent in all, at the most, when that was last looked after.
    before: u64,
}

/// What was spent, in billionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The day (since the epoch) of which `today` is.
    pub day: u64,
    /// On that day.
    pub today: u64,
    /// Ever.
    pub total: u64,
}

/// What one rollout spends, of its own budget and of that of all rollouts.
#[derive(Debug, Default)]
pub struct Purse {
    own: Pot,
    all: Arc<Pot>,
    output_tokens_most: AtomicU64,
}

/// Money set aside for a call. Dropped, it counts as spent: nobody knows what the call came to.
#[derive(Debug)]
pub struct Reserved {
    purse: Arc<Purse>,
    most: u64,
}

impl Pot {
    /// A pot of which nothing was spent.
    pub fn new(budget: Budget) -> Self {
        Self { budget, books: Mutex::default() }
    }

    /// What it may hold.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// Sets money aside as long as there is any left, and as a restart would know it to be spent: all
    /// that is under way taken at its most. So what is spent comes above the budget by less than one
    /// call, and which call is refused does not depend on what it would cost.
    fn reserve(&self, now: Timestamp, most: u64) -> bool {
        let mut books = lock(&self.books);
        books.turn(now.day());
        let left = |max: Option<u64>, spent: u64| {
            max.is_none_or(|max| spent.saturating_add(books.reserved) < max)
        };
        let Spent { today, total, .. } = books.spent;
        let room = left(self.budget.per_day_nano_usd, today)
            && left(self.budget.total_nano_usd, total)
            && left(books.assured, total);
        if room {
            books.reserved = books.reserved.saturating_add(most);
        }
        room
    }

    fn settle(&self, most: u64, cost: u64) {
        let mut books = lock(&self.books);
        books.reserved = books.reserved.saturating_sub(most);
        books.spent.add(cost);
    }

    fn spent(&self, now: Timestamp) -> Spent {
        let mut books = lock(&self.books);
        books.turn(now.day());
        books.spent
    }

    /// Adds what was spent before a restart.
    fn resume(&self, now: Timestamp, before: Spent) {
        let mut books = lock(&self.books);
        // Neither does a clock begin a day again that has gone back meanwhile.
        let ahead = before.day.saturating_sub(now.day());
        let day = if ahead <= DAYS_BACK_MAX { before.day.max(now.day()) } else { now.day() };
        books.turn(day);
        let today = if before.day == books.spent.day { before.today } else { 0 };
        books.spent.today = books.spent.today.saturating_add(today);
        books.spent.total = books.spent.total.saturating_add(before.total);
    }

    /// Why nothing more is paid from it, if so; `whose` it is.
    fn problem(&self, now: Timestamp, whose: &str) -> Option<String> {
        let Spent { today, total, .. } = self.spent(now);
        let over = |max: Option<u64>, spent: u64| max.filter(|max| *max <= spent).map(show_usd);
        if let Some(max) = over(self.budget.total_nano_usd, total) {
            return Some(format!(
                "the {max} that {whose} may spend on copies and scores are spent; raise `total` of \
                 its budget"
            ));
        }
        over(self.budget.per_day_nano_usd, today)
            .map(|max| format!("the day's {max} of {whose} are spent; it goes on tomorrow (UTC)"))
    }
}

impl Books {
    /// Begins a new day where it is one: of that nothing is known yet to be spent.
    fn turn(&mut self, day: u64) {
        if self.spent.day < day {
            self.assured = self.assured.map(|_| 0);
        }
        self.spent.turn(day);
    }

    /// What was spent, with all that is under way at its most.
    fn at_most(&self) -> Spent {
        let mut spent = self.spent;
        spent.add(self.reserved);
        spent
    }
}

impl Spent {
    /// Begins a new day where it is one. A clock that goes back begins none.
    fn turn(&mut self, day: u64) {
        if self.day < day {
            (self.day, self.today) = (day, 0);
        }
    }

    fn add(&mut self, cost: u64) {
        self.today = self.today.saturating_add(cost);
        self.total = self.total.saturating_add(cost);
    }
}

impl Purse {
    /// A purse of its own budget, and of that of all rollouts, with what it spent before.
    pub fn new(budget: Budget, all: Arc<Pot>, now: Timestamp, before: Spent) -> Self {
        let own = Pot::new(budget);
        own.resume(now, before);
        all.resume(now, before);
        let purse = Self { own, all, output_tokens_most: AtomicU64::default() };
        let limited = purse.is_limited();
        let mut books = lock(&purse.own.books);
        books.before = books.spent.total;
        books.assured = limited.then_some(0);
        drop(books);
        purse
    }

    /// Its own budget.
    pub fn budget(&self) -> Budget {
        self.own.budget
    }

    /// Whether anything limits what is spent from it.
    pub fn is_limited(&self) -> bool {
        self.own.budget.is_limit() || self.all.budget.is_limit()
    }

    /// Sets aside the most that a call may cost; none where a budget has nothing left for it.
    pub fn reserve(self: &Arc<Self>, now: Timestamp, most: u64) -> Option<Reserved> {
        if !self.own.reserve(now, most) {
            return None;
        }
        if !self.all.reserve(now, most) {
            self.own.settle(most, 0);
            return None;
        }
        Some(Reserved { purse: Arc::clone(self), most })
    }

    /// Output tokens that a call is expected to stay below whose request allows so many, if it says.
    pub fn output_tokens_most(&self, allowed: Option<u64>) -> u64 {
        let seen = self.output_tokens_most.load(Ordering::Relaxed);
        match allowed {
            Some(allowed) => allowed.min(seen.max(OUTPUT_TOKENS_ALLOWED)),
            None => seen.max(OUTPUT_TOKENS_MOST),
        }
    }

    /// Takes note of how many output tokens a call came to.
    pub fn see_output(&self, tokens: u64) {
        self.output_tokens_most.fetch_max(tokens, Ordering::Relaxed);
    }

    /// What was spent.
    pub fn spent(&self, now: Timestamp) -> Spent {
        self.own.spent(now)
    }

    /// What a restart has to take as spent: with all that is under way, at its most, and where there
    /// is a budget with as much as may be spent until this is asked again. That may be once it is
    /// kept: see [`assure`](Self::assure).
    pub fn ahead(&self, now: Timestamp) -> Spent {
        let budgets = [self.own.budget, self.all.budget];
        let limits = budgets.iter().flat_map(|it| [it.per_day_nano_usd, it.total_nano_usd]);
        let least = limits.flatten().min().map(|it| it.div_ceil(AHEAD_ONE_IN));
        let mut books = lock(&self.own.books);
        books.turn(now.day());
        let mut spent = books.at_most();
        let lately = spent.total.saturating_sub(books.before);
        books.before = spent.total;
        spent.add(least.map_or(0, |it| it.max(lately.saturating_mul(2))));
        // What was assured before may be forgotten from here on.
        books.assured = books.assured.map(|it| it.min(spent.total));
        spent
    }

    /// The same where nothing more is spent.
    pub fn close(&self, now: Timestamp) -> Spent {
        let mut books = lock(&self.own.books);
        books.turn(now.day());
        books.assured = books.assured.map(|_| 0);
        books.at_most()
    }

    /// Whether so much is known to a restart, or need not be.
    pub fn is_assured(&self, spent: Spent) -> bool {
        lock(&self.own.books).assured.is_none_or(|it| spent.total <= it)
    }

    /// Takes note that a restart would know so much to be spent.
    pub fn assure(&self, spent: Spent) {
        let mut books = lock(&self.own.books);
        if books.spent.day == spent.day {
            books.assured = books.assured.map(|it| it.max(spent.total));
        }
    }

    /// Whether more may be set aside only once a restart would know of it.
    pub fn waits(&self) -> bool {
        let books = lock(&self.own.books);
        books.assured.is_some_and(|it| it <= books.at_most().total)
    }

    /// Why nothing more is paid from it today, if so.
    pub fn problem(&self, now: Timestamp) -> Option<String> {
        self.own.problem(now, "this rollout").or_else(|| self.all.problem(now, "all rollouts"))
    }
}

impl Reserved {
    /// Ends it with what the call cost, in billionths of a US dollar, or with the most it may have
    /// cost where that is not known; what it comes to.
    pub fn settle(mut self, cost: Option<u64>) -> u64 {
        let cost = cost.unwrap_or(self.most);
        let most = std::mem::take(&mut self.most);
        self.purse.own.settle(most, cost);
        self.purse.all.settle(most, cost);
        cost
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if 0 < self.most {
            self.purse.own.settle(self.most, self.most);
            self.purse.all.settle(self.most, self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;
    const NOW: Timestamp = Timestamp(5 * DAY);

    const TOMORROW: Timestamp = Timestamp(NOW.0 + DAY);

    /// A purse of which a restart would know all.
    fn purse(per_day: Option<u64>, total: Option<u64>, all: &Arc<Pot>) -> Arc<Purse> {
        let budget = Budget { per_day_nano_usd: per_day, total_nano_usd: total };
        let purse = Purse::new(budget, Arc::clone(all), NOW, Spent::default());
        purse.assure(Spent { day: 5, today: 0, total: u64::MAX });
        Arc::new(purse)
    }

    #[test]
    fn nothing_is_spent_that_a_restart_would_not_know_of() {
        let limit = Budget { per_day_nano_usd: Some(1_000), total_nano_usd: None };
        let open = |before| Arc::new(Purse::new(limit, Arc::default(), NOW, before));
        let purse = open(Spent::default());
        assert!(purse.waits() && purse.reserve(NOW, 30).is_none(), "nothing is kept yet");
        let kept = purse.ahead(NOW);
        assert_eq!(kept, Spent { day: 5, today: 10, total: 10 });
        assert!(!purse.is_assured(kept) && purse.reserve(NOW, 30).is_none());
        purse.assure(kept);
        assert!(!purse.waits());
        let first = purse.reserve(NOW, 30).unwrap();
        assert!(purse.reserve(NOW, 30).is_none(), "one call goes beyond it, and no more");
        let more = purse.ahead(NOW);
        assert_eq!(more.today, 90, "twice what was spent since");
        purse.assure(more);
        assert_eq!(
            open(kept).spent(NOW).today + 30,
            40,
            "killed before that: one call is forgotten"
        );
        drop(first);
        let still = purse.ahead(NOW);
        assert_eq!(still.today, 40, "it has become quiet");
        assert!(purse.is_assured(still));
        purse.reserve(NOW, 10).unwrap().settle(None);
        assert!(purse.reserve(NOW, 10).is_none(), "less is kept now");
        // Another day has to be kept anew, and what belongs to the old one says nothing of it.
        assert!(purse.reserve(TOMORROW, 10).is_none());
        purse.assure(still);
        assert!(purse.reserve(TOMORROW, 10).is_none());
        purse.assure(purse.ahead(TOMORROW));
        drop(purse.reserve(TOMORROW, 10).unwrap());
        let last = purse.close(TOMORROW);
        assert_eq!(last, Spent { day: 6, today: 10, total: 50 });
        assert!(purse.reserve(TOMORROW, 10).is_none());
        let again = Purse::new(limit, Arc::default(), TOMORROW, last);
        assert_eq!(again.spent(TOMORROW), last);
    }

    #[test]
    fn what_is_under_way_is_taken_at_its_most_and_settled_at_what_it_cost() {
        let purse = purse(Some(100), None, &Arc::default());
        let first = purse.reserve(NOW, 60).unwrap();
        let second = purse.reserve(NOW, 60).unwrap();
        assert!(purse.reserve(NOW, 1).is_none(), "120 may be gone already");
        assert_eq!(purse.problem(NOW), None, "but are not spent yet");
        assert_eq!((first.settle(Some(10)), purse.spent(NOW).today), (10, 10));
        let third = purse.reserve(NOW, 60).unwrap();
        assert_eq!(second.settle(None), 60, "what is not known is the most, and never nothing");
        assert_eq!(purse.spent(NOW), Spent { day: 5, today: 70, total: 70 });
        assert!(purse.reserve(NOW, 1).is_none());
        drop(third);
        assert_eq!(purse.spent(NOW).today, 130);
        assert!(purse.problem(NOW).unwrap().starts_with("the day's $0.0000001 of this rollout"));
    }

    #[test]
    fn the_day_begins_anew_and_the_whole_never_does() {
        let purse = purse(Some(100), Some(150), &Arc::default());
        let spend =
            |at, cost| purse.reserve(at, cost).is_some_and(|it| it.settle(Some(cost)) == cost);
        assert!(spend(NOW, 100) && !spend(NOW, 1));
        assert!(purse.problem(TOMORROW).is_none());
        purse.assure(Spent { day: 6, today: 0, total: u64::MAX });
        assert!(spend(TOMORROW, 50) && !spend(TOMORROW, 1));
        assert!(purse.problem(TOMORROW).unwrap().contains("raise `total` of its budget"));
        assert!(!spend(NOW, 1), "a clock that goes back gives nothing back");
    }

    #[test]
    fn rollouts_spend_of_one_pot_together_and_a_restart_forgets_nothing() {
        let limit = Budget { per_day_nano_usd: Some(100), total_nano_usd: None };
        let all = Arc::new(Pot::new(limit));
        let (one, other) = (purse(None, None, &all), purse(Some(500), None, &all));
        assert!(one.is_limited());
        one.reserve(NOW, 70).unwrap().settle(Some(70));
        let under_way = other.reserve(NOW, 80).unwrap();
        assert!(other.reserve(NOW, 1).is_none());
        assert_eq!(lock(&other.own.books).reserved, 80, "nothing is held for what was refused");
        assert!(one.problem(NOW).is_none());
        let kept = other.close(NOW);
        assert_eq!(kept, Spent { day: 5, today: 80, total: 80 });
        drop(under_way);
        assert!(one.problem(NOW).unwrap().contains("of all rollouts are spent"));

        let all = Arc::new(Pot::new(limit));
        let again = |before| {
            let purse = Arc::new(Purse::new(limit, Arc::clone(&all), NOW, before));
            purse.assure(Spent { day: 5, today: 0, total: u64::MAX });
            purse
        };
        assert!(again(one.close(NOW)).reserve(NOW, 0).is_some());
        assert!(again(kept).reserve(NOW, 1).is_none());
        let later = Purse::new(limit, Arc::default(), TOMORROW, kept);
        assert_eq!(later.spent(TOMORROW), Spent { day: 6, today: 0, total: 80 });
    }

    #[test]
    fn at_the_end_less_than_one_call_more_is_spent_however_many_ask_at_once() {
        let (max, cost, most) = (1_000_000, 7_001, 90_000);
        let purse = purse(Some(max), None, &Arc::default());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while purse.problem(NOW).is_none() {
                        if let Some(reserved) = purse.reserve(NOW, most) {
                            std::thread::yield_now();
                            reserved.settle(Some(cost));
                        }
                    }
                });
            }
        });
        let spent = purse.spent(NOW).today;
        assert!((max..max + cost).contains(&spent), "{spent}");
    }

    #[test]
    fn what_a_request_allows_is_believed_up_to_a_bound_or_to_what_was_seen() {
        let purse = purse(None, None, &Arc::default());
        let most = || [None, Some(100), Some(u64::MAX)].map(|it| purse.output_tokens_most(it));
        assert_eq!(most(), [4_096, 100, 32_768]);
        purse.see_output(50_000);
        assert_eq!(most(), [50_000, 100, 50_000]);
    }

    #[test]
    fn a_clock_that_went_back_over_a_restart_gives_nothing_back_and_a_mad_one_takes_no_day() {
        let budget = Budget { per_day_nano_usd: Some(100), total_nano_usd: None };
        let kept = Spent { day: 5, today: 90, total: 90 };
        let woken = |day| {
            let now = Timestamp(day * DAY);
            (Arc::new(Purse::new(budget, Arc::default(), now, kept)), now)
        };
        let (purse, yesterday) = woken(4);
        purse.assure(Spent { total: u64::MAX, ..kept });
        purse.reserve(yesterday, 20).unwrap().settle(Some(20));
        assert_eq!(purse.spent(NOW), Spent { day: 5, today: 110, total: 110 });
        assert!(purse.problem(NOW).is_some());
        let (purse, before) = woken(2);
        assert_eq!(purse.spent(before), Spent { day: 2, today: 0, total: 90 });
    }
}
