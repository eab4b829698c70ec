//! Money kept back for a fault that comes after a long good time.

use serde::{Deserialize, Serialize};

/// Part of what is kept that is at work at a time. Less takes longer to grow, more is used up by
/// short runs of luck.
const LENT: f64 = 0.005;
/// More is not counted: it is proof many times over.
const WEALTH_MAX: f64 = 1e12;

/// The money of one bettor that a good time does not eat up.
///
/// While nothing speaks for a fault, a small part of it is at work: what that wins is put back,
/// and what it loses is made up for. So there is about as much of it whenever a fault begins,
/// and only then is it left to grow. Moving money between bets and a pocket wins none, and never
/// is more kept than was put in: a small regression that is borne makes nobody rich.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reserve {
    put_in: f64,
    kept: f64,
    lent: f64,
}

impl Reserve {
    /// Puts fresh money in; must not depend on what it will be bet on.
    pub(super) fn put(&mut self, money: f64) {
        self.put_in += money;
        self.kept += money;
    }

    /// What is at work.
    pub(super) fn lent(self) -> f64 {
        self.lent
    }

    /// Takes the logarithmic gain of an observation, and makes up for what is lost.
    pub(super) fn win(&mut self, gain: f64) {
        self.lent = (self.lent * gain.exp()).min(WEALTH_MAX);
        if self.lent < LENT * self.kept {
            self.call_back();
        }
    }

    /// Leaves no more and no less at work than its part.
    pub(super) fn call_back(&mut self) {
        let part = LENT * self.kept;
        self.kept = (self.kept + self.lent - part).min(self.put_in);
        self.lent = part;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(money: f64) -> Reserve {
        let mut reserve = Reserve::default();
        reserve.put(money);
        reserve
    }

    #[test]
    fn a_part_is_at_work_and_what_it_loses_is_made_up_for() {
        let mut reserve = of(0.4);
        assert!(reserve.lent() <= 0.0);
        reserve.win(0.0);
        assert!((reserve.lent() - 0.002).abs() < 1e-12, "{reserve:?}");
        reserve.win(-2.0);
        assert!((0.0019..0.002).contains(&reserve.lent()), "{reserve:?}");
        assert!((reserve.lent() - LENT * (0.4 - 0.002)).abs() < 1e-4 * 0.4, "{reserve:?}");
    }

    #[test]
    fn what_is_won_grows_until_it_is_called_back_and_no_more_is_kept_than_was_put_in() {
        let mut reserve = of(0.4);
        reserve.win(0.0);
        reserve.win(0.5);
        assert!((reserve.lent() - 0.002 * 0.5_f64.exp()).abs() < 1e-9, "{reserve:?}");
        reserve.win(2.5);
        reserve.win(3.0);
        assert!((reserve.lent() - 0.002 * 6.0_f64.exp()).abs() < 1e-9, "{reserve:?}");
        reserve.call_back();
        assert!((reserve.kept - 0.4).abs() < 1e-12 && reserve.lent() < 0.0021, "{reserve:?}");
        for _ in 0..1_000 {
            reserve.win(700.0);
        }
        reserve.call_back();
        assert!((reserve.kept - 0.4).abs() < 1e-12, "{reserve:?}");
    }

    /// Moving money makes none: at even odds there is on average no more than was put in.
    #[test]
    fn nothing_is_made_of_nothing() {
        // Even odds on half of what is at work, all ways that ten bets can go.
        let mut total = 0.0;
        for ways in 0..1_u32 << 10 {
            let mut reserve = of(1.0);
            reserve.win(0.0);
            for turn in 0..10 {
                let won = ways >> turn & 1 == 1;
                reserve.win(if won { 1.5_f64 } else { 0.5 }.ln());
                if turn % 3 == 0 {
                    reserve.call_back();
                }
            }
            total += (reserve.kept + reserve.lent) / 1_024.0;
        }
        assert!((0.99..=1.0 + 1e-12).contains(&total), "{total}");
    }
}
