//! Is it worth it, which rule says no, and from which spend on.
//!
//! Options are compared by their month with the cost of getting there spread over the horizon. The rules are the five
//! "skip it if" of the strategy that Outrigger follows; each fires only where it changed the answer, so that a rule in a
//! verdict is a reason and not a remark.

use outrigger_core::units::NanoUsd;

use super::{
    design::{Design, Kind, Mode},
    figure::{Figure, divided, dollars, usd},
    plan::Choice,
    scenario::Scenario,
};

/// Why several clouds may not be for a team.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    SmallSpend,
    RegionLockIn,
    DataGravity,
    NoPlatformTeam,
    ColdStart,
}

impl Rule {
    pub const ALL: [Self; 5] =
        [Self::SmallSpend, Self::RegionLockIn, Self::DataGravity, Self::NoPlatformTeam, Self::ColdStart];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SmallSpend => "small_spend",
            Self::RegionLockIn => "region_lock_in",
            Self::DataGravity => "data_gravity",
            Self::NoPlatformTeam => "no_platform_team",
            Self::ColdStart => "cold_start",
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether to change at all.
    pub worth_it: bool,
    /// What to run; `today` where it is not worth it.
    pub option: String,
    pub rules: Vec<Rule>,
    /// The spend of a month, people apart, from which on the best change pays for itself; `None` where it saves
    /// nothing at any spend.
    pub break_even: Option<NanoUsd>,
    /// The change that comes nearest, or the one that is chosen.
    pub challenger: Option<String>,
    /// In sentences.
    pub why: Vec<String>,
}

/// The rules that forbid an option, each with its sentence.
pub(super) fn forbids(scenario: &Scenario, design: &Design) -> Vec<(Rule, String)> {
    let constraints = &scenario.constraints;
    let mut found = Vec::new();
    let names: Vec<&str> = design.clouds().iter().map(|cloud| scenario.clouds[*cloud].cloud.as_str()).collect();
    if let Some(only) = &constraints.only_clouds {
        let outside: Vec<&str> = names.iter().copied().filter(|name| !only.iter().any(|one| one == name)).collect();
        if !outside.is_empty() || design.kind == Kind::Hosted {
            let who = if outside.is_empty() { "a hosted API".to_owned() } else { outside.join(" and ") };
            found.push((Rule::RegionLockIn, format!("{who} is outside of what only_clouds allows")));
        }
    }
    let home = design.moves_to.map_or(&scenario.home.cloud, |cloud| &scenario.clouds[cloud].cloud);
    let leaves_home = names.iter().any(|name| name != home) || design.moves_to.is_some();
    if constraints.data_gravity_tb >= constraints.data_gravity_limit_tb && leaves_home {
        let (tb, limit) = (constraints.data_gravity_tb, constraints.data_gravity_limit_tb);
        found.push((Rule::DataGravity, format!("{tb} TB of data keep the GPUs beside them (from {limit} TB on)")));
    }
    let spans = names.len() > 1 || design.kind.is_multi_cloud();
    if !constraints.platform_team && spans {
        found.push((Rule::NoPlatformTeam, "nobody is there to run more than one provider".to_owned()));
    }
    if let Some(limit) = constraints.cold_start_limit_s {
        let cold = design.legs.iter().filter_map(|leg| match leg.mode {
            Mode::Base { burst } => Some(&scenario.clouds[burst]),
            Mode::Peak => None,
        });
        if let Some(slow) = cold.filter(|cloud| cloud.cold_start_s > limit).max_by_key(|cloud| cloud.cold_start_s) {
            let why = format!("a burst at {} takes {} s to start, over {limit} s", slow.cloud, slow.cold_start_s);
            found.push((Rule::ColdStart, why));
        }
    }
    found
}

