//! What is taken of public tables of prices, and what is not.

use super::*;
use crate::config::PriceTable;

#[test]
fn a_number_is_moved_digit_by_digit_and_loses_only_the_noise_of_floats() {
    for (number, point, text, noisy) in [
        ("2.5e-06", 6, "2.5", false),
        ("1e-05", 6, "10", false),
        ("7.5e-08", 6, "0.075", false),
        ("0.00000015", 6, "0.15", false),
        ("5e-09", 6, "0.005", false),
        ("0.0", 6, "0", false),
        ("0", 6, "0", false),
        ("0.003625", 0, "0.003625", false),
        ("37.5", 0, "37.5", false),
        ("1200", 0, "1200", false),
        ("1.6000000000000001e-06", 6, "1.6", true),
        ("2.8000000000000003e-07", 6, "0.28", true),
        ("9.499999999999999e-07", 6, "0.95", true),
        ("1.41953125e-07", 6, "0.141953125", false),
    ] {
        assert_eq!(decimal(number, point), Some((text.to_owned(), noisy)), "{number}");
    }
    for number in ["", "-1", "null", "\"1\"", "1e99", "1e-99", ".5", "0x1"] {
        assert_eq!(decimal(number, 6), None, "{number}");
    }
}

const LITELLM: &str = r#"{"sample_spec":{"mode":"one of"},
    "gpt-4o":{"litellm_provider":"openai","mode":"chat","input_cost_per_token":2.5e-06,
        "output_cost_per_token":1e-05,"cache_read_input_token_cost":1.25e-06,
        "input_cost_per_token_batches":1.25e-06},
    "gemini/g":{"litellm_provider":"gemini","mode":"chat","input_cost_per_token":1.25e-06,
        "output_cost_per_token":1e-05,"cache_read_input_token_cost":1.25e-07,
        "input_cost_per_token_above_200k_tokens":2.5e-06,
        "output_cost_per_token_above_200k_tokens":1.5e-05},
    "noisy":{"litellm_provider":"openai","mode":"embedding",
        "input_cost_per_token":2.0000000000000002e-07},
    "fine":{"litellm_provider":"openai","mode":"chat","input_cost_per_token":1.41953125e-07,
        "output_cost_per_token":1e-06},
    "thinks":{"litellm_provider":"openai","mode":"chat","input_cost_per_token":1e-06,
        "output_cost_per_token":1e-06,"output_cost_per_reasoning_token":3e-06},
    "half":{"litellm_provider":"openai","mode":"chat","input_cost_per_token":1e-06},
    "dall-e":{"litellm_provider":"openai","mode":"image_generation","output_cost_per_image":4}}"#;

#[test]
fn what_litellm_knows_is_taken_exactly_and_what_is_not_is_named() {
    let mut imported = import(LITELLM).unwrap();
    let table = imported.table("2026-11-20");
    assert!(
        table.contains(
            "provider = \"gemini\"\nmodel = [\"g\"]\n\
             usd_per_mtok = { input = \"1.25\", output = \"10\", cache_read = \"0.125\" }\n\
             [[price.tier]]\nabove_input_tokens = 200000\n\
             usd_per_mtok = { input = \"2.5\", output = \"15\", cache_read = \"0.125\" }"
        ),
        "{table}"
    );
    assert_eq!(PriceTable::parse(&table, "t").unwrap().len(), 3);
    assert_eq!((imported.models(), imported.noisy, imported.knows_hosts()), (3, 1, false));
    let names = |why: &str| imported.left_out[why].clone();
    assert_eq!(names("is for `image_generation`"), ["dall-e"]);
    assert_eq!(names("asks another price for what it thinks"), ["thinks"]);
    assert_eq!(names("has a price of more than six decimals"), ["fine"]);
    assert_eq!(names("has no price of its tokens"), ["half"]);
    assert_eq!(imported.ignored["input_cost_per_token_batches"], 1);
    let missing = imported.only(&["gpt-4o".to_owned(), "gpt-5".to_owned()]);
    assert_eq!((imported.models(), missing), (1, vec!["gpt-5".to_owned()]));
    assert!(imported.left_out.is_empty());
}

