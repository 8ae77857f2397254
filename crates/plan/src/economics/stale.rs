//! How old the prices of a plan are, in one line, and which of them could turn the answer.
//!
//! A warning on every row is a warning that nobody reads. A row is named by itself only where a fifth more or less of
//! it would change the verdict.

use jiff::civil::Date;
use outrigger_core::units::NanoUsd;

use super::{
    book::age_days,
    evaluate::{Ask, World},
    figure::scaled,
    plan::{Choice, Plan},
    scenario::Scenario,
    verdict::over_horizon,
};

/// Older than this many days, a price is said to be.
const OLD: i64 = 30;

/// Ages of the prices that a plan took from a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Staleness {
    pub older: usize,
    pub of: usize,
    /// The oldest that is part of the watched option's bill, with its date.
    pub oldest: Option<String>,
    /// Prices of which a fifth more or less turns the verdict.
    pub decisive: Vec<String>,
}

/// Looks at every price that came with a date.
pub fn staleness(scenario: &Scenario, plan: &Plan, today: Date) -> Staleness {
    let watched = plan.verdict.challenger.as_deref().and_then(|id| plan.choice(id));
    let clouds = watched.map(|choice| choice.design.clouds()).unwrap_or_default();
    let hosted = watched.and_then(|choice| choice.design.hosted);
    let rented = scenario.clouds.iter().enumerate().map(|(i, cloud)| {
        let name = format!("{} ({})", cloud.source, cloud.as_of);
        (name, cloud.as_of.as_str(), clouds.contains(&i))
    });
    let served = scenario.hosted.iter().enumerate().map(|(i, offer)| {
        let name = format!("{} ({})", offer.source, offer.as_of);
        (name, offer.as_of.as_str(), hosted == Some(i))
    });
    let left = scenario.clouds.iter().enumerate().filter_map(|(i, cloud)| {
        let as_of = cloud.egress.first().map(|tier| tier.as_of).filter(|as_of| !as_of.is_empty())?;
        Some((format!("egress of {} ({as_of})", cloud.cloud), as_of, clouds.contains(&i)))
    });
    let mut found = Staleness::default();
    let mut oldest = OLD;
    for (name, as_of, is_watched) in rented.chain(served).chain(left).filter(|(_, as_of, _)| !as_of.is_empty()) {
        let age = age_days(as_of, today).unwrap_or(i64::MAX);
        found.of += 1;
        found.older += usize::from(age > OLD);
        if is_watched && age > oldest {
            oldest = age;
            found.oldest = Some(name);
        }
    }
    if let Some(watched) = watched {
        found.decisive = decisive(scenario, plan, watched);
    }
    found
}

fn decisive(scenario: &Scenario, plan: &Plan, watched: &Choice) -> Vec<String> {
    let today = &plan.choices[0];
    let bases = watched.evaluated.as_ref().map(|done| done.bases.clone()).unwrap_or_default();
    let turns = |changed: &Scenario| {
        let world = World::new(changed);
        let all_in = |design, bases| {
            let done = world.evaluate(design, Ask { bases, formulas: false, ..Ask::default() }).ok()?;
            Some(done.total + over_horizon(done.one_time, scenario.horizon_months))
        };
        let both = all_in(&watched.design, Some(&bases[..])).zip(all_in(&today.design, None));
        both.is_some_and(|(then, now)| (then < now) != (watched.all_in < today.all_in))
    };
    let fifth = |price: NanoUsd, part: u128| scaled(price, part, 10);
    let turned = |change: &dyn Fn(&mut Scenario, u128)| {
        [8, 12].into_iter().any(|part| {
            let mut changed = scenario.clone();
            change(&mut changed, part);
            turns(&changed)
        })
    };
    let mut named = Vec::new();
    for cloud in watched.design.clouds() {
        let row = &scenario.clouds[cloud];
        let each = NanoUsd(row.usd_per_hour.0 / i64::from(row.instance_gpus.max(1)));
        let change = |to: &mut Scenario, part| {
            to.clouds[cloud].usd_per_hour = fifth(row.usd_per_hour, part);
            // Where today's pools are paid by the same list.
            let pools = to.today.pools.iter_mut();
            let listed = pools.filter(|pool| pool.cloud == row.cloud && pool.usd_per_gpu_hour == each);
            listed.for_each(|pool| pool.usd_per_gpu_hour = fifth(each, part));
        };
        if !row.as_of.is_empty() && turned(&change) {
            named.push(format!("{}, {} of {}", row.source, super::dollars(row.usd_per_hour), row.as_of));
        }
    }
    if let Some(hosted) = watched.design.hosted {
        let row = &scenario.hosted[hosted];
        let change = |to: &mut Scenario, part| {
            let price = &mut to.hosted[hosted].price;
            (price.input, price.output) = (fifth(row.price.input, part), fifth(row.price.output, part));
        };
        if !row.as_of.is_empty() && turned(&change) {
            named.push(format!("{} of {}", row.source, row.as_of));
        }
    }
    named
}
