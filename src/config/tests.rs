//! What a file means, and how its faults read.

use std::collections::BTreeSet;

use proptest::prelude::*;
use secrecy::ExposeSecret;
use toml::de::DeTable;

use super::*;
use crate::domain::{Approval, Metric, Role};

const MINIMAL: &str = include_str!("../../config/minimal.toml");
const EXAMPLE: &str = include_str!("../../config/example.toml");

pub(super) const PROVIDERS: &str = "\
primary = 'a'
provider.a.base_url = 'http://127.0.0.1:1'
provider.b.base_url = 'http://127.0.0.1:2'
";

pub(super) fn parse(text: &str) -> Result<Config, Faults> {
    let environment = |name: &str| name.ends_with("_KEY").then(|| format!("secret-of-{name}"));
    Config::parse_with(text, "x.toml", &environment)
}

pub(super) fn faults(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// The faults of lines that stand below two sound providers, in lines 1 to 3.
pub(super) fn faults_below(lines: &str) -> String {
    faults(&format!("{PROVIDERS}{lines}"))
}

#[test]
fn fifteen_lines_start_a_real_rollout() {
    assert!(MINIMAL.lines().filter(|it| !it.trim().is_empty()).count() <= 15);
    let config = parse(MINIMAL).unwrap();
    let [rollout] = config.rollouts.as_slice() else { panic!("one rollout") };
    assert_eq!(rollout.autostart, Autostart::Yes);
    let days = |ms: u64| ms / 86_400_000;
    let stages: Vec<_> = rollout.plan.stages.iter().collect();
    let names: Vec<&str> = stages.iter().map(|it| it.name.as_str()).collect();
    let serve: Vec<u16> = stages.iter().map(|it| it.serve.basis_points()).collect();
    let stay: Vec<u64> = stages.iter().map(|it| days(it.duration_ms_min)).collect();
    assert_eq!(names, ["shadow", "read-only", "low-stakes", "half", "full"]);
    assert_eq!(serve, [0, 500, 2_000, 5_000, 10_000]);
    assert_eq!(stay, [7, 14, 14, 7, 14]);
    for stage in stages {
        assert_eq!((stage.mirror.basis_points(), stage.samples_min), (100, 1_000));
        let shown: Vec<String> = stage.gates.iter().map(|it| it.margin.to_string()).collect();
        assert_eq!(shown, ["+0.5pp", "max(+200ms, +10%)", ">= 95%", "+0.5pp"]);
    }
    assert_eq!(config.providers[1].models.get("gpt-4o"), Some("deepseek-v4-flash"));
    let key = config.providers[0].key.as_ref().unwrap();
    assert_eq!(key.expose_secret(), "secret-of-OPENAI_API_KEY");
}

#[test]
fn the_example_has_the_defaults_where_it_says_so() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.limits, Limits::default());
    let bare = parse(PROVIDERS).unwrap();
    assert_eq!(
        (config.listen, &config.control, config.operations, &config.store),
        (bare.listen, &bare.control, bare.operations, &bare.store)
    );
    let [chat, search] = config.rollouts.as_slice() else { panic!("two rollouts") };
    let minimal = &parse(MINIMAL).unwrap().rollouts[0].plan;
    assert_eq!((chat.plan.risk, chat.plan.judge_share), (minimal.risk, minimal.judge_share));
    assert_eq!(chat.plan.copies_per_day_max, minimal.copies_per_day_max);
    assert_eq!(chat.plan.times.idle_ms_max, minimal.times.idle_ms_max);
    assert_eq!(chat.plan.times.on_idle, minimal.times.on_idle);
    assert_eq!((chat.plan.times.freezes.len(), minimal.times.freezes.len()), (2, 0));
    let gates = |plan: &crate::domain::Plan| plan.stages[2].gates.clone();
    assert_eq!(gates(&chat.plan), gates(minimal));
    let [shadow, full] = search.plan.stages.as_slice() else { panic!("two stages") };
    let metrics: Vec<Metric> = shadow.gates.iter().map(|it| it.metric()).collect();
    assert_eq!(metrics, [Metric::ErrorRate, Metric::JudgeScore, Metric::RepeatedRate]);
    assert_eq!(shadow.gates[0].margin.to_string(), "+1pp");
    assert!(full.gates.iter().all(|it| it.role == Role::Prove));
    assert_eq!((shadow.approval, full.approval), (Approval::NotNeeded, Approval::Needed));
}

