//! A report as one page: plots as inline SVG, no script, nothing to load.

use std::fmt::Write as _;

use outrigger_plan::sim::Report;
use plotters::prelude::*;

use super::{
    Played,
    words::{ms, time, total, usd},
};

const SIZE: (u32, u32) = (860, 300);
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(127, 127, 127),
];

type Points = Vec<(f64, f64)>;

pub(super) fn page(trace: &str, played: &[Played]) -> String {
    let mut body = String::new();
    let _ = write!(body, "<h1>Simulation of {}</h1>", escaped(trace));
    if played.len() > 1 {
        body += &comparison(played);
    }
    for one in played {
        body += &section(one);
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Simulation of {}</title><style>{STYLE}</style></head>\
         <body>{body}</body></html>\n",
        escaped(trace)
    )
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-top:1px solid #ddd;padding-top:1em}h3{font-size:1em;margin-bottom:.3em}\
table{border-collapse:collapse;font-size:.92em}td,th{padding:.25em .8em;text-align:right;border-bottom:1px solid #eee}\
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}.note{color:#666;font-size:.9em}";

fn comparison(played: &[Played]) -> String {
    let row = |p: &Played| {
        let r = &p.report;
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&p.name),
            usd(total(r)),
            ms(r.ttft_ms.p95),
            ms(r.end_to_end_ms.p95),
            r.spilled,
            r.failed
        )
    };
    let rows: String = played.iter().map(row).collect();
    format!(
        "<table><tr><th>fleet</th><th>cost</th><th>first token p95</th><th>whole p95</th><th>spilled</th><th>failed</th></tr>{rows}</table>"
    )
}

fn section(one: &Played) -> String {
    let r = &one.report;
    let mut out = format!(
        "<h2>{}</h2><p>{} requests over {}, {} failed, {} spilled, {} fell back. First token p50 {}, p95 {}, p99 {}. Cost {}: {} for \
         GPUs, {} for tokens, {} for egress. Seed {}.</p>",
        escaped(&one.name),
        r.requests,
        time(r.duration_s),
        r.failed,
        r.spilled,
        r.fell_back,
        ms(r.ttft_ms.p50),
        ms(r.ttft_ms.p95),
        ms(r.ttft_ms.p99),
        usd(total(r)),
        usd(r.cost_nano_usd.gpu),
        usd(r.cost_nano_usd.tokens),
        usd(r.cost_nano_usd.egress),
        r.seed
    );
    out += &backends(r);
    let names: Vec<&str> = r.backends.keys().map(String::as_str).collect();
    let series = &r.plots.series;
    let hours = |i: usize| i as f64 * series.step_s / 3_600.0;
    let per_second = |counts: &Vec<u32>| -> Points {
        counts.iter().enumerate().map(|(i, n)| (hours(i), f64::from(*n) / series.step_s)).collect()
    };
    let as_is =
        |counts: &Vec<u32>| -> Points { counts.iter().enumerate().map(|(i, n)| (hours(i), f64::from(*n))).collect() };
    // The series are in the order of the fleet, the report in that of the names.
    let order = &r.plots.backends;
    let lines = |of: &dyn Fn(usize) -> Points| -> Vec<(&str, Points)> {
        names.iter().filter_map(|name| Some((*name, of(order.iter().position(|n| n == name)?)))).collect()
    };
    let mut served = lines(&|i| per_second(&series.served[i]));
    served.push(("failed", per_second(&series.failed)));
    out += &plot("Served by each backend", "hours", "requests/s", &served, false);
    out += &plot("Longest queue in each step", "hours", "requests", &lines(&|i| as_is(&series.waiting[i])), false);
    out += &plot(
        "Spent so far",
        "hours",
        "USD",
        &lines(&|i| series.spent[i].iter().enumerate().map(|(k, usd)| (hours(k), *usd)).collect()),
        false,
    );
    let curves = [("first token", r.plots.ttft.clone()), ("whole answer", r.plots.end_to_end.clone())];
    out += &plot("Answered within", "seconds", "share", &curves, true);
    out
}

fn backends(r: &Report) -> String {
    let mut out = "<table><tr><th>backend</th><th>share</th><th>requests</th><th>wait p99</th><th>first token p95</th>\
                   <th>GPU hours</th><th>cost</th></tr>"
        .to_owned();
    for (name, b) in &r.backends {
        let cost = b.cost_nano_usd.gpu + b.cost_nano_usd.tokens + b.cost_nano_usd.egress;
        let _ = write!(
            out,
            "<tr><td title=\"{}\">{}</td><td>{:.1} %</td><td>{}</td><td>{}</td><td>{}</td><td>{:.1}</td><td>{}</td></tr>",
            escaped(&b.engine_model),
            escaped(name),
            b.share * 100.0,
            b.requests,
            ms(b.wait_ms.p99),
            ms(b.ttft_ms.p95),
            b.gpu_hours,
            usd(cost)
        );
    }
    let sources: Vec<String> =
        r.backends.iter().map(|(n, b)| format!("{}: {}", escaped(n), escaped(&b.engine_model))).collect();
    out + "</table><p class=\"note\">Engines: " + &sources.join("; ") + "</p>"
}

/// A line for each series. A plot that cannot be drawn is left out: the figures are in the tables.
fn plot(title: &str, x: &str, y: &str, lines: &[(&str, Points)], is_log: bool) -> String {
    if lines.iter().all(|(_, points)| points.iter().all(|p| p.1 == 0.0)) {
        return format!("<h3>{title}</h3><p class=\"note\">None.</p>");
    }
    let mut svg = String::new();
    match draw(&mut svg, x, y, lines, is_log) {
        Ok(()) => format!("<h3>{title}</h3>{svg}"),
        Err(_) => String::new(),
    }
}

fn draw(
    svg: &mut String,
    x: &str,
    y: &str,
    lines: &[(&str, Points)],
    is_log: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let most = |f: fn(&(f64, f64)) -> f64| points().map(f).fold(0.0, f64::max);
    let (right, top) = (most(|p| p.0).max(1e-3), most(|p| p.1).max(1e-3) * 1.05);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut builder = ChartBuilder::on(&root);
    builder.margin(8).x_label_area_size(36).y_label_area_size(60);
    if is_log {
        let left = points().map(|p| p.0).filter(|x| *x > 0.0).fold(right, f64::min).max(right / 1e5);
        let mut chart = builder.build_cartesian_2d((left..right).log_scale(), 0.0..1.0)?;
        chart.configure_mesh().x_desc(x).y_desc(y).light_line_style(WHITE).draw()?;
        series(&mut chart, lines)?;
    } else {
        let mut chart = builder.build_cartesian_2d(0.0..right, 0.0..top)?;
        chart.configure_mesh().x_desc(x).y_desc(y).light_line_style(WHITE).draw()?;
        series(&mut chart, lines)?;
    }
    root.present()?;
    Ok(())
}

fn series<'a, X>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>,
    lines: &[(&str, Points)],
) -> Result<(), Box<dyn std::error::Error>>
where
    X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        if points.iter().all(|p| p.1 == 0.0) {
            continue;
        }
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))
            .map_err(|e| e.to_string())?
            .label(*name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .draw()
        .map_err(|e| e.to_string())?;
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
