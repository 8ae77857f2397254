//! A plan as one page: tables and plots as inline SVG, no script, nothing to load.
//!
//! The words are those of the terminal, so that the two cannot tell different things; what the page adds are pictures of
//! what each option is made of, of how sure it is, and of the demand that it has to carry.

use std::fmt::Write as _;

use outrigger_plan::economics::{Choice, Evaluated, dollars};
use plotters::prelude::*;

use super::{
    Planned, options,
    words::{self, lines},
};

const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(227, 119, 194),
    RGBColor(255, 127, 14),
    RGBColor(188, 189, 34),
    RGBColor(127, 127, 127),
    RGBColor(140, 86, 75),
];
/// Options that are drawn: the cheapest, and today.
const DRAWN: usize = 14;

type Drawn = Result<(), Box<dyn std::error::Error>>;

pub(super) fn page(planned: &Planned) -> String {
    let name = escaped(&planned.scenario.name);
    let verdict = &planned.plan.verdict;
    let answer =
        if verdict.worth_it { format!("Worth it: {}", escaped(&verdict.option)) } else { "Not worth it".into() };
    let why: String = words::reasons(&planned.plan).iter().map(|why| format!("<li>{}</li>", escaped(why))).collect();
    let mut body = format!("<h1>{name}</h1><p class=\"answer\">{answer}</p><ul>{why}</ul>");
    let options = drawn(planned);
    body += &figure("What a month is made of", 40 + 30 * options.len() as u32, |svg, size| bars(svg, size, &options));
    body += &figure("From p10 to p90 of price and load", 40 + 30 * options.len() as u32, |svg, size| {
        ranges(svg, size, &options)
    });
    body += &figure("Demand, from the highest rate to the lowest", 300, |svg, size| demand(svg, size, planned));
    body += &table(planned);
    let _ = write!(body, "<h2>In words</h2><pre>{}</pre>", escaped(&words::plan(planned)));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Plan: {name}</title><style>{STYLE}</style></head>\
         <body>{body}</body></html>\n"
    )
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}.answer{font-size:1.25em;font-weight:600}\
table{border-collapse:collapse;font-size:.9em}td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #eee;vertical-align:top}\
td,th{white-space:nowrap}td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}\
td:last-child{white-space:normal}tr.chosen{font-weight:600;background:#f2f8f2}svg{max-width:100%;height:auto}\
pre{overflow-x:auto;font-size:.8em;background:#f7f7f7;padding:1em}";

/// Today, then the cheapest of what can be priced.
fn drawn(planned: &Planned) -> Vec<(&Choice, &Evaluated)> {
    let priced = planned.plan.choices.iter().filter_map(|choice| Some((choice, choice.evaluated.as_ref()?)));
    let mut priced: Vec<(&Choice, &Evaluated)> = priced.collect();
    if let Some((_, rest)) = priced.split_first_mut() {
        rest.sort_by_key(|(_, done)| done.total);
    }
    priced.truncate(DRAWN);
    priced
}

fn figure(title: &str, height: u32, draw: impl FnOnce(&mut String, (u32, u32)) -> Drawn) -> String {
    let mut svg = String::new();
    match draw(&mut svg, (1_000, height + 60)) {
        Ok(()) => format!("<h2>{title}</h2>{svg}"),
        // The figures are in the tables.
        Err(_) => String::new(),
    }
}

/// The name of the option in a row, for the axis.
fn row_name(options: &[(&Choice, &Evaluated)], at: f64) -> String {
    let row = options.len() as f64 - at;
    let is_middle = (row - row.floor() - 0.5).abs() < 0.01;
    let found = options.get(row.floor().max(0.0) as usize).filter(|_| is_middle && row >= 0.0);
    found.map_or_else(String::new, |(choice, _)| choice.id.clone())
}

fn thousands(usd: f64) -> String {
    format!("${:.0}k", usd / 1e3)
}

fn bars(svg: &mut String, size: (u32, u32), options: &[(&Choice, &Evaluated)]) -> Drawn {
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let most = options.iter().map(|(_, done)| done.total.as_usd()).fold(1.0, f64::max) * 1.02;
    let rows = options.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(30)
        .y_label_area_size(220)
        .build_cartesian_2d(0.0..most, 0.0..rows)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .y_labels(options.len() * 2 + 1)
        .y_label_formatter(&|at| row_name(options, *at))
        .x_label_formatter(&|usd| thousands(*usd))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (kind, colour) in COLOURS.iter().enumerate() {
        let piece = |(i, (_, done)): (usize, &(&Choice, &Evaluated))| {
            let all = lines(done);
            let before: f64 = all[..kind].iter().map(|(_, usd)| usd.as_usd()).sum();
            let top = rows - i as f64;
            let ends = [(before, top - 0.82), (before + all[kind].1.as_usd(), top - 0.18)];
            (all[kind].1.0 > 0).then(|| Rectangle::new(ends, colour.filled()))
        };
        let pieces: Vec<_> = options.iter().enumerate().filter_map(piece).collect();
        let Some((_, first)) = options.first().filter(|_| !pieces.is_empty()) else { continue };
        chart
            .draw_series(pieces)?
            .label(lines(first)[kind].0)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .label_font(("sans-serif", 13))
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    root.present()?;
    Ok(())
}

fn ranges(svg: &mut String, size: (u32, u32), options: &[(&Choice, &Evaluated)]) -> Drawn {
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let most = options.iter().map(|(choice, _)| choice.range.1.as_usd()).fold(1.0, f64::max) * 1.02;
    let rows = options.len() as f64;
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(30)
        .y_label_area_size(220)
        .build_cartesian_2d(0.0..most, 0.0..rows)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .y_labels(options.len() * 2 + 1)
        .y_label_formatter(&|at| row_name(options, *at))
        .x_label_formatter(&|usd| thousands(*usd))
        .label_style(("sans-serif", 13))
        .draw()?;
    let bar = |(i, (choice, _)): (usize, &(&Choice, &Evaluated))| {
        let (top, (low, high)) = (rows - i as f64, choice.range);
        let least = most / 400.0;
        let ends = [(low.as_usd(), top - 0.65), (high.as_usd().max(low.as_usd() + least), top - 0.35)];
        Rectangle::new(ends, COLOURS[0].mix(0.45).filled())
    };
    chart.draw_series(options.iter().enumerate().map(bar))?;
    let middle = |(i, (_, done)): (usize, &(&Choice, &Evaluated))| {
        let top = rows - i as f64;
        let width = most / 700.0;
        let ends = [(done.total.as_usd() - width, top - 0.75), (done.total.as_usd() + width, top - 0.25)];
        Rectangle::new(ends, BLACK.filled())
    };
    chart.draw_series(options.iter().enumerate().map(middle))?;
    root.present()?;
    Ok(())
}

fn demand(svg: &mut String, size: (u32, u32), planned: &Planned) -> Drawn {
    let mut levels = planned.scenario.demand.levels.clone();
    levels.sort_by_key(|level| std::cmp::Reverse(level.micro_rps));
    let all: u64 = levels.iter().map(|level| level.seconds).sum();
    let mut points = Vec::new();
    let mut before = 0;
    for level in &levels {
        let rate = level.micro_rps as f64 / 1e6;
        let percent = |seconds: u64| seconds as f64 / all as f64 * 100.0;
        points.extend([(percent(before), rate), (percent(before + level.seconds), rate)]);
        before += level.seconds;
    }
    let top = points.first().map_or(1.0, |point| point.1) * 1.05;
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..100.0, 0.0..top.max(1e-6))?;
    chart
        .configure_mesh()
        .x_desc("percent of the time")
        .y_desc("requests/s")
        .label_style(("sans-serif", 13))
        .light_line_style(WHITE)
        .draw()?;
    chart.draw_series(LineSeries::new(points, COLOURS[0].stroke_width(2)))?;
    root.present()?;
    Ok(())
}

fn table(planned: &Planned) -> String {
    let mut out =
        "<h2>Every option</h2><table><tr><th>option</th><th>a month</th><th>saves</th><th>p10</th><th>p90</th>\
                   <th>to get there</th><th>payback</th><th>why not</th></tr>"
            .to_owned();
    for choice in options::sorted(&planned.plan) {
        let id = escaped(&choice.id);
        let reason = escaped(&choice.reason);
        let Some(done) = &choice.evaluated else {
            let _ = write!(out, "<tr><td>{id}</td><td colspan=\"6\"></td><td>{reason}</td></tr>");
            continue;
        };
        let saves = choice.savings.get("today").map_or_else(String::new, |saved| dollars(*saved));
        let payback = choice.payback_months.map_or_else(String::new, |months| format!("{months} mo"));
        let class = if choice.id == planned.plan.verdict.option { " class=\"chosen\"" } else { "" };
        let (low, high) = (dollars(choice.range.0), dollars(choice.range.1));
        let (total, once) = (dollars(done.total), dollars(done.one_time));
        let _ = write!(
            out,
            "<tr{class}><td>{id}</td><td>{total}</td><td>{saves}</td><td>{low}</td><td>{high}</td><td>{once}</td>\
             <td>{payback}</td><td>{reason}</td></tr>"
        );
    }
    out + "</table>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
