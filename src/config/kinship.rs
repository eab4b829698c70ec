//! Whom a judge should not judge: models favour what their own family says.

use std::collections::BTreeMap;

use crate::domain::Name;

use super::{Config, Judge, Provider};

/// Whether a judge may judge its own kin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kin {
    /// Plans with a gate on its scores are refused.
    #[default]
    Refused,
    /// It may.
    Allowed,
}

/// Who makes models, and how a part of their names begins; a number may follow.
#[rustfmt::skip]
const FAMILIES: &[(&str, &[&str])] = &[
    ("OpenAI", &["gpt", "chatgpt", "o1", "o3", "o4", "davinci"]),
    ("Anthropic", &["claude"]),
    ("Google", &["gemini", "gemma", "palm"]),
    ("Meta", &["llama", "codellama"]),
    ("Mistral", &["mistral", "mixtral", "ministral", "codestral", "magistral", "devstral", "pixtral"]),
    ("Alibaba", &["qwen", "qwq"]),
    ("DeepSeek", &["deepseek"]),
    ("Cohere", &["command", "aya"]),
    ("xAI", &["grok"]),
    ("Amazon", &["nova", "titan"]),
    ("Microsoft", &["phi", "wizardlm"]),
    ("Zhipu", &["glm", "chatglm"]),
    ("Moonshot", &["kimi", "moonshot"]),
    ("MiniMax", &["minimax", "abab"]),
    ("AI21", &["jamba"]),
];

/// Who makes a model, as far as its name tells: of a distilled one, who distilled it.
fn family(model: &str) -> Option<&'static str> {
    let name = model.to_ascii_lowercase();
    let is_of = |word: &str, stem: &str| {
        let rest = word.strip_prefix(stem);
        rest.is_some_and(|it| it.chars().next().is_none_or(|it| it.is_ascii_digit()))
    };
    name.split(|it: char| !it.is_ascii_alphanumeric()).find_map(|word| {
        let makes = |(_, stems): &&(_, &[&str])| stems.iter().any(|stem| is_of(word, stem));
        FAMILIES.iter().find(makes).map(|(maker, _)| *maker)
    })
}

/// The providers that are the judge's kin, and why: as candidates those who are asked for a model of
/// its family, as the primary who is asked for the very model that judges. Of a provider that is
/// asked for whatever the caller asks for nothing is known.
pub(super) fn kin(
    judge: Option<&Judge>,
    providers: &[Provider],
    primary: Option<&Name>,
) -> BTreeMap<Name, String> {
    let Some(judge) = judge.filter(|it| it.kin == Kin::Refused) else { return BTreeMap::new() };
    let (judging, made_by) = (&judge.model, family(&judge.model));
    let why = |it: &Provider| {
        it.models.iter().find_map(|(_, model)| {
            let name = &it.name;
            if model == judging {
                return Some(format!(
                    "`{judging}` would judge itself: it is what `{name}` is asked"
                ));
            }
            let maker = made_by.filter(|_| primary != Some(name))?;
            (family(model) == Some(maker)).then(|| {
                format!("`{judging}` would judge `{model}` of `{name}`: both are made by {maker}")
            })
        })
    };
    providers.iter().filter_map(|it| Some((it.name.clone(), why(it)?))).collect()
}

impl Config {
    /// The providers between which the judge should not judge, and why; none where it may.
    pub fn kin(&self) -> BTreeMap<Name, String> {
        kin(self.judge.as_ref(), &self.providers, Some(&self.primary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{faults, parse};

    #[test]
    fn who_makes_a_model_is_told_by_its_name_whoever_sells_it() {
        for (model, maker) in [
            ("gpt-4o-mini", Some("OpenAI")),
            ("openai/o3-mini", Some("OpenAI")),
            ("ft:gpt-4.1:acme::1", Some("OpenAI")),
            ("us.anthropic.claude-sonnet-4-5-v1:0", Some("Anthropic")),
            ("models/Gemini-2.5-flash", Some("Google")),
            ("meta-llama/Llama-3.3-70B", Some("Meta")),
            ("llama3.1:8b", Some("Meta")),
            ("qwen2.5-coder", Some("Alibaba")),
            ("deepseek-r1-distill-llama-70b", Some("DeepSeek")),
            ("our-own", None),
            ("novel", None),
            ("", None),
        ] {
            assert_eq!(family(model), maker, "{model}");
        }
    }

    /// A primary and a candidate that are asked for these models, and who judges them.
    fn text(primary: &str, candidate: &str, judge: &str) -> String {
        format!(
            "primary = 'a'\n\
             [provider.a]\nbase_url = 'http://a'\nmodel_map = {{ '*' = '{primary}' }}\n\
             [provider.b]\nbase_url = 'http://b'\nmodel_map = {{ '*' = '{candidate}' }}\n\
             [judge]\nbase_url = 'http://c'\nmodel = {judge}\n\
             [rollout.chat]\ncandidate = 'b'\n"
        )
    }

    /// O5 B-80
    #[test]
    fn a_judge_of_the_candidates_family_or_one_that_serves_has_to_be_allowed() {
        let told = faults(&text("claude-opus-4", "gpt-4o-mini", "'gpt-4o'"));
        let why =
            "judge_score`, but `gpt-4o` would judge `gpt-4o-mini` of `b`: both are made by OpenAI";
        assert!(told.contains(why) && told.contains("allow_kin = true"), "{told}");
        let told = faults(&text("ours", "theirs", "'theirs'"));
        assert!(told.contains("`theirs` would judge itself: it is what `b` is asked"), "{told}");
        let told = faults(&text("gpt-4o", "claude-haiku", "'gpt-4o'"));
        assert!(told.contains("`gpt-4o` would judge itself: it is what `a` is asked"), "{told}");
        for fine in [
            text("gpt-4o", "claude-haiku", "'gpt-5'"),
            text("gpt-4o", "ours", "'theirs'"),
            text("gpt-4o", "gpt-4o-mini", "'gpt-4o'\nallow_kin = true"),
            text("gpt-4o", "gpt-4o-mini", "'gpt-4o'") + "gates = { judge_score = 'off' }",
        ] {
            assert!(parse(&fine).is_ok(), "{fine}");
        }
    }
}
