//! What tokens cost, and from when on.

use jiff::civil::Date;

use super::{Timestamp, Usage};

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

/// What a model costs from a time on; a request with a long input may cost more in all its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    /// When it begins to hold; it ends when the next one of the same models begins.
    pub from: Timestamp,
    /// The price of a request of any length, unless it is in a tier.
    pub price: Price,
    /// Prices of requests with more input tokens than this, the fewest first.
    pub tiers: Vec<(u64, Price)>,
}

/// What some models cost: those of a name, or of names that begin so (`gpt-4o-2024-*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceRow {
    /// The name, or how names begin and then `*`.
    pub model: String,
    /// What they cost.
    pub tariff: Tariff,
}

/// The prices of a provider: its own, and those of a table, of which its own go first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// What its configuration says.
    pub own: Vec<PriceRow>,
    /// What the table of prices says.
    pub table: Vec<PriceRow>,
}

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

    /// Writes such a price as it is read.
    pub fn show(millionths: u64) -> String {
        let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
        let shown = text.trim_end_matches('0').len().max(text.len() - 4);
        text.get(..shown).unwrap_or(&text).to_owned()
    }
}

impl Tariff {
    /// The price of a request by its input tokens, those of the cache included.
    fn price(&self, usage: &Usage) -> &Price {
        let input = usage.whole_input();
        let tier = self.tiers.iter().rev().find(|(above, _)| *above < input);
        tier.map_or(&self.price, |(_, price)| price)
    }

    /// What a request of these tokens costs, in billionths of a US dollar.
    pub fn cost_nano_usd(&self, usage: &Usage) -> u64 {
        self.price(usage).cost_nano_usd(usage)
    }

    /// The most that a request may cost with so many tokens, whatever a cache does with its input.
    pub fn most_nano_usd(&self, input: u64, output: u64) -> u64 {
        let (none, all) = (Usage { output, ..Usage::default() }, input);
        [
            Usage { input: all, ..none },
            Usage { cache_read: all, ..none },
            Usage { cache_write: all, ..none },
        ]
        .iter()
        .map(|it| self.cost_nano_usd(it))
        .max()
        .unwrap_or(0)
    }
}

impl PriceRow {
    /// How closely it names a model: exactly, or by so many letters; none if it does not.
    fn fits(&self, model: &str) -> Option<(bool, usize)> {
        match self.model.strip_suffix('*') {
            Some(begins) => model.starts_with(begins).then_some((false, begins.len())),
            None => (self.model == model).then_some((true, model.len())),
        }
    }
}

impl Prices {
    /// No model has a price.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.table.is_empty()
    }

    /// The price at a time of the first of these models that has one: its own, else that of `*`.
    pub fn of(&self, models: &[&str], at: Timestamp) -> Option<&PriceRow> {
        find(&self.own, models, at).or_else(|| find(&self.table, models, at))
    }
}

/// The row that names one of these models most closely, and of several the latest.
fn find<'r>(rows: &'r [PriceRow], models: &[&str], at: Timestamp) -> Option<&'r PriceRow> {
    let holds = || rows.iter().filter(|it| it.tariff.from <= at);
    let named = |model: &&str| {
        let fits = holds().filter_map(|it| it.fits(model).map(|fit| ((fit, it.tariff.from), it)));
        fits.filter(|(_, it)| it.model != "*").max_by_key(|(fit, _)| *fit).map(|(_, it)| it)
    };
    let others = || holds().filter(|it| it.model == "*").max_by_key(|it| it.tariff.from);
    models.iter().find_map(named).or_else(others)
}

