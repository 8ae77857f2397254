//! Prices by the token, exactly: LiteLLM writes USD for one token, a fleet file USD for a million.
//!
//! A price such as 1.5e-07 has no exact binary form, so that the digits are moved instead of the number multiplied. The
//! result is whole nano-USD for a million tokens; what is finer than that is rounded, and no list price is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// 10¹⁵ nano-USD for a million tokens are one USD for one.
const NANO_PER_MILLION: i32 = 15;

/// Nano-USD for a million tokens, in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Price {
    pub(super) input: i64,
    pub(super) output: i64,
    pub(super) cached_input: Option<i64>,
}

/// USD for one token, in decimal digits, as nano-USD for a million. `None` when it is negative, or no number.
pub(super) fn per_million(text: &str) -> Option<i64> {
    let text = text.trim().replace('_', "");
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&text, "0"));
    let (whole, fraction) = mantissa.strip_prefix('+').unwrap_or(mantissa).split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.strip_prefix('+').unwrap_or(whole);
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 30 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: i128 = digits.parse().ok()?;
    let shift = exponent.parse::<i32>().ok()?.checked_add(NANO_PER_MILLION)? - i32::try_from(fraction.len()).ok()?;
    let power = |n: u32| 10_i128.checked_pow(n);
    let nano = match u32::try_from(shift) {
        Ok(up) => digits.checked_mul(power(up)?)?,
        Err(_) => power(shift.unsigned_abs()).map_or(0, |by| (digits + by / 2) / by),
    };
    // A price that does not survive the fleet file's floating numbers is no price of a token.
    i64::try_from(nano).ok().filter(|nano| *nano < 1 << 53)
}

/// Nano-USD as USD in decimal digits.
pub(super) fn usd(nano: i64) -> String {
    let text = format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// LiteLLM's `model_prices_and_context_window.json`.
#[derive(Debug, Default)]
pub struct Prices(BTreeMap<String, Row>);

#[derive(Debug)]
struct Row {
    provider: String,
    mode: String,
    price: Option<Price>,
}

#[derive(Deserialize)]
struct RawRow<'a> {
    #[serde(default)]
    litellm_provider: String,
    #[serde(default)]
    mode: String,
    #[serde(borrow)]
    input_cost_per_token: Option<&'a RawValue>,
    #[serde(borrow)]
    output_cost_per_token: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_read_input_token_cost: Option<&'a RawValue>,
}

impl Prices {
    /// Rows that cannot be read are left out: the file has one that only explains the others.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rows: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let read = |(key, row): (String, &RawValue)| {
            let row: RawRow<'_> = serde_json::from_str(row.get()).ok()?;
            (key != "sample_spec").then_some((key, Row::from(&row)))
        };
        Ok(Self(rows.into_iter().filter_map(read).collect()))
    }

    /// By the name as LiteLLM knows it, with its prefix or without.
    pub(super) fn price(&self, provider: &str, model: &str, base_model: Option<&str>) -> Option<Price> {
        self.row(provider, model, base_model).and_then(|row| row.price)
    }

    /// What a model is for: `chat`, `embedding`, `image_generation`, …
    pub(super) fn mode(&self, provider: &str, model: &str, base_model: Option<&str>) -> Option<&str> {
        self.row(provider, model, base_model).map(|row| row.mode.as_str()).filter(|mode| !mode.is_empty())
    }

    fn row(&self, provider: &str, model: &str, base_model: Option<&str>) -> Option<&Row> {
        let by_base = base_model.and_then(|name| self.0.get(name));
        by_base.or_else(|| self.0.get(&format!("{provider}/{model}"))).or_else(|| {
            let of = |row: &&Row| row.provider == provider || row.provider == format!("text-completion-{provider}");
            self.0.get(model).filter(of)
        })
    }

    /// Whose a model without a prefix is.
    pub(super) fn provider(&self, model: &str) -> Option<&str> {
        self.0.get(model).map(|row| row.provider.strip_prefix("text-completion-").unwrap_or(&row.provider))
    }
}

impl From<&RawRow<'_>> for Row {
    fn from(raw: &RawRow<'_>) -> Self {
        let nano = |value: Option<&RawValue>| value.and_then(|value| per_million(value.get().trim_matches('"')));
        let (input, output) = (nano(raw.input_cost_per_token), nano(raw.output_cost_per_token));
        let cached_input = nano(raw.cache_read_input_token_cost);
        // An embedding has no output to price.
        let output = output.or_else(|| (raw.mode == "embedding").then_some(0));
        let price = input.zip(output).map(|(input, output)| Price { input, output, cached_input });
        Self { provider: raw.litellm_provider.clone(), mode: raw.mode.clone(), price }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_moved_digit_by_digit() {
        for (text, nano, shown) in [
            ("1.5e-07", 150_000_000, "0.15"),
            ("0.00000015", 150_000_000, "0.15"),
            ("1e-05", 10_000_000_000, "10"),
            ("3.3e-8", 33_000_000, "0.033"),
            ("0", 0, "0"),
            ("2", 2_000_000_000_000_000, "2000000"),
            ("1.23456789e-7", 123_456_789, "0.123456789"),
            ("1e-16", 0, "0"),
        ] {
            assert_eq!(per_million(text), Some(nano), "{text}");
            assert_eq!(usd(nano), shown);
        }
        for text in ["-1e-7", "", ".", "a", "1e", "1e400", "9e9"] {
            assert_eq!(per_million(text), None, "{text}");
        }
    }

    #[test]
    fn a_model_is_found_under_its_providers_prefix_or_by_its_own_name() {
        let text = r#"{
            "sample_spec": {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "max_tokens": "words"},
            "gpt-4o-mini": {"litellm_provider": "openai", "input_cost_per_token": 1.5e-07,
                            "output_cost_per_token": 6e-07, "cache_read_input_token_cost": 7.5e-08},
            "groq/llama": {"litellm_provider": "groq", "input_cost_per_token": "1e-7",
                           "output_cost_per_token": 1e-7}}"#;
        let prices = Prices::parse(text).unwrap();
        let mini = Price { input: 150_000_000, output: 600_000_000, cached_input: Some(75_000_000) };
        assert_eq!(prices.price("openai", "gpt-4o-mini", None), Some(mini));
        assert_eq!(prices.price("azure", "my-deployment", Some("gpt-4o-mini")), Some(mini));
        assert_eq!(prices.price("groq", "gpt-4o-mini", None), None, "another provider's price");
        assert!(prices.price("groq", "llama", None).is_some());
        assert!(prices.price("openai", "sample_spec", None).is_none());
    }
}