/// Tables whose keys are the operator's.
const FREE: [&str; 3] = ["model_map", "rename", "clamp"];

/// Names chosen by the operator say nothing about which keys a table knows.
fn kind(path: &str) -> String {
    let mut words: Vec<&str> = path.trim_matches(['[', ']']).split('.').collect();
    if ["provider", "rollout"].contains(&words[0]) && 1 < words.len() {
        words[1] = "NAME";
    }
    let price = words.iter().position(|it| *it == "price");
    if let Some(model) = price.and_then(|it| words.get_mut(it + 1)) {
        *model = "MODEL";
    }
    if words.get(1) == Some(&"rubric") && 2 < words.len() {
        words[2] = "NAME";
    }
    words.join(".")
}

/// Adds every table with its keys, free tables and the parents of named ones left out.
fn collect(path: &str, table: &DeTable<'_>, keys: &mut BTreeSet<(String, String)>) {
    for (key, value) in table {
        let below = [path, key.get_ref()].join(".").trim_matches('.').to_owned();
        let named = ["provider", "rollout", "patterns", "detect", "judge.rubric"].contains(&path);
        if !named && path.rsplit('.').next() != Some("price") {
            keys.insert((kind(path), key.get_ref().clone().into_owned()));
        }
        let items = value.get_ref().as_array().into_iter().flat_map(|it| it.iter());
        for table in items.chain([value]).filter_map(|it| it.get_ref().as_table()) {
            if !FREE.contains(&key.get_ref().as_ref()) {
                collect(&below, table, keys);
            }
        }
    }
}

#[test]
fn the_example_has_every_known_key() {
    // An unknown key is answered with the known ones; so put one into every table.
    let spoil = |line: &str| match line {
        "[judge.rubric]" => "[judge.rubric]\n".to_owned(),
        header if header.starts_with('[') => format!("{header}\nzzzzzz = 'z'\n"),
        map if FREE.iter().any(|it| map.starts_with(it)) => format!("{map}\n"),
        item if item.starts_with("  { ") => item.replacen("{ ", "{ zzzzzz = 'z', ", 1) + "\n",
        other => other.replace(" = { ", " = { zzzzzz = 'z', ") + "\n",
    };
    let spoiled: String = EXAMPLE.lines().map(spoil).collect();
    let faults = parse(&format!("zzzzzz = 'z'\n{spoiled}")).unwrap_err();
    let mut known = BTreeSet::new();
    for fault in faults.iter() {
        let path = fault.problem.strip_prefix("unknown key `zzzzzz`").expect("no other fault");
        let path = kind(path.strip_prefix(" in ").unwrap_or_default());
        let list = fault.remedy.strip_prefix("known here: ").expect("a list of keys");
        let keys = list.split(", ").map(|it| it.trim_matches('`').to_owned());
        known.extend(keys.map(|key| (path.clone(), key)));
    }
    let mut written = BTreeSet::new();
    collect("", DeTable::parse(EXAMPLE).unwrap().get_ref(), &mut written);
    assert_eq!(known, written);
}

