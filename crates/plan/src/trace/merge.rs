//! Several traces as one, in order of time: one for each region, say.

use std::{fmt, iter::Peekable};

use super::Arrival;

/// Merges traces that are each in order. Items carry the place of their source in `sources`; of arrivals at the same
/// time the one from the earlier source comes first. A fault comes as soon as it is that source's next item, before any
/// further arrival.
///
/// Every trace begins at 0: to keep the distance between files that are dated, shift each by the difference of the
/// readers' [`origin`](super::Reader::origin) first. A generated trace is made fallible by `map(Ok)`.
pub fn merge<I, E>(sources: impl IntoIterator<Item = I>) -> Merge<I>
where
    I: Iterator<Item = Result<Arrival, E>>,
{
    Merge { sources: sources.into_iter().map(Iterator::peekable).collect() }
}

/// See [`merge`].
pub struct Merge<I: Iterator> {
    sources: Vec<Peekable<I>>,
}

impl<I: Iterator> fmt::Debug for Merge<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merge").field("sources", &self.sources.len()).finish()
    }
}

impl<I, E> Iterator for Merge<I>
where
    I: Iterator<Item = Result<Arrival, E>>,
{
    type Item = (usize, Result<Arrival, E>);

    /// Looks at each source: there are a handful, for which this is as fast as a heap.
    fn next(&mut self) -> Option<Self::Item> {
        let heads = self.sources.iter_mut().enumerate().filter_map(|(source, items)| {
            // `None` for a fault, which is less than any time.
            let at = items.peek()?.as_ref().ok().map(|arrival| arrival.at);
            Some((at, source))
        });
        let (_, source) = heads.min()?;
        Some((source, self.sources[source].next()?))
    }
}
