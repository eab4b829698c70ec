//! What is told of plans that cannot stand.

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
    let price = *config.providers[1].prices.of(&["m-1.5"]).unwrap();
    assert_eq!((price.input, price.output), (2_500_000, 280_000));
    assert_eq!((price.cache_read, price.cache_write), (1, 2_500_000));
    assert_eq!(config.providers[1].prices.of(&["m-2"]), None);
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
