//! `outrigger plan --optimize`: the cheapest machines of the whole book, what comes next, and which constraint leaves none.

use std::fmt::Write as _;

use outrigger_plan::economics::{Found, Infeasible, Offer, Optimum, Pick, dollars, optimize};
use serde_json::{Value, json};

use super::{Args, Exit, Failed, book, json::usd, scenario, values, write_out};

pub(super) fn answer(args: &Args) -> Result<Exit, Failed> {
    let book = book(args)?;
    let as_of = args.as_of.unwrap_or_else(values::today);
    let scenario = scenario(args, args.scenario.as_deref(), &book, as_of)?;
    let (text, exit) = match optimize(&scenario, &book) {
        Ok(found) => (if args.json { format!("{}\n", as_json(&found)) } else { words(&found) }, Exit::Yes),
        Err(Infeasible { constraint, why }) => {
            let text = if args.json {
                format!("{}\n", json!({ "fleet": null, "constraint": constraint, "why": why }))
            } else {
                format!("no fleet: {constraint}: {why}\n")
            };
            (text, Exit::No)
        }
    };
    let written = write_out(&text);
    Ok(if written == Exit::Yes { exit } else { written })
}

fn words(found: &Optimum) -> String {
    let mut out = format!("the cheapest of {} machines of the book, always on at the peak\n", found.offers);
    out += &table(&found.best);
    for (provider, next) in &found.without {
        match next {
            Some(next) => {
                let more = dollars(next.usd_per_month - found.best.usd_per_month);
                let _ = writeln!(out, "\nwithout {provider}, {more} a month more");
                out += &table(next);
            }
            None => {
                let _ = writeln!(out, "\nwithout {provider} there is no fleet that does");
            }
        }
    }
    if !found.others.is_empty() {
        out +=
            "\nnot taken: what the whole peak would cost at the rate of each one's cheapest machine, minimums apart\n";
    }
    for (offer, rate) in &found.others {
        let _ = writeln!(out, "  {:<56} {:>16}", name(offer), dollars(*rate));
    }
    if found.best.picks.iter().any(|pick| pick.is_spanned) {
        out += "\n*  smaller than a replica, which takes several of them: the book knows no larger one there. Ask the provider whether it has one\n";
    }
    out
}

fn name(offer: &Offer) -> String {
    let region = if offer.region == "any" { String::new() } else { format!("{} ", offer.region) };
    format!("{} {region}{}", offer.provider, offer.instance_type)
}

fn table(fleet: &Found) -> String {
    let mut out = String::new();
    for Pick { offer, machines, is_spanned, usd_per_month } in &fleet.picks {
        let name = format!("{machines} x {}", name(offer));
        let of = if offer.as_of.is_empty() { String::new() } else { format!(" of {}", offer.as_of) };
        let gap = if *is_spanned { " *" } else { "" };
        let _ = writeln!(out, "  {name:<56} {:>16}  {}{of}{gap}", dollars(*usd_per_month), offer.source);
    }
    let _ = writeln!(out, "  {:<56} {:>16}", "in all", dollars(fleet.usd_per_month));
    for (provider, share) in &fleet.survives {
        let _ = writeln!(out, "  {:<56} {:>14.1} %", format!("left without {provider}"), share * 100.0);
    }
    out
}

fn fleet(found: &Found) -> Value {
    let pick = |pick: &Pick| {
        json!({
            "provider": pick.offer.provider, "region": pick.offer.region, "instance_type": pick.offer.instance_type,
            "gpu": pick.offer.gpu, "machines": pick.machines, "gpus": pick.machines * pick.offer.gpus,
            "usd_per_month": usd(pick.usd_per_month), "spanned": pick.is_spanned, "source": pick.offer.source, "as_of": pick.offer.as_of,
        })
    };
    let machines: Vec<Value> = found.picks.iter().map(pick).collect();
    json!({ "machines": machines, "usd_per_month": usd(found.usd_per_month), "survives": found.survives })
}

fn as_json(found: &Optimum) -> Value {
    let more = |next: &Found| usd(next.usd_per_month - found.best.usd_per_month);
    let next = |(provider, next): &(String, Option<Found>)| json!({ "without": provider, "fleet": next.as_ref().map(fleet), "more_usd": next.as_ref().map(more) });
    let other = |(offer, rate): &(Offer, outrigger_core::units::NanoUsd)| json!({ "provider": offer.provider, "instance_type": offer.instance_type, "usd_at_its_rate": usd(*rate) });
    json!({
        "fleet": fleet(&found.best),
        "runners_up": found.without.iter().map(next).collect::<Vec<_>>(),
        "not_taken": found.others.iter().map(other).collect::<Vec<_>>(),
        "offers": found.offers,
        "constraint": null,
    })
}
