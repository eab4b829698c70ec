//! Queries: which of their parameters carry a credential of the caller.

use std::borrow::Cow;

use url::form_urlencoded;

/// Every credential of the caller in a query: as its provider reads it, and as it is written too
/// where that is something else.
pub fn credentials(query: &str) -> impl Iterator<Item = Cow<'_, str>> {
    query.split('&').filter(|it| is_credential(it)).flat_map(|parameter| {
        let (_, written) = parameter.split_once('=').unwrap_or_default();
        let read = form_urlencoded::parse(parameter.as_bytes()).next().map(|(_, value)| value);
        let written = Some(Cow::Borrowed(written)).filter(|it| read.as_ref() != Some(it));
        [read, written].into_iter().flatten().filter(|it| !it.is_empty())
    })
}

/// Whether a query parameter is a credential of the caller, with or without the `$` Google's
/// system parameters may carry.
fn is_credential(parameter: &str) -> bool {
    let Some((name, _)) = form_urlencoded::parse(parameter.as_bytes()).next() else { return false };
    let name = name.strip_prefix('$').unwrap_or(&name);
    matches!(name, "key" | "access_token" | "api_key" | "api-key" | "token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_found_under_every_name_and_however_it_is_written() {
        let all = |query: &'static str| credentials(query).collect::<Vec<_>>();
        for name in ["key", "$key", "%24key", "k%65y", "token", "access_token", "api-key"] {
            let query = format!("alt=sse&{name}=K-1&monkey=a&key=");
            assert_eq!(credentials(&query).collect::<Vec<_>>(), ["K-1"], "{name}");
        }
        assert_eq!(all("key=K%2D1&api_key=b"), ["K-1", "K%2D1", "b"]);
        assert_eq!(all("a=key&key&=&%zz=1&user=key"), [""; 0]);
    }
}
