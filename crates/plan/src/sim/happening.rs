//! What goes wrong during a simulation, and when.

use std::time::Duration;

use outrigger_core::units::Nanos;
use serde::Deserialize;
use serde_json::Value;

/// One line of an events file.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// Seconds after the first request.
    pub at_s: f64,
    /// How long it lasts; to the end where it is absent.
    pub for_s: Option<f64>,
    /// Backends by name, or all backends of a cloud.
    pub backend: Option<String>,
    pub cloud: Option<String>,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case", deny_unknown_fields)]
pub enum What {
    /// Nothing listens; what was in flight dies.
    Outage,
    /// It accepts and says nothing.
    Hang,
    /// Every request gets a 500.
    Errors,
    /// This share of the requests gets a 500.
    Flaky { share: f64 },
    /// Everything takes this many times as long.
    BrownOut { factor: f64 },
    /// This share of the engines is left.
    Capacity { share: f64 },
    /// More requests a second than this get a 429.
    RateLimit { requests_per_second: f64 },
    /// The price on demand changes to this.
    Price { usd_per_gpu_hour: f64 },
    /// The engine's metrics say this.
    Metrics { say: Metrics },
}

/// How an engine's metrics mislead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metrics {
    /// The truth.
    #[default]
    Right,
    Absent,
    Zero,
    /// A thousand million waiting.
    Huge,
    /// What was true at the beginning, for ever.
    Stale,
    /// One engine of several.
    OnePod,
}

impl Happening {
    /// From one line of JSON; the message says what is wrong with it.
    pub fn parse(line: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct When {
            at_s: f64,
            for_s: Option<f64>,
            backend: Option<String>,
            cloud: Option<String>,
        }
        let mut all: serde_json::Map<String, Value> = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let when = ["at_s", "for_s", "backend", "cloud"];
        let own: serde_json::Map<_, _> = when.iter().filter_map(|k| Some(((*k).to_owned(), all.remove(*k)?))).collect();
        let When { at_s, for_s, backend, cloud } =
            serde_json::from_value(Value::Object(own)).map_err(|e| e.to_string())?;
        let rest = Value::Object(all);
        let what: What = serde_json::from_value(rest.clone()).map_err(|e| e.to_string())?;
        let is_bare = matches!(what, What::Outage | What::Hang | What::Errors);
        if is_bare && rest.as_object().is_some_and(|rest| rest.len() > 1) {
            let extra = rest.as_object().into_iter().flatten().map(|(k, _)| k.as_str()).find(|k| *k != "event");
            return Err(format!("unknown field `{}`", extra.unwrap_or_default()));
        }
        if !at_s.is_finite() || at_s < 0.0 || for_s.is_some_and(|t| t.is_nan() || t <= 0.0) {
            return Err("`at_s` must be 0 or more and `for_s` above 0, in seconds".to_owned());
        }
        Ok(Self { at_s, for_s, backend, cloud, what })
    }

    pub fn begins(&self) -> Nanos {
        nanos(self.at_s)
    }

    pub fn ends(&self) -> Option<Nanos> {
        self.for_s.map(|time| self.begins() + Duration::from_secs_f64(time.clamp(0.0, 1e9)))
    }
}

fn nanos(seconds: f64) -> Nanos {
    Nanos::ZERO + Duration::from_secs_f64(seconds.clamp(0.0, 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_and_a_wrong_one_says_what_is_wrong() {
        let read = Happening::parse(r#"{"event":"brown_out","backend":"b","at_s":5,"for_s":6,"factor":3}"#);
        let what = What::BrownOut { factor: 3.0 };
        assert_eq!(read, Ok(Happening { at_s: 5.0, for_s: Some(6.0), backend: Some("b".into()), cloud: None, what }));
        assert!(Happening::parse(r#"{"event":"outage","at_s":0}"#).is_ok());
        for (line, why) in [
            (r#"{"event":"outage","at_s":0,"fro_s":3}"#, "fro_s"),
            (r#"{"event":"brown_out","at_s":0,"factor":2,"x":1}"#, "x"),
            (r#"{"event":"brown_out","at_s":0}"#, "factor"),
            (r#"{"event":"quake","at_s":0}"#, "quake"),
            (r#"{"event":"outage"}"#, "at_s"),
            (r#"{"event":"outage","at_s":-1}"#, "at_s"),
            ("{", "EOF"),
        ] {
            let error = Happening::parse(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
