//! Whom a judge should not judge: models favour what their own family says.

use std::collections::BTreeMap;

use crate::domain::{Name, family};

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

/// The providers that are the judge's kin, and why: as candidates those who are asked for a model of
/// its family, as the primary who is asked for the very model that judges. Of a provider that is
/// asked for whatever the caller asks for nothing is known before it answers.
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

    /// The model that judges, where it may not judge its own kin.
    pub fn strict_judge(&self) -> Option<String> {
        self.judge.as_ref().filter(|it| it.kin == Kin::Refused).map(|it| it.model.clone())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, parse};

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
