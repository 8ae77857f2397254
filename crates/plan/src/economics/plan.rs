//! All options of a scenario, priced, compared and judged.

use std::collections::BTreeMap;

use outrigger_core::units::NanoUsd;

use super::{
    design::{Design, Kind},
    evaluate::{Ask, Evaluated, Factors, World},
    figure::{Figure, dollars, usd},
    focus::InvoiceKind,
    scenario::Scenario,
    sensitivity::{self, Flip, WrongIf},
    verdict::{self, Rule, Verdict, over_horizon},
};

/// Why an option may not be taken.
pub type Barred = Vec<(Rule, String)>;

/// One option with everything that is said of it.
#[derive(Clone, Debug)]
pub struct Choice {
    pub id: String,
    pub kind: Kind,
    pub(super) design: Design,
    pub barred: Barred,
    /// Why there is no price.
    pub infeasible: Option<String>,
    pub evaluated: Option<Evaluated>,
    /// A month, with what is paid once spread over the horizon.
    pub all_in: NanoUsd,
    /// What is saved in a month, by what it is compared with; negative where it costs more.
    pub savings: BTreeMap<String, NanoUsd>,
    pub payback_months: Option<u32>,
    pub worst_month: NanoUsd,
    /// The tenth and ninetieth percentile of a month, from price and load.
    pub range: (NanoUsd, NanoUsd),
    /// Requests per second at which tokens cost the same; by hosted model.
    pub hosted_break_even: BTreeMap<String, f64>,
    /// Why this one is not it, or what is special about it.
    pub reason: String,
}

/// What a bill says and the plan explains, of one kind of cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie {
    pub kind: InvoiceKind,
    pub computed: NanoUsd,
    pub invoiced: NanoUsd,
}

/// What could be done about one edge.
#[derive(Clone, Debug)]
pub struct Mitigation {
    pub edge: String,
    pub from: String,
    pub to: String,
    pub gb: f64,
    pub usd: NanoUsd,
    /// Each way, with what it saves in a month or when it would.
    pub ways: Vec<(&'static str, String)>,
}

/// The whole answer.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Today first.
    pub choices: Vec<Choice>,
    pub verdict: Verdict,
    /// Today's bill against the invoice; empty without one.
    pub ties: Vec<Tie>,
    pub mitigations: Vec<Mitigation>,
    pub wrong_if: Vec<WrongIf>,
    pub flips: Vec<Flip>,
    pub figures: Vec<Figure>,
    pub not_included: Vec<String>,
}

impl Plan {
    pub fn choice(&self, id: &str) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.id == id)
    }

    /// What is run after the verdict: the chosen option, or today's.
    pub fn chosen(&self) -> &Choice {
        self.choice(&self.verdict.option).unwrap_or(&self.choices[0])
    }
}

/// Prices and judges every option.
pub fn plan(scenario: &Scenario) -> Result<Plan, String> {
    let world = World::new(scenario);
    let today = Design { id: "today".to_owned(), kind: Kind::Today, moves_to: None, legs: Vec::new(), hosted: None };
    let mut choices = vec![priced(&world, today)];
    if let Some(why) = &choices[0].infeasible {
        return Err(why.clone());
    }
    choices.extend(Design::all(scenario).into_iter().map(|design| priced(&world, design)));
    compare(&mut choices);
    let hosted = hosted_costs(&world, &choices);
    for choice in &mut choices {
        choice.hosted_break_even = break_evens(choice, &hosted);
    }
    let (verdict, mut figures) = verdict::judge(scenario, &choices);
    explain_losses(&verdict, &mut choices);
    let watched = verdict.challenger.as_deref().unwrap_or("today");
    let watched = choices.iter().find(|choice| choice.id == watched).unwrap_or(&choices[0]);
    let (wrong_if, flips) = (sensitivity::wrong_if(&world, watched), sensitivity::flips(&world, &choices[0], watched));
    figures.extend(choices.iter().filter_map(|choice| choice.evaluated.as_ref()).flat_map(|done| done.figures.clone()));
    figures.extend(saving_figures(&choices));
    Ok(Plan {
        ties: ties(scenario, &choices[0]),
        mitigations: mitigations(scenario, &choices, &verdict),
        not_included: not_included(scenario),
        choices,
        verdict,
        wrong_if,
        flips,
        figures,
    })
}

