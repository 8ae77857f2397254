//! A report as a table for people.

use std::fmt::Write as _;

use outrigger_core::units::NanoUsd;
use outrigger_plan::sim::Report;

use super::{super::name_column, Played};

pub(super) fn table(played: &[Played]) -> String {
    let mut out = String::new();
    for one in played {
        if played.len() > 1 {
            let _ = writeln!(out, "{}", one.name);
        }
        let _ = writeln!(out, "{}", of_one(&one.report));
    }
    if let [first, rest @ ..] = played {
        for other in rest {
            let _ = writeln!(out, "{} against {}: {}", other.name, first.name, compared(&first.report, &other.report));
        }
    }
    out
}

fn of_one(report: &Report) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} requests over {}, {} failed, {} spilled, {} fell back",
        report.requests,
        time(report.duration_s),
        share_of(report.failed, report.requests),
        share_of(report.spilled, report.requests),
        share_of(report.fell_back, report.requests),
    );
    for (why, n) in &report.failures {
        let _ = writeln!(out, "  failed: {n} {why}");
    }
    let width = name_column(report.backends.keys().map(String::as_str));
    let _ = writeln!(
        out,
        "\n{:<width$} {:>8} {:>9} {:>10} {:>10} {:>10} {:>10} {:>12} {:>10}",
        "backend", "share", "requests", "wait p99", "ttft p50", "ttft p95", "e2e p95", "gpu hours", "usd"
    );
    for (name, b) in &report.backends {
        let cost = b.cost_nano_usd.gpu + b.cost_nano_usd.tokens + b.cost_nano_usd.egress;
        let _ = writeln!(
            out,
            "{name:<width$} {:>7.1}% {:>9} {:>10} {:>10} {:>10} {:>10} {:>12.1} {:>10}",
            b.share * 100.0,
            b.requests,
            ms(b.wait_ms.p99),
            ms(b.ttft_ms.p50),
            ms(b.ttft_ms.p95),
            ms(b.end_to_end_ms.p95),
            b.gpu_hours,
            usd(cost),
        );
    }
    let cost = report.cost_nano_usd;
    let _ = writeln!(
        out,
        "\nall: ttft p50 {}, p95 {}, p99 {}; {} = {} GPUs + {} tokens + {} egress",
        ms(report.ttft_ms.p50),
        ms(report.ttft_ms.p95),
        ms(report.ttft_ms.p99),
        usd(total(report)),
        usd(cost.gpu),
        usd(cost.tokens),
        usd(cost.egress),
    );
    for (place, at) in &report.places {
        let egress = usd(at.egress_nano_usd);
        let _ = writeln!(out, "from {place}: {} served, {egress} egress", share_of(at.requests, report.requests));
    }
    for (model, slo) in &report.slo {
        let met = |name: &str, share: Option<f64>| share.map(|s| format!("{name} met by {:.1} %", s * 100.0));
        let parts = [met("first token", slo.ttft), met("time per output token", slo.time_per_output_token)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if !parts.is_empty() {
            let _ = writeln!(out, "objectives of {model}: {}", parts.join(", "));
        }
    }
    out
}

fn compared(a: &Report, b: &Report) -> String {
    let (x, y) = (total(a).as_usd(), total(b).as_usd());
    let change = if x > 0.0 { format!(" ({:+.1} %)", (y / x - 1.0) * 100.0) } else { String::new() };
    format!(
        "{} instead of {}{change}, ttft p95 {} instead of {}, {} instead of {} failed",
        usd(total(b)),
        usd(total(a)),
        ms(b.ttft_ms.p95),
        ms(a.ttft_ms.p95),
        b.failed,
        a.failed,
    )
}

pub(super) fn total(report: &Report) -> NanoUsd {
    report.cost_nano_usd.gpu + report.cost_nano_usd.tokens + report.cost_nano_usd.egress
}

pub(super) fn usd(amount: NanoUsd) -> String {
    let usd = amount.as_usd();
    if usd != 0.0 && usd.abs() < 1.0 { format!("${usd:.4}") } else { format!("${usd:.2}") }
}

pub(super) fn ms(ms: f64) -> String {
    if ms >= 10_000.0 { format!("{:.1} s", ms / 1e3) } else { format!("{ms:.0} ms") }
}

fn share_of(n: u64, of: u64) -> String {
    if n == 0 || of == 0 { n.to_string() } else { format!("{n} ({:.1} %)", n as f64 / of as f64 * 100.0) }
}

pub(super) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}
