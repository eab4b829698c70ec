//! What tokens cost.

use std::collections::BTreeMap;

use super::Usage;

/// The price of a model's tokens, in millionths of a millionth of a US dollar each: a dollar for
/// a million tokens is 1,000,000 of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Price {
    /// Fresh input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Input tokens read from the provider's cache.
    pub cache_read: u64,
    /// Input tokens written to the provider's cache.
    pub cache_write: u64,
}

/// The prices of a provider by model; `*` is every other model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices(BTreeMap<String, Price>);

impl Price {
    /// What tokens cost, in billionths of a US dollar, rounded. More than fits is the most.
    pub fn cost_nano_usd(&self, usage: &Usage) -> u64 {
        let parts = [
            (usage.input, self.input),
            (usage.output, self.output),
            (usage.cache_read, self.cache_read),
            (usage.cache_write, self.cache_write),
        ];
        let each = parts.map(|(tokens, price)| u128::from(tokens) * u128::from(price));
        let pico = each.into_iter().fold(0, u128::saturating_add);
        u64::try_from(pico.saturating_add(500) / 1_000).unwrap_or(u64::MAX)
    }

    /// Reads US dollars for a million tokens, such as `2.5`: at most six decimals and a million
    /// dollars.
    pub fn read(text: &str) -> Option<u64> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
        let plain = |it: &str, len_max: usize| {
            (1..=len_max).contains(&it.len()) && it.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !plain(whole, 6) || !plain(rest, 6) {
            return None;
        }
        let millionths: u64 = format!("{rest:0<6}").parse().ok()?;
        Some(whole.parse::<u64>().ok()? * 1_000_000 + millionths)
    }
}

impl Prices {
    /// No model has a price.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The price of the first of these models that has one of its own, else that of `*`.
    pub fn of(&self, models: &[&str]) -> Option<&Price> {
        let own = models.iter().find_map(|it| self.0.get(*it));
        own.or_else(|| self.0.get("*"))
    }
}

impl FromIterator<(String, Price)> for Prices {
    fn from_iter<I: IntoIterator<Item = (String, Price)>>(prices: I) -> Self {
        Self(prices.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_to_the_last_decimal_and_nothing_else_is() {
        for (text, price) in
            [("2.5", 2_500_000), ("0.0375", 37_500), ("0", 0), ("60", 60_000_000), ("0.000001", 1)]
        {
            assert_eq!(Price::read(text), Some(price), "{text}");
        }
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.0000001", "1000000", "1,5", " 1"] {
            assert_eq!(Price::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_call_costs_its_tokens_each_at_its_own_price() {
        let price = Price { input: 150_000, output: 600_000, cache_read: 75_000, cache_write: 1 };
        let usage = Usage { input: 1_000, output: 500, cache_read: 200, cache_write: 499 };
        // 150,000 + 300,000 + 15,000 billionths and half of one, which is rounded down.
        assert_eq!(price.cost_nano_usd(&usage), 465_000);
        let usage = Usage { output: u64::MAX, input: u64::MAX, ..usage };
        assert_eq!(price.cost_nano_usd(&usage), u64::MAX);
    }

    #[test]
    fn a_model_has_its_own_price_before_that_of_all_others() {
        let price = |input| Price { input, ..Price::default() };
        let prices: Prices =
            [("a".to_owned(), price(1)), ("*".to_owned(), price(2))].into_iter().collect();
        assert_eq!(prices.of(&["a-2024", "a"]), Some(&price(1)));
        assert_eq!(prices.of(&["b"]), Some(&price(2)));
        assert_eq!(Prices::default().of(&["a"]), None);
        assert!(Prices::default().is_empty() && !prices.is_empty());
    }
}
