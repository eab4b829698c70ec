//! Tests of what is counted.

use super::*;
use crate::domain::Checks;

#[test]
fn tokens_are_counted_also_of_callers_who_left() {
    let metrics = Metrics::new();
    let mut call = Call {
        provider: "a".parse().unwrap(),
        model: None,
        status: 200,
        outcome: Outcome::Abandoned,
        first_byte_ms: Some(1),
        total_ms: 2,
        usage: None,
        finish_reason: None,
        cost_nano_usd: None,
        checks: Checks::default(),
        answer_chars: None,
        rouge_l_bps: None,
        estimated: false,
    };
    let says = |what: &str| metrics.page(&[]).contains(what);
    let series = |kind: &str, tokens: u64| {
        format!(
            "crossfade_tokens_total{{provider=\"a\",role=\"serve\",\
             outcome=\"abandoned\",kind=\"{kind}\"}} {tokens}\n"
        )
    };
    metrics.call(&call, Role::Serve);
    assert!(!says("crossfade_tokens_total{"), "nobody knows what it used");
    call.usage = Some(Usage { input: 9, cache_read: 5, cache_write: 0, output: 1 });
    for _ in 0..2 {
        metrics.call(&call, Role::Serve);
    }
    for (kind, tokens) in [("input", 18), ("cache_read", 10), ("cache_write", 0), ("output", 2)] {
        assert!(says(&series(kind, tokens)), "{kind}: {}", metrics.page(&[]));
    }
    assert!(says("outcome=\"abandoned\"} 3\n"));
}
