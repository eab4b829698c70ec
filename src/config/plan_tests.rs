//! What is told of plans that cannot stand.

use crate::domain::{Mark, Metric, Timestamp, Watched, golden_digest};

use super::{
    plan,
    tests::{faults, faults_below, parse},
};

/// F3
#[test]
fn a_gate_on_cost_needs_the_prices_of_both_providers() {
    let file = |prices: &str| {
        format!(
            "primary = 'a'\n[provider.a]\nbase_url = 'http://a'\n[provider.b]\n\
             base_url = 'http://b'\n{prices}[rollout.chat]\ncandidate = 'b'\n\
             gates = {{ cost = '<= 40%, expected 30%, each <= 1' }}\n"
        )
    };
    let of = |name: &str, rest: &str| {
        format!("[provider.{name}.price.'m-1.5']\ninput = '2.50'\n{rest}\n")
    };
    let both = of("a", "output = '10'") + &of("b", "output = '0.28'\ncache_read = '0.000001'");
    let config = parse(&file(&both)).unwrap();
    let price = config.providers[1].prices.of(&["m-1.5"], Timestamp(0)).unwrap().tariff.price;
    assert_eq!((price.input, price.output), (2_500_000, 280_000));
    assert_eq!((price.cache_read, price.cache_write), (1, 2_500_000));
    assert_eq!(config.providers[1].prices.of(&["m-2"], Timestamp(0)), None);
    let alias = file(&both).replace("cost =", "cost_per_request =");
    let (again, config) = (parse(&alias).unwrap(), parse(&file(&both)).unwrap());
    assert_eq!(again.rollouts[0].plan, config.rollouts[0].plan, "it has two names");
    let twice = file(&both).replace("cost =", "cost_per_request = 'off', cost =");
    assert!(faults(&twice).contains("unknown key `cost`"));
    let told = faults(&file(&of("a", "output = '10'")));
    assert!(told.contains("provider `b` has no price"), "{told}");
    let told = faults(&file(&of("a", "output = 10.0")));
    assert!(told.contains("`output`") && told.contains("US dollars for a million"), "{told}");
    let told = faults(&file(&of("a", "")));
    assert!(told.contains("`output` is missing"), "{told}");
}

#[test]
fn a_plan_alone_needs_no_providers_and_is_exactly_one() {
    let one = "[rollout.x]\ncandidate = \"anyone\"\nladder = \"default\"\n";
    let read = plan(one, "f").unwrap().plan;
    assert_eq!((read.primary.as_str(), read.candidate.as_str()), ("primary", "anyone"));
    assert!(read.stages.iter().all(|it| it.gates.len() == 3), "a judge is taken to be there");
    let whole = format!("listen = \"127.0.0.1:0\"\n{one}primary = \"somebody\"\n");
    assert_eq!(plan(&whole, "f").unwrap().plan.primary.as_str(), "somebody");
    for (text, told) in [
        ("", "there are 0 rollouts"),
        (&format!("{one}{}", one.replace(".x]", ".y]")), "there are 2 rollouts"),
        (&one.replace("ladder", "laddre"), "did you mean `ladder`?"),
        ("[rollout", "f:1"),
    ] {
        let faults = plan(text, "f").unwrap_err().to_string();
        assert!(faults.contains(told), "{text}: {faults}");
    }
}

/// M16
#[test]
fn noise_is_a_share_and_nothing_counts_beyond_it_where_it_is_not_measured() {
    let of = |keys: &str| format!("[rollout.chat]\ncandidate = 'b'\n{keys}\n");
    let noise = |keys: &str| plan(&of(keys), "f").unwrap().plan.noise.basis_points();
    assert_eq!((noise(""), noise("noise = '0.5%'")), (0, 50));
    let gates = "gates = { error_rate = '+0.5pp beyond noise' }";
    assert_eq!(noise(&format!("{gates}\nnoise = '1%'")), 100);
    for (keys, told) in [
        (gates, "count beyond noise, and no `noise` is measured"),
        ("noise = '101%'", "`noise`"),
        ("gates = { judge_score = '>= 95% beyond noise' }\nnoise = '1%'", "is not a margin"),
    ] {
        let faults = plan(&of(keys), "f").unwrap_err().to_string();
        assert!(faults.contains(told), "{keys}: {faults}");
    }
}

