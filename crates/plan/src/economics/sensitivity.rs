//! How far off an input may be before the answer is another one.
//!
//! One input at a time is changed in thousandths, first in steps that grow with the distance and then by halving between the
//! first that differs and the one before it: machines are whole, so that a bill may turn an answer more than once. Bases stay as they were decided: a contract does not shrink because the load did.

use outrigger_core::units::NanoUsd;

use super::{
    evaluate::{Ask, Factors, World},
    plan::Choice,
    verdict::over_horizon,
};

/// What may be off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Load,
    OnDemandPrice,
    ReservedPrice,
    Egress,
    People,
    Migration,
}

impl Input {
    pub const ALL: [Self; 6] =
        [Self::Load, Self::OnDemandPrice, Self::ReservedPrice, Self::Egress, Self::People, Self::Migration];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::OnDemandPrice => "on-demand and token price",
            Self::ReservedPrice => "reserved price",
            Self::Egress => "egress",
            Self::People => "people",
            Self::Migration => "migration",
        }
    }

    pub(super) fn at(self, thousandths: u32) -> Factors {
        let mut factors = Factors::default();
        let field = match self {
            Self::Load => &mut factors.load,
            Self::OnDemandPrice => &mut factors.price,
            Self::ReservedPrice => &mut factors.reserved,
            Self::Egress => &mut factors.egress,
            Self::People => &mut factors.people,
            Self::Migration => &mut factors.migration,
        };
        *field = thousandths;
        factors
    }
}

/// The option's month is more than a tenth off beyond these thousandths of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongIf {
    pub input: Input,
    pub below: Option<u32>,
    pub above: Option<u32>,
}

/// The verdict is another one from these thousandths of an input on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flip {
    pub input: Input,
    pub at: u32,
}

/// A hundredth of what was said, and five times as much.
const LEAST: u32 = 10;
const MOST: u32 = 5_000;

/// Inputs that put the option's month more than a tenth off.
pub(super) fn wrong_if(world: &World<'_>, choice: &Choice) -> Vec<WrongIf> {
    let Some(done) = &choice.evaluated else { return Vec::new() };
    let is_off = |input: Input, at: u32| {
        let ask = Ask { factors: input.at(at), bases: Some(&done.bases), formulas: false };
        let total = world.evaluate(&choice.design, ask).map(|other| other.total);
        // What cannot be run any more is off.
        total.map_or(true, |total| (total.0 - done.total.0).unsigned_abs() > done.total.0.unsigned_abs() / 10)
    };
    let each = Input::ALL.into_iter().map(|input| WrongIf {
        input,
        below: first(1_000, LEAST, |at| is_off(input, at)),
        above: first(1_000, MOST, |at| is_off(input, at)),
    });
    each.filter(|wrong| wrong.below.is_some() || wrong.above.is_some()).collect()
}

/// The inputs that change whether the option beats today, the nearest first.
pub(super) fn flips(world: &World<'_>, today: &Choice, choice: &Choice) -> Vec<Flip> {
    let months = world.scenario.horizon_months;
    let is_worth = choice.all_in < today.all_in;
    let Some(done) = &choice.evaluated else { return Vec::new() };
    let all_in = |choice: &Choice, factors, bases| -> Option<NanoUsd> {
        let other = world.evaluate(&choice.design, Ask { factors, bases, formulas: false }).ok()?;
        Some(other.total + over_horizon(other.one_time, months))
    };
    let is_other = |input: Input, at: u32| {
        let factors = input.at(at);
        // Today has as many GPUs as it has; their price, people, tokens and egress move with the input.
        let (then, now) = (all_in(choice, factors, Some(&done.bases)), all_in(today, factors, None));
        // What cannot be run beats nothing.
        then.zip(now).is_some_and(|(then, now)| then < now) != is_worth
    };
    let mut flips: Vec<Flip> = Vec::new();
    for input in Input::ALL {
        for end in [LEAST, MOST] {
            flips.extend(first(1_000, end, |at| is_other(input, at)).map(|at| Flip { input, at }));
        }
    }
    flips.sort_by_key(|flip| (flip.at.abs_diff(1_000), flip.input as u8));
    flips
}

/// How far from what was said it is looked first, in thousandths.
const STEPS: [u32; 22] = [
    10, 20, 30, 40, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 600, 750, 1_000, 1_500, 2_000, 2_500, 3_000, 3_500,
];

/// The first value on the way from `from` to `to` at which it holds, as far as the steps see; it does not hold at `from`.
fn first(from: u32, to: u32, holds: impl Fn(u32) -> bool) -> Option<u32> {
    let steps = STEPS.into_iter().filter(|step| *step < from.abs_diff(to));
    let looked = steps.map(|step| if to < from { from - step } else { from + step }).chain([to]);
    let mut no = from;
    let mut yes = None;
    for at in looked {
        if holds(at) {
            yes = Some(at);
            break;
        }
        no = at;
    }
    let mut yes = yes?;
    while no.abs_diff(yes) > 1 {
        let middle = u32::midpoint(no, yes);
        if holds(middle) { yes = middle } else { no = middle }
    }
    Some(yes)
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn the_first_that_holds_is_found_on_both_sides() {
        assert_eq!(first(1_000, 5_000, |at| at >= 1_234), Some(1_234));
        assert_eq!(first(1_000, 10, |at| at <= 765), Some(765));
        assert_eq!(first(1_000, 10, |_| false), None);
        assert_eq!(first(1_000, 5_000, |at| at == 5_000), Some(5_000));
        // An answer that turns, and turns back.
        assert_eq!(first(1_000, 5_000, |at| (1_031..1_100).contains(&at) || at > 1_400), Some(1_031));
    }
}
