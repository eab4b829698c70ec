//! What may leave and be kept: patterns by name, the data classes they give away, what is taken
//! out of texts before anybody keeps them, and where in bodies marks stand.

use crate::domain::MarkFields;
use crate::patterns::{Detector, Pattern};

use super::{
    form::{Form, NAME},
    table::{Table, listed, nearest},
};

/// A place in the body of a request.
pub(super) const FIELD: Form<String> = Form {
    name: "a place in a body",
    remedy: "write names with dots between, like \"metadata.feature\"",
    read: |text| text.split('.').all(|it| !it.trim().is_empty()).then(|| text.to_owned()),
};

/// Patterns of the file by name; one at fault is none, and still known.
type Own = Vec<(String, Option<Pattern>)>;

/// What requests show of their data, and what nobody keeps of it.
pub(super) struct Leave {
    pub(super) detector: Detector,
    pub(super) redacted: Vec<Pattern>,
    pub(super) store_cleared: Vec<String>,
    pub(super) mark_fields: MarkFields,
}

pub(super) fn read(top: &Table<'_>) -> Leave {
    let own = own(top);
    let class = |((class, _), table): ((&str, _), Table<'_>)| {
        table.need("patterns", "name what shows the class, like [\"email\", \"card\"]");
        let patterns = named(&table, "patterns", &own).unwrap_or_default();
        table.close();
        (class.to_owned(), patterns)
    };
    Leave {
        detector: Detector::new(top.named("detect").into_iter().map(class).collect()),
        redacted: named(top, "redact", &own)
            .unwrap_or_else(|| Pattern::built_in("secret").into_iter().collect()),
        store_cleared: top.list("store_data"),
        mark_fields: mark_fields(top),
    }
}

fn own(top: &Table<'_>) -> Own {
    let Some(table) = top.table("patterns") else { return Own::new() };
    let checked = |(name, regex): (String, String)| {
        let mut pattern = None;
        if (NAME.read)(&name).is_none() {
            table.fault(&name, "is not a name", NAME.remedy);
        } else if Pattern::built_in(&name).is_some() {
            table.fault(&name, "is the name of a built-in pattern", "give it another name");
        } else {
            let remedy = "see https://docs.rs/regex for how to write one";
            let fault = |error: &_| table.fault(&name, &format!("{error}"), remedy);
            pattern = Pattern::new(&name, &regex).inspect_err(fault).ok();
        }
        (name, pattern)
    };
    top.pairs("patterns").into_iter().map(checked).collect()
}

/// The patterns that a list names; none where there is no list.
fn named(table: &Table<'_>, key: &'static str, own: &Own) -> Option<Vec<Pattern>> {
    let mut patterns = Vec::new();
    for (name, spot) in table.texts(key)? {
        let found = own.iter().find(|(it, _)| it == name).map(|(_, pattern)| pattern.clone());
        if let Some(pattern) = found.or_else(|| Pattern::built_in(name).map(Some)) {
            patterns.extend(pattern);
            continue;
        }
        let mut names: Vec<&str> = Pattern::names().collect();
        names.extend(own.iter().map(|(name, _)| name.as_str()));
        let known = || names.iter().copied();
        let remedy = nearest(name, known()).map_or_else(
            || format!("it is one of {}, or of your own in [patterns]", listed(known())),
            |near| format!("did you mean `{near}`?"),
        );
        table.fault_at(Some(&spot), name, "is not a pattern", remedy);
    }
    Some(patterns)
}

fn mark_fields(top: &Table<'_>) -> MarkFields {
    let Some(table) = top.table("fields") else { return MarkFields::default() };
    let field = |key| table.text(key, &FIELD).unwrap_or_default();
    let fields = MarkFields {
        feature: field("feature"),
        segment: field("segment"),
        task: field("task"),
        user: field("user"),
        data: field("data"),
    };
    table.close();
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{faults_below, parse};

    const PROVIDER: &str = "provider.a.base_url = 'http://127.0.0.1:1'\n";

    #[test]
    fn patterns_show_classes_and_are_taken_out_by_name() {
        let text = "redact = ['mrn']\nstore_data = ['eu']\n[patterns]\nmrn = '\\bMRN-\\d{6}\\b'\n\
                    [detect.pii]\npatterns = ['email', 'mrn']\n[detect.pci]\npatterns = ['card']\n\
                    [fields]\nfeature = 'metadata.feature'\n";
        let config = parse(&format!("{PROVIDER}{text}")).unwrap();
        let classes = |said: &str| config.detector.classes(format!("[\"{said}\"]").as_bytes());
        assert_eq!(classes("MRN-123456 4111111111111111"), ["pii", "pci"]);
        assert_eq!(classes("MRN-12345"), [""; 0]);
        let names: Vec<&str> = config.redacted.iter().map(Pattern::name).collect();
        assert_eq!((names, config.store_cleared.as_slice()), (vec!["mrn"], &["eu".to_owned()][..]));
        assert_eq!(config.mark_fields.feature, "metadata.feature");
    }

    #[test]
    fn without_a_word_only_secrets_are_taken_out_and_nothing_is_looked_for() {
        let config = parse(PROVIDER).unwrap();
        let names: Vec<&str> = config.redacted.iter().map(Pattern::name).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(config.detector.classes(b"\"a@b.io\""), [""; 0]);
        assert!(parse(&format!("redact = []\n{PROVIDER}")).unwrap().redacted.is_empty());
    }

    #[test]
    fn a_pattern_that_is_none_is_a_fault_and_never_silently_nothing() {
        let faults = faults_below(
            "redact = ['secrets', 'bad']\n[patterns]\nbad = '(a'\nemail = 'x'\nempty = 'a*'\n\
             [detect.pii]\npatterns = ['emial']\n[detect.none]\n[fields]\nuser = 'a..b'\n",
        );
        for part in [
            "did you mean `secret`?",
            "`bad` in [patterns] is not a regular expression",
            "`email` in [patterns] is the name of a built-in pattern",
            "`empty` in [patterns] matches the empty text",
            "did you mean `email`?",
            "`patterns` is missing in [detect.none]",
            "`user` in [fields] is not a place in a body",
        ] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
        assert!(!faults.contains("`bad` is not a pattern"), "{faults}");
    }

    #[test]
    fn a_caller_is_known_by_a_key_or_by_a_path_of_its_own() {
        for path in
            ["/v1", "/v1beta/models", "/team/v2", "search", "/", "/a/", "/a//b", "/a?b", "/é"]
        {
            let faults = faults_below(&format!("[[caller]]\npath = '{path}'\n"));
            assert!(
                faults.contains("`path` in [[caller]] is not a prefix of your own"),
                "{faults}"
            );
        }
        let text = "[[caller]]\npath = '/search/eu'\n[[caller]]\npath = '/video'\n";
        assert_eq!(parse(&format!("{PROVIDER}{text}")).unwrap().callers.len(), 2);
        let faults = faults_below(
            "[[caller]]\npath = '/a'\n[[caller]]\npath = '/a'\n\
             [[caller]]\nkey = 'env:A_KEY'\npath = '/b'\n[[caller]]\nfeature = 'x'\n",
        );
        for part in [
            "`path` in [[caller]] is the path of another caller too",
            "`path` in [[caller]] stands beside `key`",
            "`key` is missing in [[caller]]",
        ] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
    }
}