/// Of a month, of what is owed and of full cover: sums of these still fit their type.
const MOST: NanoUsd = NanoUsd(1_000_000_000_000_000_000);

fn priced(world: &World<'_>, design: Design) -> Choice {
    let scenario = world.scenario;
    let (evaluated, infeasible) = match world.evaluate(&design, Ask::default()) {
        Ok(done) if done.total.max(done.liability).max(done.cover.unwrap_or_default()) >= MOST => {
            let most = dollars(MOST);
            (None, Some(format!("money: more than {most} is not counted; is a unit wrong?")))
        }
        Ok(done) => (Some(done), None),
        Err(why) => (None, Some(why)),
    };
    let total = evaluated.as_ref().map_or(NanoUsd::ZERO, |done| done.total);
    let one_time = evaluated.as_ref().map_or(NanoUsd::ZERO, |done| done.one_time);
    let range = evaluated.as_ref().map_or((total, total), |done| range(world, &design, done));
    Choice {
        id: design.id.clone(),
        kind: design.kind,
        barred: verdict::forbids(scenario, &design),
        infeasible,
        all_in: total + over_horizon(one_time, scenario.horizon_months),
        savings: BTreeMap::new(),
        payback_months: None,
        worst_month: total + one_time,
        range,
        hosted_break_even: BTreeMap::new(),
        reason: String::new(),
        evaluated,
        design,
    }
}

/// Nine bills, of three prices and three loads at their tenth, fiftieth and ninetieth percentile with the weights of
/// Swanson's rule (30, 40 and 30 of 100); then the bills at a tenth and at nine tenths of the weight.
fn range(world: &World<'_>, design: &Design, done: &Evaluated) -> (NanoUsd, NanoUsd) {
    const WEIGHTS: [u32; 3] = [3, 4, 3];
    let scenario = world.scenario;
    let three = |percent: u32| [1_000 - percent.min(99) * 10, 1_000, 1_000 + percent * 10];
    let mut bills: Vec<(NanoUsd, u32)> = Vec::with_capacity(9);
    for (price, a) in three(scenario.price_uncertainty).into_iter().zip(WEIGHTS) {
        for (load, b) in three(scenario.load_uncertainty).into_iter().zip(WEIGHTS) {
            let factors = Factors { load, price, ..Factors::default() };
            let ask = Ask { factors, bases: Some(&done.bases), formulas: false };
            bills.push((world.evaluate(design, ask).map_or(done.total, |other| other.total), a * b));
        }
    }
    bills.sort_unstable();
    let at = |hundredths: u32| {
        let mut weight = 0;
        let reached = bills.iter().find(|(_, own)| {
            weight += own;
            weight >= hundredths
        });
        reached.map_or(done.total, |(bill, _)| *bill)
    };
    (at(10), at(90))
}

/// Savings against today and against every single cloud, and when the move has paid for itself.
fn compare(choices: &mut [Choice]) {
    let total = |choice: &Choice| choice.evaluated.as_ref().map(|done| done.total);
    let is_baseline = |choice: &&Choice| matches!(choice.kind, Kind::Today | Kind::Single);
    let baselines: Vec<(String, NanoUsd)> =
        choices.iter().filter(is_baseline).filter_map(|choice| Some((choice.id.clone(), total(choice)?))).collect();
    for choice in choices {
        let Some(own) = &choice.evaluated else { continue };
        let others = baselines.iter().filter(|(id, _)| *id != choice.id);
        choice.savings = others.map(|(id, usd)| (id.clone(), *usd - own.total)).collect();
        let saved = choice.savings.get("today").copied().unwrap_or(NanoUsd::ZERO);
        let months = |saved: NanoUsd| own.one_time.0.max(0).cast_unsigned().div_ceil(saved.0.cast_unsigned());
        choice.payback_months = (saved.0 > 0).then(|| u32::try_from(months(saved)).unwrap_or(u32::MAX));
    }
}

