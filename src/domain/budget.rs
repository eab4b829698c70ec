//! Budgets: how much may be spent on copies and scores.

use super::Price;

/// The most that may be spent, in billionths of a US dollar; none where there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// On one day (UTC).
    pub per_day_nano_usd: Option<u64>,
    /// Ever.
    pub total_nano_usd: Option<u64>,
}

impl Budget {
    /// Whether it limits anything.
    pub fn is_limit(self) -> bool {
        self.per_day_nano_usd.is_some() || self.total_nano_usd.is_some()
    }
}

/// Reads US dollars such as `$25` or `$0.50` as billionths of one: more than none, at most six
/// decimals, less than a million dollars.
pub fn read_usd(text: &str) -> Option<u64> {
    let millionths = Price::read(text.strip_prefix('$')?)?;
    millionths.checked_mul(1_000).filter(|it| 0 < *it)
}

/// Billionths of a US dollar as dollars: to the cent, and below one to the last digit that counts.
pub fn show_usd(nano_usd: u64) -> String {
    let text = format!("{}.{:09}", nano_usd / 1_000_000_000, nano_usd % 1_000_000_000);
    let cents = text.len() - 7;
    let shown = text.trim_end_matches('0').len().max(cents);
    let shown = if 1_000_000_000 <= nano_usd { cents } else { shown };
    let shown = text.get(..shown).unwrap_or(&text);
    format!("${}", shown.strip_suffix(".00").unwrap_or(shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_exactly_and_shown_as_people_write_them() {
        for (text, nano, shown) in [
            ("$25", 25_000_000_000, "$25"),
            ("$0.50", 500_000_000, "$0.50"),
            ("$0.000001", 1_000, "$0.000001"),
            ("$12.345", 12_345_000_000, "$12.34"),
        ] {
            assert_eq!(read_usd(text), Some(nano), "{text}");
            assert_eq!(show_usd(nano), shown);
        }
        assert_eq!((show_usd(0).as_str(), show_usd(1).as_str()), ("$0", "$0.000000001"));
        for text in ["", "$", "25", "$0", "$-1", "$1e3", "€5", "$1000000", "$0.0000001"] {
            assert_eq!(read_usd(text), None, "{text}");
        }
    }

    #[test]
    fn a_budget_without_amounts_limits_nothing() {
        assert!(!Budget::default().is_limit());
        assert!(Budget { total_nano_usd: Some(1), ..Budget::default() }.is_limit());
        assert!(Budget { per_day_nano_usd: Some(1), ..Budget::default() }.is_limit());
    }
}