/// Reads the beginning of a day (UTC) such as `2026-11-20`.
pub fn read_day(text: &str) -> Option<Timestamp> {
    let date: Date = text.parse().ok().filter(|_| text.len() == 10)?;
    let days = date.since(Date::constant(1970, 1, 1)).ok()?.get_days();
    Some(Timestamp(u64::try_from(days).ok()? * 86_400_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_to_the_last_decimal_and_nothing_else_is() {
        for (text, price, shown) in [
            ("2.5", 2_500_000, "2.50"),
            ("0.0375", 37_500, "0.0375"),
            ("0", 0, "0.00"),
            ("60", 60_000_000, "60.00"),
            ("0.000001", 1, "0.000001"),
        ] {
            assert_eq!(Price::read(text), Some(price), "{text}");
            assert_eq!(Price::show(price), shown);
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

    fn row(model: &str, from: u64, input: u64) -> PriceRow {
        let price = Price { input, ..Price::default() };
        let tariff = Tariff { from: Timestamp(from), price, tiers: Vec::new() };
        PriceRow { model: model.to_owned(), tariff }
    }

    fn input(prices: &Prices, models: &[&str], at: u64) -> Option<u64> {
        prices.of(models, Timestamp(at)).map(|it| it.tariff.price.input)
    }

    #[test]
    fn a_model_has_its_own_price_before_that_of_all_others() {
        let prices = Prices { own: vec![row("a", 0, 1), row("*", 0, 2)], ..Prices::default() };
        assert_eq!(input(&prices, &["a-2024", "a"], 0), Some(1));
        assert_eq!(input(&prices, &["b"], 0), Some(2));
        assert_eq!(input(&Prices::default(), &["a"], 0), None);
        assert!(Prices::default().is_empty() && !prices.is_empty());
    }

    #[test]
    fn the_longest_name_wins_and_what_is_configured_goes_before_the_table() {
        let table =
            vec![row("gpt-4o*", 0, 1), row("gpt-4o-mini*", 0, 2), row("gpt-4o-mini-x", 0, 3)];
        let prices = Prices { own: vec![row("own", 0, 9)], table };
        let of = |model| input(&prices, &[model], 0);
        assert_eq!(of("gpt-4o-2024-08-06"), Some(1));
        assert_eq!(of("gpt-4o-mini-2024"), Some(2));
        assert_eq!(of("gpt-4o-mini-x"), Some(3));
        assert_eq!(of("gpt-4"), None, "an unknown model has no price, and not that of another");
        assert_eq!(input(&prices, &["gpt-4o", "own"], 0), Some(9));
    }

    #[test]
    fn a_call_has_the_price_of_its_time() {
        let table = vec![row("m", 100, 1), row("m", 200, 2)];
        let prices = Prices { table, ..Prices::default() };
        let of = |at| input(&prices, &["m"], at);
        assert_eq!([of(99), of(100), of(199), of(200)], [None, Some(1), Some(1), Some(2)]);
    }

    #[test]
    fn a_long_input_costs_more_in_all_its_tokens() {
        let price = |input, output| Price { input, output, ..Price::default() };
        let tiers = vec![(200, price(2_000, 4_000)), (400, price(3_000, 6_000))];
        let tariff = Tariff { price: price(1_000, 2_000), tiers, ..Tariff::default() };
        let cost = |input, cache_read| {
            tariff.cost_nano_usd(&Usage { input, cache_read, output: 10, cache_write: 0 })
        };
        assert_eq!(cost(200, 0), 200 + 20);
        assert_eq!(cost(201, 0), 402 + 40);
        assert_eq!(cost(200, 1), 400 + 40, "what the cache had is input too");
        assert_eq!(cost(401, 0), 1_203 + 60);
    }

    #[test]
    fn the_most_a_request_may_cost_is_that_of_the_dearest_way() {
        let price = Price { input: 1_000, output: 2_000, cache_read: 100, cache_write: 1_250 };
        let tariff = Tariff { price, ..Tariff::default() };
        assert_eq!(tariff.most_nano_usd(1_000, 10), 1_250 + 20);
    }

    #[test]
    fn a_day_is_read_as_its_beginning_in_utc() {
        assert_eq!(read_day("1970-01-02"), Some(Timestamp(86_400_000)));
        assert_eq!(read_day("2026-11-20").map(Timestamp::day), Some(20_777));
        for text in ["", "2026-13-01", "20261120", "2026-11-20T00:00", "1969-12-31"] {
            assert_eq!(read_day(text), None, "{text}");
        }
    }
}
