//! File descriptors: as many as the system gives, and connections that fit them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for everything that is not a connection of the data port: the store, the other
/// ports, idle connections to providers and the judge.
const OTHERS: usize = 256;

/// Most requests that share connections with others at a time, whatever the system allows.
const STREAMS_MAX: usize = 1_000_000;

/// Raises the limit of descriptors to what the system allows, and answers it.
pub fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of open files stays where it is");
        }
    }
    let current = getrlimit(Resource::Nofile).current;
    current.and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX)
}

/// How many connections of callers fit so many descriptors; at least one and at most `wanted`.
///
/// Each caller may need two, one of them to a provider; so many `copies` under way one each.
pub fn connections(wanted: usize, copies: usize, descriptors: usize) -> usize {
    let fit = (for_callers(copies, descriptors) / 2).clamp(1, wanted.max(1));
    if fit < wanted {
        tracing::warn!(
            wanted,
            fit,
            descriptors,
            "limits.connections_max does not fit the limit of open files (`ulimit -n`, or \
             LimitNOFILE= of the unit); fewer callers are served at a time"
        );
    }
    fit
}

/// How many requests fit beside another one of their connection, as in HTTP/2: each needs a
/// descriptor to a provider that no connection is reckoned with.
pub fn streams(connections: usize, copies: usize, descriptors: usize) -> usize {
    let left = for_callers(copies, descriptors).saturating_sub(2 * connections);
    left.min(STREAMS_MAX)
}

fn for_callers(copies: usize, descriptors: usize) -> usize {
    descriptors.saturating_sub(OTHERS).saturating_sub(copies).max(descriptors / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_takes_two_descriptors_beside_what_others_need() {
        assert_eq!(connections(10_000, 256, usize::MAX), 10_000);
        assert_eq!(connections(10_000, 256, 20_512), 10_000);
        assert_eq!(connections(10_000, 256, 20_510), 9_999);
        assert_eq!(connections(10_000, 256, 1_024), 256);
        assert_eq!(connections(10_000, 256, 64), 8, "few are better than none");
        assert_eq!(connections(10_000, 256, 0), 1);
    }

    #[test]
    fn requests_that_share_a_connection_have_what_connections_leave() {
        assert_eq!(streams(10_000, 256, usize::MAX), STREAMS_MAX);
        assert_eq!(streams(10_000, 256, 65_536), 45_024);
        assert_eq!(streams(10_000, 256, 20_512), 0);
        assert_eq!(streams(256, 256, 1_024), 0);
        assert_eq!(streams(1, 256, 0), 0);
    }
}
