//! The price book: what a token costs where, with the source of each row.
//!
//! The rows are compiled in (see `data/SOURCES.md`), so that a fleet file need not repeat public list prices and the
//! core need not read a file. A price in the fleet file always wins over this book.

use crate::{fleet::TokenPrice, units::NanoUsd};

/// The date that the built-in token prices were read on.
pub const TOKEN_PRICES_AS_OF: &str = "2026-11-24";

const TOKEN_PRICES: &str = include_str!("../data/hosted_token_prices.csv");

/// The list price of `model` at `provider` (the cloud's name in the fleet file, such as `openai` or `together`).
///
/// A row matches when its key is the model's name, alone or behind the provider's own prefix
/// (`together_ai/meta-llama/…`). `None` when the book has no such row, or when the row is not plausible: a price of
/// zero for input or output is a gap in the source, not a gift.
pub fn token_price(provider: &str, model: &str) -> Option<TokenPrice> {
    TOKEN_PRICES.lines().skip(1).filter_map(Row::parse).find(|row| row.is_for(provider, model)).and_then(|r| r.price())
}

struct Row<'a> {
    key: &'a str,
    provider: &'a str,
    input: &'a str,
    output: &'a str,
    cached_input: &'a str,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut cells = line.split(',');
        let (key, provider, _class) = (cells.next()?, cells.next()?, cells.next()?);
        Some(Self { key, provider, input: cells.next()?, output: cells.next()?, cached_input: cells.next()? })
    }

    fn is_for(&self, provider: &str, model: &str) -> bool {
        let same_provider = normal(self.provider).starts_with(&normal(provider));
        let name = self.key.split_once('/').map_or(self.key, |(_prefix, rest)| rest);
        same_provider && (self.key == model || name.eq_ignore_ascii_case(model))
    }

    fn price(&self) -> Option<TokenPrice> {
        let usd = |cell: &str| cell.parse().ok().and_then(NanoUsd::from_usd).filter(|p| p.0 > 0);
        let (input, output) = (usd(self.input)?, usd(self.output)?);
        Some(TokenPrice { input, output, cached_input: usd(self.cached_input).unwrap_or(input) })
    }
}

/// `together_ai`, `together-ai` and `Together` name the same provider.
fn normal(provider: &str) -> String {
    provider.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_list_price_is_found_by_cloud_and_model() {
        let price = token_price("openai", "gpt-4o-mini").expect("in the book");
        assert_eq!(price.input, NanoUsd(150_000_000));
        assert_eq!(price.output, NanoUsd(600_000_000));
        assert_eq!(price.cached_input, NanoUsd(75_000_000));
    }

    #[test]
    fn an_unknown_model_or_another_clouds_model_has_no_price() {
        assert_eq!(token_price("openai", "no-such-model"), None);
        assert_eq!(token_price("anthropic", "gpt-4o-mini"), None);
    }

    #[test]
    fn every_row_of_the_book_parses() {
        for line in TOKEN_PRICES.lines().skip(1) {
            let row = Row::parse(line).expect("five cells or more");
            for cell in [row.input, row.output] {
                assert!(cell.parse::<f64>().is_ok_and(|p| p >= 0.0), "{line}");
            }
        }
    }
}
