//! LiteLLM's timeouts as a fleet's.
//!
//! LiteLLM hands `timeout` to its HTTP client, for which it bounds each read, and `stream_timeout` in its place when a
//! request streams. A fleet has a timer for each phase. `total` of a stream ends with its first content, so that a
//! stream that runs long is not cut by what was meant for answers that do not stream.

use std::fmt;

use super::{Context, report::Verdict, yaml::Node};

pub(super) const TIMEOUT: &str = "bounds the whole answer, or a stream up to its first content, over all attempts; in \
                                  LiteLLM it bounds each read of each attempt";
pub(super) const STREAM: &str = "bounds each wait of a stream: for the head, for the first content, between events; in \
                                 LiteLLM it may fire only after the first chunk";

/// The longest that a fleet takes is a year; a day is more than any request needs.
const LONGEST_MS: f64 = 86_400_000.0;
/// What `timeouts.total` and `timeouts.connect` are without being written.
const DEFAULT_TOTAL: Seconds = Seconds(600_000);
const DEFAULT_CONNECT: Seconds = Seconds(1_000);

/// In milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1_000) { write!(f, "{}s", self.0 / 1_000) } else { write!(f, "{}ms", self.0) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub(super) total: Option<Seconds>,
    pub(super) stream: Option<Seconds>,
}

impl Timeouts {
    /// The keys of `timeouts:`, in an order in which no phase is longer than the whole.
    pub(super) fn keys(self) -> Vec<(&'static str, Seconds)> {
        let total = self.total.or(self.stream.filter(|stream| *stream > DEFAULT_TOTAL));
        let whole = total.unwrap_or(DEFAULT_TOTAL);
        let connect = (whole < DEFAULT_CONNECT).then_some(("connect", whole));
        let phases = self.stream.map(|stream| ["headers", "first_token", "idle"].map(|key| (key, stream.min(whole))));
        let total = total.map(|total| ("total", total));
        connect.into_iter().chain(phases.into_iter().flatten()).chain(total).collect()
    }
}

impl Context<'_> {
    /// A number of seconds, and its line in the report.
    pub(super) fn seconds(
        &mut self,
        node: &Node,
        place: (&str, usize),
        (message, help): (&str, &str),
    ) -> Option<Seconds> {
        let seconds: Option<f64> = node.number().and_then(|text| text.parse().ok());
        let ms = seconds.map(|seconds| (seconds * 1e3).round()).filter(|ms| (1.0..=LONGEST_MS).contains(ms));
        match ms {
            Some(_) => self.note(Verdict::Approximated, place, message, help),
            None => self.note(
                Verdict::Ignored,
                place,
                "not a number of seconds between a millisecond and a day",
                "write `timeouts` into the fleet file if the default does not fit",
            ),
        }
        ms.map(|ms| Seconds(ms as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(total: Option<u64>, stream: Option<u64>, expect: &str) {
        let timeouts = Timeouts { total: total.map(Seconds), stream: stream.map(Seconds) };
        let text: Vec<String> = timeouts.keys().into_iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(text.join(", "), expect);
    }

    #[test]
    fn no_phase_is_longer_than_the_whole() {
        check(Some(5_000), Some(500), "headers 500ms, first_token 500ms, idle 500ms, total 5s");
        check(Some(5_000), Some(9_000), "headers 5s, first_token 5s, idle 5s, total 5s");
        check(Some(300), None, "connect 300ms, total 300ms");
        check(None, Some(900_000), "headers 900s, first_token 900s, idle 900s, total 900s");
        check(None, None, "");
    }
}
