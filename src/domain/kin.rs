//! Whose kin a model is, as far as names tell: models favour what their own family says.

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
pub fn family(model: &str) -> Option<&'static str> {
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

/// Why a model should not judge a pair that these answered, the primary's first, if it should not:
/// the very same, or for the candidate one of its family.
pub fn kinship(judge: &str, answered: [Option<&str>; 2]) -> Option<String> {
    let [primary, candidate] = answered;
    let same = |it: &&str| is_same(judge, it);
    if let Some(own) = primary.filter(same).or_else(|| candidate.filter(same)) {
        return Some(format!("`{judge}` would judge itself: answers come from `{own}`"));
    }
    let (maker, model) = (family(judge)?, candidate?);
    (family(model) == Some(maker))
        .then(|| format!("`{judge}` would judge `{model}`: both are made by {maker}"))
}

/// Whether both names are of one model: whoever sells it, and with the day of its version or without.
fn is_same(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|it| {
        let bare = it.rsplit('/').next().unwrap_or(it);
        bare.to_ascii_lowercase()
    });
    let dated = |short: &str, long: &str| {
        let rest = long.strip_prefix(short).and_then(|it| it.strip_prefix(['-', '@']));
        rest.is_some_and(|it| it.chars().all(|it| it.is_ascii_digit() || it == '-'))
    };
    one == other || dated(&one, &other) || dated(&other, &one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_the_same_whoever_sells_it_and_whatever_its_day() {
        for (one, other, same) in [
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "openai/gpt-4o-2024-08-06", true),
            ("GPT-4o-2024-08-06", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4", "gpt-4.1", false),
            ("o3", "o3-mini", false),
        ] {
            assert_eq!(is_same(one, other), same, "{one} {other}");
        }
    }

    #[test]
    fn nobody_judges_itself_nor_a_candidate_of_its_family() {
        let told = |primary, candidate| kinship("gpt-4o", [primary, candidate]);
        assert_eq!(told(None, None), None);
        assert_eq!(told(Some("gpt-4.1"), Some("deepseek-v3")), None);
        let own = "`gpt-4o` would judge itself: answers come from `gpt-4o-2024-08-06`";
        assert_eq!(told(Some("gpt-4o-2024-08-06"), None).as_deref(), Some(own));
        assert!(told(None, Some("gpt-4.1-mini")).unwrap().contains("both are made by OpenAI"));
        assert_eq!(kinship("our-own", [Some("gpt-4o"), Some("theirs")]), None);
    }

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
}
