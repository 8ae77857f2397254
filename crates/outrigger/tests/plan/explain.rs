//! Each formula that is printed gives the figure that is printed beside it.

use super::{DAY, SCENARIO, outrigger, plan};

/// Numbers, `+ - * /` and brackets, by recursive descent.
struct Calculator<'t> {
    rest: &'t str,
}

impl Calculator<'_> {
    fn value(text: &str) -> f64 {
        let mut calculator = Calculator { rest: text };
        let value = calculator.sum();
        assert_eq!(calculator.rest.trim(), "", "not a formula: {text}");
        value
    }

    fn takes(&mut self, sign: char) -> bool {
        let rest = self.rest.trim_start();
        let found = rest.strip_prefix(sign);
        self.rest = found.unwrap_or(rest);
        found.is_some()
    }

    fn sum(&mut self) -> f64 {
        let mut value = self.product();
        loop {
            if self.takes('+') {
                value += self.product();
            } else if self.takes('-') {
                value -= self.product();
            } else {
                return value;
            }
        }
    }

    fn product(&mut self) -> f64 {
        let mut value = self.one();
        loop {
            if self.takes('*') {
                value *= self.one();
            } else if self.takes('/') {
                value /= self.one();
            } else {
                return value;
            }
        }
    }

    fn one(&mut self) -> f64 {
        if self.takes('(') {
            let value = self.sum();
            assert!(self.takes(')'), "an open bracket: {}", self.rest);
            return value;
        }
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, rest) = rest.split_at(end);
        self.rest = rest;
        number.parse().unwrap_or_else(|_| panic!("no number at {number}{rest}"))
    }
}

#[track_caller]
fn all_hold(figures: &serde_json::Value, at_least: usize) {
    let figures = figures["figures"].as_array().unwrap();
    assert!(figures.len() >= at_least, "{}", figures.len());
    for figure in figures {
        let text = |key: &str| figure[key].as_str().unwrap();
        let (value, shown): (f64, f64) = (Calculator::value(text("formula")), text("shown").parse().unwrap());
        let last_digit = if text("shown").contains('.') && text("shown").split_once('.').unwrap().1.len() == 4 {
            5e-5
        } else {
            5e-3
        };
        assert!((value - shown).abs() <= last_digit + value.abs() * 1e-12, "{value}: {figure:#}");
    }
}

#[test]
fn the_formula_of_every_figure_gives_the_figure() {
    let args =
        [&["plan", "--scenario", "examples/scenarios/chat.yaml", "--explain", "all", "--json"], &DAY[..]].concat();
    all_hold(&outrigger(&args).json(), 200);
    let more = "commitments: [{ cloud: aws, gpus: 8, usd_per_gpu_hour: 4.1, until: 2027-03-01 }]\n\
                weights: { gb: 140.7, pulls_per_month: 3, releases_per_month: 2 }\n\
                egress:\n  - { name: a, from: gpus, to: home, gb_per_month: 20000.5 }\n\
                \x20 - { name: b, from: home, to: gpus, gb_per_month: 70000 }\n";
    all_hold(&plan(&format!("{SCENARIO}{more}"), &["--explain", "all", "--json"]).json(), 60);
}

#[test]
fn one_figure_is_shown_with_its_numbers() {
    let ran = plan(SCENARIO, &["--explain", "today.on_demand"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("= 24 * 6.88 * 730\n  = 120537.60\n"), "{}", ran.out);
    let all = plan(SCENARIO, &["--explain", "pattern1-lambda"]).out;
    assert!(all.contains("pattern1-lambda.total") && all.contains("pattern1-lambda.saving.today"), "{all}");
}