/// Judges options that are all priced against today's, which comes first.
pub(super) fn judge(scenario: &Scenario, choices: &[Choice]) -> (Verdict, Vec<Figure>) {
    let today = &choices[0];
    // Of equals, what spans fewer clouds.
    let cost = |choice: &&Choice| (choice.all_in, choice.evaluated.as_ref().map_or(0, |done| done.gpus.len()));
    let changes = || choices[1..].iter().filter(|choice| choice.evaluated.is_some());
    let best = changes().filter(|choice| choice.barred.is_empty()).min_by_key(cost);
    let best_cost = best.map_or(today.all_in, |best| best.all_in.min(today.all_in));
    let worth_it = best.is_some_and(|best| best.all_in < today.all_in);
    let mut rules: Vec<Rule> = Vec::new();
    for choice in changes().filter(|choice| !choice.barred.is_empty() && choice.all_in < best_cost) {
        rules.extend(choice.barred.iter().map(|(rule, _)| *rule));
    }
    let saves = |choice: &&Choice| infrastructure(choice) < infrastructure(today);
    let short = changes().filter(|choice| !worth_it && choice.barred.is_empty()).filter(saves).min_by_key(cost);
    let challenger = short.or(best).or_else(|| changes().min_by_key(cost));
    let (break_even, figure) = match challenger {
        Some(challenger) => break_even(scenario, today, challenger),
        None => (None, None),
    };
    if short.is_some() {
        rules.push(Rule::SmallSpend);
    }
    rules.sort_unstable();
    rules.dedup();
    let option = if worth_it { best.map_or("today", |best| &best.id) } else { "today" };
    let verdict = Verdict {
        worth_it,
        option: option.to_owned(),
        why: words(scenario, today, short.or(best), challenger, &rules, break_even),
        rules,
        break_even,
        challenger: challenger.map(|choice| choice.id.clone()),
    };
    (verdict, figure.into_iter().collect())
}

/// A month without people.
fn infrastructure(choice: &Choice) -> NanoUsd {
    choice.evaluated.as_ref().map_or(NanoUsd::ZERO, |done| done.total - done.people)
}

/// Overhead over the rate of saving: the spend at which the two are equal.
fn break_even(scenario: &Scenario, today: &Choice, change: &Choice) -> (Option<NanoUsd>, Option<Figure>) {
    let (Some(now), Some(then)) = (&today.evaluated, &change.evaluated) else { return (None, None) };
    let (before, after) = (infrastructure(today), infrastructure(change));
    let spread = over_horizon(then.one_time, scenario.horizon_months);
    let overhead = then.people - now.people + spread;
    let saved = before - after;
    if saved.0 <= 0 {
        return (None, None);
    }
    let positive = |amount: NanoUsd| u128::from(amount.0.max(0).unsigned_abs());
    let spend = divided(positive(overhead) * positive(before), positive(saved));
    let spend = NanoUsd(i64::try_from(spend).unwrap_or(i64::MAX));
    let formula = if overhead.0 <= 0 {
        "0".to_owned()
    } else {
        let (b, a) = (usd(before), usd(after));
        format!("({} - {} + {}) / (({b} - {a}) / {b})", usd(then.people), usd(now.people), usd(spread))
    };
    (Some(spend), Some(Figure::usd("verdict.break_even", "spend of a month from which on it pays", spend, formula)))
}

/// A month's part of what is paid once.
pub(super) fn over_horizon(one_time: NanoUsd, months: u32) -> NanoUsd {
    super::figure::scaled(one_time, 1, u128::from(months.max(1)))
}

fn words(
    scenario: &Scenario,
    today: &Choice,
    best: Option<&Choice>,
    challenger: Option<&Choice>,
    rules: &[Rule],
    break_even: Option<NanoUsd>,
) -> Vec<String> {
    let mut why = Vec::new();
    let months = scenario.horizon_months;
    match best {
        Some(best) if best.all_in < today.all_in => {
            let less = today.all_in - best.all_in;
            why.push(format!(
                "{} costs {} a month less than today, with what it takes to get there spread over {months} months",
                best.id,
                dollars(less)
            ));
            if best.kind == Kind::Hosted {
                why.push("at this load tokens are simply cheaper than GPUs".to_owned());
            }
        }
        Some(best) if best.all_in == today.all_in => {
            why.push(format!("the best change, {}, costs the same as today", best.id));
        }
        Some(best) => {
            let more = best.all_in - today.all_in;
            why.push(format!(
                "the best change, {}, costs {} a month more than today, with what it takes to get there",
                best.id,
                dollars(more)
            ));
        }
        None => why.push("no change can be priced and is allowed".to_owned()),
    }
    if rules.contains(&Rule::SmallSpend) {
        let from =
            break_even.map_or_else(String::new, |spend| format!("; it would from {} a month on", dollars(spend)));
        why.push(format!("what it saves does not pay for the people and the move{from}"));
    }
    for rule in rules.iter().filter(|rule| **rule != Rule::SmallSpend) {
        why.push(format!("{} rules out options that would be cheaper", rule.as_str()));
    }
    if break_even.is_none() && challenger.is_some() {
        why.push("the best change saves nothing before people, so that no spend is large enough".to_owned());
    }
    why
}
