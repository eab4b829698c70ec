//! Who serves whom: what sticks to a provider, and who is behind the primary.

use crate::domain::{Name, Sticky};

use super::{
    form::{NAME, STICKY},
    provider::Provider,
    rollout::check_provider,
    table::Table,
};

/// Who answers in place of the primary, each once.
pub(super) fn failover(
    top: &Table<'_>,
    providers: &[Provider],
    primary: Option<&Name>,
) -> Vec<Name> {
    const KEY: &str = "failover";
    let mut others = Vec::new();
    for (text, spot) in top.texts(KEY).unwrap_or_default() {
        let Some(name) = (NAME.read)(text) else {
            top.fault_at(Some(&spot), KEY, "has an item that is not a name", NAME.remedy);
            continue;
        };
        check_provider(top, KEY, &name, providers);
        if primary == Some(&name) {
            let remedy = "name others than the primary, in the order they are to be asked";
            top.fault_at(Some(&spot), KEY, "has the primary itself in it", remedy);
        } else if others.contains(&name) {
            top.fault_at(Some(&spot), KEY, "names a provider twice", "name each once");
        }
        others.push(name);
    }
    others
}

/// What sticks to a side; without a word, conversations and then users.
pub(super) fn sticky(top: &Table<'_>) -> Vec<Sticky> {
    const KEY: &str = "sticky";
    let Some(texts) = top.texts(KEY) else { return Sticky::DEFAULT.to_vec() };
    let read = |(text, spot)| {
        let part = (STICKY.read)(text);
        if part.is_none() {
            let problem = format!("has an item that is not {}", STICKY.name);
            top.fault_at(Some(&spot), KEY, &problem, STICKY.remedy);
        }
        part
    };
    texts.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{PROVIDERS, faults, parse};

    #[test]
    fn what_sticks_together_is_a_list_of_words() {
        let sticky = |text: &str| parse(&format!("{text}\n{PROVIDERS}")).unwrap().sticky;
        assert_eq!(sticky(""), Sticky::DEFAULT);
        assert_eq!(sticky("sticky = []"), []);
        let header = Sticky::Header("x-session".to_owned());
        assert_eq!(
            sticky("sticky = ['header:X-Session', 'first-messages']"),
            [header, Sticky::Opening]
        );
        let told = faults(&format!("sticky = ['header:']\n{PROVIDERS}"));
        assert!(told.contains("`sticky` has an item that is not part of a key"), "{told}");
    }

    #[test]
    fn a_failover_names_other_providers_each_once() {
        let config = parse(&format!("failover = ['b']\n{PROVIDERS}")).unwrap();
        assert_eq!(config.failover, ["b".parse().unwrap()]);
        assert!(parse(PROVIDERS).unwrap().failover.is_empty());
        for (list, told) in [
            ("['c']", "names no provider"),
            ("['a']", "has the primary itself in it"),
            ("['b', 'b']", "names a provider twice"),
            ("['B']", "has an item that is not a name"),
            ("'b'", "is a string, not a list of texts"),
        ] {
            let faults = faults(&format!("failover = {list}\n{PROVIDERS}"));
            assert!(faults.contains(&format!("`failover` {told}")), "{list}: {faults}");
        }
    }
}