#[test]
fn answers_are_compared_by_labels_and_fields_and_nonsense_is_told() {
    let of = |keys: &str| format!("[rollout.chat]\ncandidate = 'b'\n{keys}\n");
    let compare = "compare = { labels = ['spam', 'ham'], fields = ['order.id'] }";
    let gates = "gates = { label_match_rate = '-2pp' }";
    let read = plan(&of(&format!("{compare}\n{gates}")), "f").unwrap().plan;
    assert_eq!((read.compared.labels.len(), read.compared.fields.len()), (2, 1));
    assert!(read.gates(Metric::LabelMatchRate));
    for (keys, told) in [
        (gates, "label_match_rate needs labels to compare by"),
        ("compare = { labels = ['a', 'A.'] }", "`compare` in [rollout.chat] cannot stand"),
        ("compare = { labels = ['a', 'A.'] }", "has the label `a` twice"),
        ("compare = { fields = ['..'] }", "cannot be one of the fields"),
        ("compare = { label = ['a'] }", "did you mean `labels`?"),
        ("gates = { tool_call_match_rat = '-1pp' }", "did you mean `tool_call_match_rate`?"),
        ("gates = { schema_valid_rate = '+1pp' }", "write it like \"-0.5pp\""),
        ("gates = { rouge_l = '-1pp' }", "write it like \">= 50%\""),
    ] {
        let faults = plan(&of(keys), "f").unwrap_err().to_string();
        assert!(faults.contains(told), "{keys}: {faults}");
    }
}

#[test]
fn slices_are_watched_by_one_mark_and_what_cannot_be_is_told_where_it_stands() {
    let of = |keys: &str| format!("[rollout.chat]\ncandidate = 'b'\nslices = {{ {keys} }}\n");
    let watched = plan(&of("by = 'task', values = ['tools', 'text']"), "f").unwrap().plan.watched;
    assert_eq!(
        watched,
        Some(Watched { by: Mark::Task, values: vec!["tools".into(), "text".into()] })
    );
    for (keys, told) in [
        ("by = 'tusk', values = ['a']", "`by` in [rollout.chat.slices] is none of its words"),
        ("by = 'tusk', values = ['a']", "did you mean `task`?"),
        ("values = ['a']", "`by` is missing in [rollout.chat.slices]"),
        ("by = 'task'", "`values` is missing in [rollout.chat.slices]"),
        ("by = 'task', values = []", "watches 1 to 8 slices, not 0"),
        ("by = 'task', values = ['a', 'a']", "names task `a` twice"),
        ("by = 'task', values = ['a'], more = 1", "unknown key `more`"),
    ] {
        let faults = faults_below(&of(keys));
        assert!(faults.contains(told), "{keys}: {faults}");
    }
    let narrow = of("by = 'feature', values = ['a']") + "slice = { features = ['b'] }\n";
    let faults = faults_below(&narrow);
    assert!(faults.contains("`slices` in [rollout.chat] cannot stand"), "{faults}");
    assert!(faults.contains("feature `a`, which the rollout does not govern"), "{faults}");
}

#[test]
fn a_freeze_that_is_none_is_told_by_its_key() {
    let rollout = "[rollout.chat]\ncandidate = 'b'\n";
    let told = faults_below(&format!(
        "{rollout}freeze = [{{ days = ['fri'], from = '18:00', to = '08:00', zone = 'Berlin' }}]\n"
    ));
    assert!(told.contains("`zone` in [rollout.chat.freeze] cannot stand"), "{told}");
    assert!(told.contains("write it like `Europe/Berlin`"), "{told}");
    let told = faults_below(&format!("{rollout}freeze = [{{ from = '18:00', to = '08:00' }}]\n"));
    assert!(told.contains("`from` in [rollout.chat.freeze] cannot stand"), "{told}");
    let told = faults_below(&format!(
        "{rollout}[[rollout.chat.stage]]\nname = 'a'\nserve = '0%'\nduration = '2d'\n\
         duration_max = '1d'\n"
    ));
    assert!(told.contains("`duration_max` in [[rollout.chat.stage]] cannot stand"), "{told}");
}

#[test]
fn a_golden_set_is_known_by_what_is_in_its_file() {
    let file = |golden: &str| {
        format!(
            "primary = 'a'\n[provider.a]\nbase_url = 'http://a'\n[provider.b]\n\
             base_url = 'http://b'\n[rollout.chat]\ncandidate = 'b'\n{golden}\n"
        )
    };
    let read = |golden: &str| parse(&file(golden)).unwrap().rollouts.remove(0).golden;
    assert_eq!(read(""), None);
    let golden = read("golden = { set = 'config/golden.jsonl', within = '2.5pp' }").unwrap();
    assert_eq!((golden.set.as_str(), golden.file.as_str()), ("golden", "config/golden.jsonl"));
    let text = include_str!("../../config/golden.jsonl");
    assert_eq!((golden.digest, golden.within_bps), (golden_digest(text), 250));
    for (golden, told) in [
        ("set = 'config/golden.jsonl'", "`within` is missing"),
        ("within = '2pp'", "`set` is missing"),
        ("set = 'config/golden.jsonl', within = '2%'", "percentage points"),
        ("set = 'config/none.jsonl', within = '2pp'", "cannot be read"),
    ] {
        let faults = faults(&file(&format!("golden = {{ {golden} }}")));
        assert!(faults.contains(told), "{golden}: {faults}");
    }
}
