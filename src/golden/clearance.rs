//! Whether a set may go where it is to be sent, and its answers be kept.

use crate::config::Config;
use crate::domain::{Name, is_cleared};

use super::{Case, Set};

/// What keeps a set from being put to two providers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// A case has data that a provider is not cleared for.
    #[error("case `{case}` carries {data:?}, and `{provider}` is not cleared for it")]
    Provider {
        /// The case.
        case: String,
        /// Its data classes.
        data: Vec<String>,
        /// The provider.
        provider: Name,
    },
    /// A case has data of which no texts may be kept.
    #[error("case `{case}` carries {data:?}, and `store_data` lets no texts of it be kept")]
    Store {
        /// The case.
        case: String,
        /// Its data classes.
        data: Vec<String>,
    },
}

/// Looks at every case before any is asked. The provider that serves today is whom applications ask
/// anyway, and gets everything.
///
/// # Errors
/// The first case that may not go to one of these, or of which the answers may not be kept.
pub fn clearance(set: &Set, config: &Config, providers: [&Name; 2]) -> Result<(), Barred> {
    for case in &set.cases {
        let (id, data) = (|| case.id.clone(), classes(case, config));
        if !is_cleared(&config.store_cleared, &data) {
            return Err(Barred::Store { case: id(), data });
        }
        let asked = providers.into_iter().filter(|it| **it != config.primary);
        for provider in asked.filter_map(|it| config.provider(it)) {
            if !is_cleared(&provider.cleared, &data) {
                let provider = provider.name.clone();
                return Err(Barred::Provider { case: id(), data, provider });
            }
        }
    }
    Ok(())
}

/// What a case says it carries, or what is taken for granted, and what it shows.
fn classes(case: &Case, config: &Config) -> Vec<String> {
    let mut classes = case.data.clone().unwrap_or_else(|| config.data_default.clone());
    classes.extend(config.detector.classes(&case.body));
    classes.sort();
    classes.dedup();
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_of_whom_it_may_not_go_to_and_nothing_kept_that_may_not_be() {
        let config = |more: &str| {
            let text = format!(
                "primary = \"a\"\n{more}\n[provider.a]\nbase_url = \"http://127.0.0.1:1\"\n\
                 [provider.b]\nbase_url = \"http://127.0.0.1:2\"\nkey = \"none\"\ndata = [\"eu\"]\n"
            );
            Config::parse_with(&text, "c.toml", &|_| None).unwrap()
        };
        let barred = |data: &str, more: &str| {
            let line = format!("{{\"id\":\"x\",{data}\"model\":\"m\",\"messages\":[]}}");
            let set = Set::parse(&line).unwrap();
            let [a, b] = ["a", "b"].map(|it| it.parse().unwrap());
            clearance(&set, &config(more), [&a, &b]).err()
        };
        let kept = "store_data = [\"eu\", \"pii\"]";
        assert_eq!(barred("", ""), None);
        assert_eq!(barred("\"data\":[\"eu\"],", kept), None);
        let eu = || vec!["eu".to_owned()];
        assert_eq!(
            barred("\"data\":[\"eu\"],", ""),
            Some(Barred::Store { case: "x".to_owned(), data: eu() })
        );
        assert_eq!(
            barred("", "data_default = [\"eu\"]"),
            Some(Barred::Store { case: "x".to_owned(), data: eu() })
        );
        assert_eq!(barred("\"data\":[],", "data_default = [\"eu\"]"), None);
        let (case, data, provider) = ("x".to_owned(), vec!["pii".to_owned()], "b".parse().unwrap());
        assert_eq!(
            barred("\"data\":[\"pii\"],", kept),
            Some(Barred::Provider { case, data, provider })
        );
    }
}