/// What a request costs at each hosted model, with the requests of a month.
fn hosted_costs(world: &World<'_>, choices: &[Choice]) -> Vec<(String, NanoUsd, u64)> {
    let requests = world.requests(1_000);
    let hosted = choices.iter().filter(|choice| choice.kind == Kind::Hosted);
    hosted.filter_map(|choice| Some((choice.id.clone(), choice.evaluated.as_ref()?.tokens, requests))).collect()
}

/// The rate at which a month of tokens costs what this month of GPUs does.
fn break_evens(choice: &Choice, hosted: &[(String, NanoUsd, u64)]) -> BTreeMap<String, f64> {
    let Some(done) = choice.evaluated.as_ref().filter(|_| choice.kind != Kind::Hosted) else { return BTreeMap::new() };
    let gpus = done.on_demand + done.reserved + done.committed + done.egress + done.weights;
    let at = |(id, tokens, requests): &(String, NanoUsd, u64)| {
        let each = tokens.as_usd() / *requests as f64;
        (id.clone(), gpus.as_usd() / each / (super::MONTH_HOURS * 3_600) as f64)
    };
    hosted.iter().filter(|(_, tokens, _)| tokens.0 > 0).map(at).collect()
}

/// A sentence for each option that was not chosen.
fn explain_losses(verdict: &Verdict, choices: &mut [Choice]) {
    let chosen = choices.iter().find(|choice| choice.id == verdict.option);
    let (best, best_id) = chosen.map_or((NanoUsd::ZERO, String::new()), |chosen| (chosen.all_in, chosen.id.clone()));
    let single: BTreeMap<usize, (String, NanoUsd)> = choices
        .iter()
        .filter(|choice| matches!(choice.kind, Kind::Single | Kind::Pattern1) && choice.design.moves_to.is_none())
        .filter_map(|choice| {
            let total = choice.evaluated.as_ref()?.total;
            Some((choice.design.legs.first()?.cloud, (choice.id.clone(), total)))
        })
        .collect();
    for choice in choices {
        choice.reason = match (&choice.infeasible, choice.barred.first()) {
            (Some(why), _) => why.clone(),
            (None, Some((rule, why))) => format!("{}: {why}", rule.as_str()),
            (None, None) if choice.id == best_id => "chosen".to_owned(),
            (None, None) if choice.all_in == best => format!("costs the same as {best_id}"),
            (None, None) => format!("{} dearer than {best_id}", dollars(choice.all_in - best)),
        };
        let Some(done) = choice.evaluated.as_ref().filter(|_| choice.kind == Kind::Pattern2) else { continue };
        let cheaper =
            choice.design.legs.iter().filter_map(|leg| single.get(&leg.cloud)).min_by_key(|(_, total)| *total);
        if let Some((id, total)) = cheaper.filter(|(_, total)| *total < done.total) {
            choice.reason += &format!("; {} dearer than the cheaper cloud alone ({id})", dollars(done.total - *total));
        }
    }
}

fn saving_figures(choices: &[Choice]) -> Vec<Figure> {
    let totals: BTreeMap<&str, NanoUsd> =
        choices.iter().filter_map(|choice| Some((choice.id.as_str(), choice.evaluated.as_ref()?.total))).collect();
    let mut figures = Vec::new();
    for choice in choices {
        for (against, saved) in &choice.savings {
            let formula = format!("{} - {}", usd(totals[against.as_str()]), usd(totals[choice.id.as_str()]));
            let id = format!("{}.saving.{against}", choice.id);
            figures.push(Figure::usd(id, format!("saved in a month against {against}"), *saved, formula));
        }
        if let Some(done) = &choice.evaluated {
            let formula = format!("{} + {}", usd(done.total), usd(done.one_time));
            let id = format!("{}.worst_month", choice.id);
            figures.push(Figure::usd(id, "the first month, with what is paid once", choice.worst_month, formula));
        }
    }
    figures
}