#[test]
fn providers_alone_are_a_pass_through() {
    let config = parse("[provider.only]\nbase_url = 'HTTPS://API.example.com:443/v1/'\n").unwrap();
    assert_eq!((config.primary.as_str(), config.rollouts.len()), ("only", 0));
    assert_eq!(config.providers[0].base_url, "https://api.example.com/v1");
    assert_eq!(config.control, Control::Tcp("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(config.response_headers, Headers::Added);
    let name = "only".parse().unwrap();
    assert_eq!(config.provider(&name).unwrap().auth, Auth::Bearer);
}

#[test]
fn providers_and_rollouts_keep_the_order_of_the_file() {
    let text = "[rollout.z]\ncandidate = 'a'\nprimary = 'z'\n[provider.z]\nbase_url = 'http://z'\n\
                [provider.a]\nbase_url = 'http://a'\n";
    let config = parse(text).unwrap();
    let names: Vec<&str> = config.providers.iter().map(|it| it.name.as_str()).collect();
    assert_eq!((names, config.primary.as_str()), (vec!["z", "a"], "z"));
}

#[test]
fn a_mistyped_key_is_answered_with_the_right_one() {
    assert_eq!(
        faults_below("[rollout.chat]\ncandidate = 'b'\ncandidte = 'b'\n"),
        "\
error: unknown key `candidte` in [rollout.chat] at x.toml:6:1
    6 | candidte = …
      | ^^^^^^^^ did you mean `candidate`?"
    );
    assert_eq!(
        faults_below("[rollout.chat]\ncandidate = 'b'\nslice = { featurs = ['x'] }\n"),
        "\
error: unknown key `featurs` in [rollout.chat.slice] at x.toml:6:11
    6 | slice = { featurs = …
      |           ^^^^^^^ did you mean `features`?"
    );
}

/// F7
#[test]
fn every_fault_is_told_at_once_in_the_order_of_the_file() {
    assert_eq!(
        faults(
            "\
listen = 'localhost:8080'
control = '0.0.0.0:9090'
store = 7
primary = 'opnai'
[provider.openai]
base_url = 'ftp://x'
auth = 'barer'
[provider.Bad]
[rollout.chat]
mirror = '0.001%'
gates = { error_rate = '0.5', judge_score = '>= 95%' }
autostart = 'yes'
[[rollout.chat.stage]]
name = 'half'
serve = '50%'
prove = ['latency']
"
        ),
        "\
error: `listen` is not an address at x.toml:1:10
    1 | listen = 'localhost:8080'
      |          ^^^^^^^^^^^^^^^^ write it like \"127.0.0.1:8080\": a number and a port, \
no host name

error: `control` is open to other machines, and whoever reaches it may move traffic at x.toml:2:11
    2 | control = '0.0.0.0:9090'
      |           ^^^^^^^^^^^^^^ use a loopback address or \"unix:crossfade.sock\"; for other \
machines put a proxy in front that asks who they are

error: `store` is an integer, not a text with something in it at x.toml:3:9
    3 | store = …
      |         ^ write it between quotes

error: `primary` names no provider at x.toml:4:11
    4 | primary = 'opnai'
      |           ^^^^^^^ did you mean `openai`?

error: `base_url` in [provider.openai] is neither http nor https at x.toml:6:12
    6 | base_url = …
      |            ^ write it like \"https://api.openai.com/v1\"

error: `auth` in [provider.openai] is none of its words at x.toml:7:8
    7 | auth = …
      |        ^ did you mean `bearer`?

error: `base_url` is missing in [provider.Bad] at x.toml:8:1
    8 | [provider.Bad]
      | ^^^^^^^^^^^^^^ write it like \"https://api.openai.com/v1\"

error: `Bad` is not a name at x.toml:8:11
    8 | [provider.Bad]
      |           ^^^ use 1 to 63 of a-z, 0-9 and `-`, a letter or digit first

error: `candidate` is missing in [rollout.chat] at x.toml:9:1
    9 | [rollout.chat]
      | ^^^^^^^^^^^^^^ name the provider under test

error: `mirror` in [rollout.chat] is not a share at x.toml:10:10
   10 | mirror = '0.001%'
      |          ^^^^^^^^ write it like \"5%\" or \"0.25%\", from 0% to 100%, at most two decimals

error: `error_rate` in [rollout.chat.gates] is not a margin at x.toml:11:24
   11 | gates = { error_rate = '0.5'
      |                        ^^^^^ write it like \"+0.5pp\", or \"off\" to go without this gate

error: `judge_score` in [rollout.chat.gates] needs a judge at x.toml:11:45
   11 | … '>= 95%' }
      |   ^^^^^^^^ add a [judge] or leave the key out

error: `autostart` in [rollout.chat] is a string, not true or false at x.toml:12:13
   12 | autostart = …
      |             ^ write `true` or `false`

error: `duration` is missing in [[rollout.chat.stage]] at x.toml:13:1
   13 | [[rollout.chat.stage]]
      | ^^^^^^^^^^^^^^^^^^^^^^ say how long the stage lasts at least, like \"14d\"

error: `prove` in [[rollout.chat.stage]] names no gate of the stage at x.toml:16:10
   16 | prove = ['latency']
      |          ^^^^^^^^^ its gates are `error_rate`, `latency_p99`"
    );
}

#[test]
fn a_plan_that_cannot_stand_is_shown_where_it_is_written() {
    let stage = |name: &str, serve: &str| {
        format!("[[rollout.chat.stage]]\nname = '{name}'\nserve = '{serve}'\nduration = '1d'\n")
    };
    let stages = stage("one", "20%") + &stage("two", "5%");
    assert_eq!(
        faults_below(&format!("[rollout.chat]\ncandidate = 'a'\n{stages}")),
        "\
error: `candidate` in [rollout.chat] cannot stand at x.toml:5:13
    5 | candidate = 'a'
      |             ^^^ `a` is the primary itself

error: `serve` in [[rollout.chat.stage]] cannot stand at x.toml:12:9
   12 | serve = '5%'
      |         ^^^^ 5% is less than the stage before serves"
    );
    assert_eq!(
        faults_below("[rollout.chat]\ncandidate = 'b'\nmirror = '0%'\n"),
        "\
error: `mirror` in [rollout.chat] cannot stand at x.toml:6:10
    6 | mirror = '0%'
      |          ^^^^ is 0: without pairs nothing can be proven"
    );
}

#[test]
fn rollouts_that_could_claim_the_same_request_are_refused() {
    let text = "[rollout.one]\ncandidate = 'b'\n\
                [rollout.two]\ncandidate = 'b'\nslice = { features = ['x'] }\n";
    assert_eq!(
        faults_below(text),
        "\
error: `slice` in [rollout.two] overlaps: a request could belong to `one` and `two` at x.toml:8:1
    8 | slice = …
      | ^^^^^ keep it apart from `one` in line 4 by features, segments, tasks or models"
    );
}

#[test]
fn stages_and_the_default_ladder_exclude_each_other() {
    let text = "[rollout.chat]\ncandidate = 'b'\nladder = 'default'\nmigratable = ['x']\n\
                [[rollout.chat.stage]]\nname = 'all'\nserve = '100%'\nduration = '1h'\n";
    assert_eq!(
        faults_below(text),
        "\
error: `ladder` in [rollout.chat] stands beside stages of its own at x.toml:6:10
    6 | ladder = 'default'
      |          ^^^^^^^^^ leave it out, or leave the stages out

error: `migratable` in [rollout.chat] is for the default ladder only at x.toml:7:1
    7 | migratable = …
      | ^^^^^^^^^^ give the stage that it narrows a `slice`"
    );
}

#[test]
fn what_is_missing_from_the_whole_file_is_told_without_a_place() {
    assert_eq!(
        faults(""),
        "error: `provider` is missing in x.toml\n\n\
         hint: add at least one table like [provider.openai] with a `base_url`"
    );
    let two = PROVIDERS.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(
        faults(&two),
        "error: `primary` is missing in x.toml\n\n\
         hint: name the provider that serves today, like primary = \"openai\""
    );
}

#[test]
fn an_empty_table_of_providers_is_no_configuration() {
    assert_eq!(faults("[provider]\n[rollout.chat]\nprimary = 'X'\n").matches("error: ").count(), 3);
    assert!(faults("[provider]\n").contains("`provider` has no provider in it at x.toml:1:2"));
}

#[test]
fn columns_count_characters_and_marks_stand_under_them() {
    assert_eq!(
        faults_below("\tdata_default = [ 7 ]\r\n\"lïsten\" = 'ü'\r\nlimits.grace = 5\r\n"),
        "\
error: `data_default` has an item that is no text at x.toml:4:19
    4 | data_default = [ … ]
      |                  ^ write it like [\"a\", \"b\"]

error: unknown key `lïsten` at x.toml:5:1
    5 | \"lïsten\" = …
      | ^^^^^^^^ did you mean `listen`?

error: `grace` in [limits] is an integer, not a time at x.toml:6:16
    6 | limits.grace = …
      |                ^ write it like \"10s\", from 0ms to 10m"
    );
}

#[test]
fn listeners_need_places_of_their_own() {
    assert_eq!(
        faults(&format!("operations = '127.0.0.1:8080'\n{PROVIDERS}")),
        "\
error: `operations` is the same address as `listen` at x.toml:1:14
    1 | operations = '127.0.0.1:8080'
      |              ^^^^^^^^^^^^^^^^ give `listen`, `operations` and `control` a port each"
    );
    let free = "listen = '127.0.0.1:0'\noperations = '127.0.0.1:0'\ncontrol = 'unix:x.sock'\n";
    assert_eq!(
        parse(&format!("{free}{PROVIDERS}")).unwrap().control,
        Control::Unix("x.sock".into())
    );
}

#[test]
fn a_text_that_is_not_toml_is_shown_by_line_without_values() {
    assert_eq!(
        faults("listen = '127.0.0.1:1'\nlisten = '127.0.0.1:2'\n"),
        "\
error: duplicate key at x.toml:2:1
    2 | listen = …
      | ^ write each key once"
    );
    let text = faults("[provider.a]\nkey = sk-live-1\n[provider.a\n");
    assert!(text.contains("not TOML") && text.contains("x.toml:2:"), "{text}");
    assert!(text.contains("    2 | key = …"), "{text}");
    assert!(!text.contains("sk-live"), "{text}");
}

#[test]
fn a_secret_is_never_shown() {
    let hidden = "sk-live-1234";
    for lines in [
        format!("[provider.c]\nbase_url = 'http://c'\nkey = '{hidden}'"),
        format!("[provider.c]\nbase_url = 'http://c'\nkye = '{hidden}'"),
        format!("[provider.c]\nbase_url = 'http://c'\nkey = ['{hidden}']"),
        format!("[provider.c]\nbase_url = 'http://c'\nauth = '{hidden}'"),
        format!("[provider.c]\nbase_url = 'http://me:{hidden}@c'"),
        format!("[provider.c]\nbase_url = 'http://c?key={hidden}'"),
        format!("provider.c = {{ key = '{hidden}', bas_url = 'x' }}"),
        format!("provider.c = {{ key = 'env:{hidden}', base_url = 'x' }} # {hidden}"),
        format!("provider.c = {{ key = {{ a = '{hidden}' }}, base_url = 'x' }}"),
        format!("data_default = [{{ key = '{hidden}' }}]"),
        format!("provider = '{hidden}'"),
        format!("key = \"\"\"\n{hidden}\\q\"\"\""),
        format!("key = {hidden}\n{hidden}\n"),
        format!("key = '{hidden}\n"),
    ] {
        let text = faults_below(&lines);
        assert!(!text.contains(hidden), "{text}");
        let debug = format!("{:?}", parse(&format!("{PROVIDERS}{lines}")));
        assert!(!debug.contains(hidden), "{debug}");
    }
    let config = parse(EXAMPLE).unwrap();
    assert!(!format!("{config:?}").contains("secret-of"));
}

#[test]
fn a_secret_that_cannot_be_had_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let (good, empty) = (folder.path().join("good"), folder.path().join("empty"));
    std::fs::write(&good, "sk-1\n").unwrap();
    std::fs::write(&empty, "\n").unwrap();
    let with = |key: &str| parse(&format!("[provider.a]\nbase_url = 'http://a'\nkey = '{key}'\n"));
    let file = |path: &Path| format!("file:{}", path.display());
    let config = with(&file(&good)).unwrap();
    assert_eq!(config.providers[0].key.as_ref().unwrap().expose_secret(), "sk-1");
    for (key, problem) in [
        (file(&empty), "refers to a secret that is empty"),
        (file(&folder.path().join("none")), "refers to a file that cannot be read: No such file"),
        (
            "env:NOT_SET".to_owned(),
            "refers to the variable NOT_SET, which is not set at x.toml:3:7",
        ),
        ("sk-1".to_owned(), "is written out at x.toml:3:7"),
    ] {
        let text = with(&key).unwrap_err().to_string();
        assert!(text.starts_with(&format!("error: `key` in [provider.a] {problem}")), "{text}");
    }
}

#[test]
fn two_callers_with_one_key_are_refused() {
    let text = "[[caller]]\nkey = 'env:APP_KEY'\nfeature = 'x'\n\
                [[caller]]\nkey = 'env:APP_KEY'\nfeature = 'y'\n";
    assert_eq!(
        faults_below(text),
        "\
error: `key` in [[caller]] is the key of another caller too at x.toml:8:7
    8 | key = 'env:APP_KEY'
      |       ^^^^^^^^^^^^^ give each caller its own"
    );
}

proptest! {
    #[test]
    fn no_text_however_spoiled_is_a_panic_or_shows_a_secret(
        from in 0..EXAMPLE.len(),
        length in 0_usize..40,
        other in "[\\[\\]={}\"'\\n\\r\\t.,#0-9a-zé%]{0,6}",
    ) {
        let text = EXAMPLE.replace("env:OPENAI_API_KEY", "sk-live-1234");
        let until = text.len().min(from + length);
        if let (Some(head), Some(tail)) = (text.get(..from), text.get(until..)) {
            let spoiled = format!("{head}{other}{tail}");
            // The name of a file that is not there is shown, whatever somebody wrote there.
            prop_assume!(!spoiled.contains("ca = \"sk-live"));
            let faults = parse(&spoiled).unwrap_err();
            prop_assert!(!faults.to_string().contains("live"), "{}", faults);
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let text = Config::load(&path).unwrap_err().to_string();
    assert!(text.starts_with("error: cannot read the configuration "), "{text}");
    assert!(text.contains("No such file") && text.contains("\n\nhint: "), "{text}");
}