const GENAI: &str = r#"[{"id":"a","api_pattern":"https://api\\.a\\.com","models":[
    {"id":"o3","match":{"or":[{"equals":"o3"},{"starts_with":"o3-20"}]},"prices":[
        {"prices":{"input_mtok":10,"output_mtok":40}},
        {"constraint":{"start_date":"2025-06-10"},"prices":{"input_mtok":2,"output_mtok":8}}]},
    {"id":"long","match":{"equals":"long"},"prices":{"input_mtok":{"base":1.25,
        "tiers":[{"start":200000,"price":2.5}]},"output_mtok":10,"web_searches_kcount":10}},
    {"id":"embeds","match":{"equals":"embeds"},"prices":{"input_mtok":0.02}},
    {"id":"night","match":{"equals":"night"},"prices":[{"prices":{"input_mtok":1}},
        {"constraint":{"start_time":"00:30:00Z","end_time":"16:30:00Z"},"prices":{}}]},
    {"id":"thinks","match":{"equals":"thinks"},"prices":{"input_mtok":1,"output_mtok":2,
        "output_reasoning_mtok":3}},
    {"id":"any","match":{"or":[{"contains":"any"},{"equals":"any"}]},"prices":{"input_mtok":1}},
    {"id":"none","match":{"regex":"x"},"prices":{"input_mtok":1}}]},
    {"id":"b","api_pattern":"https://(api\\.)?b\\.com","models":[
    {"id":"m","match":{"equals":"m"},"prices":{"input_mtok":1,"output_mtok":2}}]}]"#;

#[test]
fn what_genai_prices_knows_is_taken_with_its_dates_tiers_and_hosts() {
    let imported = import(GENAI).unwrap();
    let table = imported.table("2026-11-20");
    assert!(table.contains("[hosts]\n\"api.a.com\" = \"a\"\n\n"), "{table}");
    assert!(
        table.contains(
            "model = [\"o3\", \"o3-20*\"]\nfrom = \"2025-06-10\"\n\
             usd_per_mtok = { input = \"2\", output = \"8\" }"
        ),
        "{table}"
    );
    assert!(
        table.contains(
            "above_input_tokens = 200000\nusd_per_mtok = { input = \"2.5\", output = \"10\" }"
        ),
        "{table}"
    );
    assert!(
        table.contains("model = [\"embeds\"]\nusd_per_mtok = { input = \"0.02\", output = \"0\" }")
    );
    assert_eq!(PriceTable::parse(&table, "t").unwrap().len(), 8);
    let names = |why: &str| imported.left_out[why].clone();
    assert_eq!(names("is also told by patterns that are not taken"), ["any", "none"]);
    assert_eq!(names("has a price that depends on the hour"), ["night"]);
    assert_eq!(names("asks another price for what it thinks"), ["thinks"]);
    assert_eq!(imported.ignored["web_searches_kcount"], 1);
}

#[test]
fn what_is_neither_format_is_refused_and_a_text_cannot_leave_its_quotes() {
    for text in ["", "[1]", "{\"a\":1}", "<html>"] {
        assert!(import(text).is_err(), "{text}");
    }
    assert_eq!(quoted("a\"b\\\n"), "\"a\\\"b\\\\\\u000a\"");
}

#[test]
fn a_number_that_is_no_length_and_rules_nested_without_end_are_not_taken() {
    let above = "input_cost_per_token_above_18446744073709551615k_tokens";
    let entry = r#""input_cost_per_token":1e-6,"output_cost_per_token":2e-6"#;
    let text =
        format!(r#"{{"m":{{"litellm_provider":"openai","mode":"chat",{entry},"{above}":3e-6}}}}"#);
    let imported = import(&text).unwrap();
    assert_eq!((imported.models(), imported.ignored[above]), (1, 1));
    let (open, close) = (r#"{"or":["#.repeat(20_000), "]}".repeat(20_000));
    let nested = format!(r#"{open}{{"equals":"none"}}{close}"#);
    let imported = import(&GENAI.replace(r#"{"regex":"x"}"#, &nested)).unwrap();
    let names = imported.left_out["is also told by patterns that are not taken"].clone();
    assert_eq!(names, ["any", "none"]);
}