/// Today's bill beside the invoice, by kind.
fn ties(scenario: &Scenario, today: &Choice) -> Vec<Tie> {
    let Some(done) = today.evaluated.as_ref().filter(|_| !scenario.today.invoice.is_empty()) else { return Vec::new() };
    let computed = |kind| match kind {
        InvoiceKind::Gpu => done.on_demand + done.committed,
        InvoiceKind::Tokens => done.tokens,
        InvoiceKind::Egress => done.egress + done.weights,
        InvoiceKind::Storage => NanoUsd::ZERO,
        InvoiceKind::Other => done.other,
    };
    let tie = |kind| Tie {
        kind,
        computed: computed(kind),
        invoiced: scenario.today.invoice.get(&kind).copied().unwrap_or_default(),
    };
    InvoiceKind::ALL.into_iter().map(tie).collect()
}

/// The four ways to spend less on an edge, for each edge of the challenger that costs something.
fn mitigations(scenario: &Scenario, choices: &[Choice], verdict: &Verdict) -> Vec<Mitigation> {
    let watched = verdict.challenger.as_deref().unwrap_or("today");
    let done = choices.iter().find(|choice| choice.id == watched).and_then(|choice| choice.evaluated.as_ref());
    let Some(done) = done else { return Vec::new() };
    let home = format!("single-{}", scenario.home.cloud);
    let stay = choices.iter().find(|choice| choice.id == home).and_then(|choice| choice.evaluated.as_ref());
    let edge = |edge: &super::egress::Edge| {
        let flow = scenario.flows.iter().find(|flow| flow.name == edge.name);
        let per_gb = edge.usd.as_usd() / (edge.bytes as f64 / 1e9);
        let mut ways = Vec::new();
        if edge.to != "internet" && edge.to != "hosted" {
            ways.push((
                "co-locate",
                format!("saves {}: what exchanges these bytes stands in one cloud", dollars(edge.usd)),
            ));
        }
        if let Some(unique) = flow.and_then(|flow| flow.unique_bytes) {
            let copied = per_gb * unique as f64 / 1e9;
            let saved = edge.usd.as_usd() - copied;
            let saved = dollars(NanoUsd::from_usd(saved.max(0.0)).unwrap_or_default());
            ways.push(("replicate", format!("saves {saved} before storage: only what is new crosses, once")));
        }
        if let Some(line) = scenario.interconnect.filter(|_| edge.from == scenario.home.cloud && edge.to != "internet")
        {
            let gained = per_gb - line.usd_per_gb.as_usd();
            ways.push((
                "interconnect",
                if gained > 0.0 {
                    format!("pays from {:.0} GB a month on", line.usd_per_month.as_usd() / gained)
                } else {
                    "never pays: a gigabyte costs no less by it".to_owned()
                },
            ));
        }
        if let Some(stay) = stay {
            let more = stay.total - done.total;
            ways.push((
                "stay single-cloud",
                match more.0 {
                    0 => "costs the same in all".to_owned(),
                    1.. => format!("costs {} a month more in all", dollars(more)),
                    _ => format!("costs {} a month less in all", dollars(NanoUsd(-more.0))),
                },
            ));
        }
        Mitigation {
            edge: edge.name.clone(),
            from: edge.from.clone(),
            to: edge.to.clone(),
            gb: edge.bytes as f64 / 1e9,
            usd: edge.usd,
            ways,
        }
    };
    done.edges.iter().filter(|edge| edge.usd.0 > 0).map(edge).collect()
}

fn not_included(scenario: &Scenario) -> Vec<String> {
    let mut out = vec![
        "taxes, support plans and discounts that were negotiated",
        "processors, disks and load balancers beside the GPUs, but for what stands under today.other",
        "traffic between zones of one cloud, and requests to object stores",
        "machines that are kept warm for a burst, and the time a burst takes to start",
    ];
    if scenario.weights.is_none() {
        out.push("moving weights: the scenario has no `weights`");
    }
    if scenario.people.today.0 == 0 {
        out.push("people today: the scenario has none");
    }
    out.into_iter().map(str::to_owned).collect()
}
