//! The line itself: requests that wait for a place, in the order in which they are asked again.
//!
//! Higher priority first, then who arrived first. Whoever acts (the gateway, the simulator) holds the list and asks it,
//! each time that something ended, who is next; so that a place that comes free goes to the first who can use it, and
//! never to one who comes by in that moment. One that cannot use it does not hold up those behind: some may not use a
//! cloud, or have tried that backend. But all that are alike in this get the same answer, so only the first is asked.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::{
    facts::{CloudSet, Facts, History},
    fleet::{Api, ModelId, Priority},
    units::Nanos,
};

/// Where a request stands in the line; it keeps this place until it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    priority: Reverse<Priority>,
    arrived: Nanos,
    number: u64,
}

/// What decides whether a backend may serve a request: of two that are alike in it, either both find a place or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alike {
    facts: (ModelId, Api, CloudSet, bool, Priority),
    history: History,
}

impl Alike {
    fn new(facts: &Facts, history: &History) -> Self {
        let Facts { model, api, clouds_allowed, substitute_allowed, priority, .. } = *facts;
        // How long it may wait bears on when it gives up, and not on who may serve it.
        let mut history = *history;
        history.until = Nanos::ZERO;
        Self { facts: (model, api, clouds_allowed, substitute_allowed, priority), history }
    }
}

/// Those that are alike, in their order; never empty.
#[derive(Clone, Debug)]
struct Class<T> {
    alike: Alike,
    entries: BTreeMap<Place, T>,
}

/// Requests that wait, each with what its owner needs to go on with it.
#[derive(Clone, Debug)]
pub struct WaitingList<T> {
    /// A handful: keys with other rules, models, failovers.
    classes: Vec<Class<T>>,
    entered: u64,
}

/// One walk along the line: who need not be asked any more.
#[derive(Debug, Default)]
pub struct Walk {
    refused: Vec<Alike>,
}

impl<T> Default for WaitingList<T> {
    fn default() -> Self {
        Self { classes: Vec::new(), entered: 0 }
    }
}

impl<T> WaitingList<T> {
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    pub fn len(&self) -> usize {
        self.classes.iter().map(|class| class.entries.len()).sum()
    }

    /// Puts a request where it belongs: its time of arrival counts, also when it has been tried somewhere since.
    pub fn enter(&mut self, facts: &Facts, history: &History, value: T) -> Place {
        self.entered += 1;
        let place = Place { priority: Reverse(facts.priority), arrived: facts.arrived, number: self.entered };
        self.insert(Alike::new(facts, history), place, value);
        place
    }

    fn insert(&mut self, alike: Alike, place: Place, value: T) {
        match self.classes.iter_mut().find(|class| class.alike == alike) {
            Some(class) => drop(class.entries.insert(place, value)),
            None => self.classes.push(Class { alike, entries: BTreeMap::from([(place, value)]) }),
        }
    }

    /// Takes a request out; `None` when it had left already.
    pub fn leave(&mut self, place: Place) -> Option<T> {
        let (at, class) = self.classes.iter_mut().enumerate().find(|(_, class)| class.entries.contains_key(&place))?;
        let value = class.entries.remove(&place);
        if class.entries.is_empty() {
            self.classes.swap_remove(at);
        }
        value
    }

    pub fn get_mut(&mut self, place: Place) -> Option<&mut T> {
        self.classes.iter_mut().find_map(|class| class.entries.get_mut(&place))
    }

    /// The one that has to make room where `model` has more in line than it may: the last to come of the lowest
    /// priority.
    pub fn displace(&mut self, model: ModelId) -> Option<T> {
        let of_model = self.classes.iter().filter(|class| class.alike.facts.0 == model);
        let last = of_model.filter_map(|class| class.entries.keys().next_back()).max().copied();
        last.and_then(|place| self.leave(place))
    }

    /// The next to be asked. One that is asked either leaves, or stands for those like it by [`Self::refused`].
    pub fn next(&self, walk: &Walk) -> Option<Place> {
        let open = self.classes.iter().filter(|class| !walk.refused.contains(&class.alike));
        open.filter_map(|class| class.entries.keys().next()).min().copied()
    }

    /// There was no place for this one, nor is there for those like it.
    pub fn refused(&self, walk: &mut Walk, place: Place) {
        let class = self.classes.iter().find(|class| class.entries.contains_key(&place));
        walk.refused.extend(class.map(|class| class.alike));
    }

    /// After a reload things have other numbers and keys other rules: `now` says what each request is now. Those of
    /// which it says nothing have left.
    pub fn follow(&mut self, mut now: impl FnMut(&mut T) -> Option<(Facts, History)>) -> Vec<T> {
        let mut left = Vec::new();
        for (place, mut value) in std::mem::take(&mut self.classes).into_iter().flat_map(|class| class.entries) {
            match now(&mut value) {
                Some((facts, history)) => self.insert(Alike::new(&facts, &history), place, value),
                None => left.push(value),
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(model: u16, priority: Priority, arrived: u64) -> Facts {
        Facts { priority, ..Facts::anonymous(ModelId(model), Nanos::from_secs(arrived)) }
    }

    #[test]
    fn higher_priority_goes_first_and_then_who_arrived_first() {
        let mut list = WaitingList::default();
        for (priority, arrived) in [(Priority::Low, 1), (Priority::High, 9), (Priority::Normal, 5), (Priority::High, 7)]
        {
            list.enter(&facts(0, priority, arrived), &History::default(), arrived);
        }
        let order: Vec<u64> =
            std::iter::from_fn(|| list.next(&Walk::default()).and_then(|place| list.leave(place))).collect();
        assert_eq!(order, [7, 9, 5, 1]);
        assert!(list.is_empty());
    }

    #[test]
    fn one_that_finds_no_place_stands_for_those_like_it_and_for_no_other() {
        let mut list = WaitingList::default();
        let places: Vec<Place> = (0..4)
            .map(|i| list.enter(&facts(u16::from(i == 2), Priority::Normal, i), &History::default(), i))
            .collect();
        let mut walk = Walk::default();
        assert_eq!(list.next(&walk), Some(places[0]));
        list.refused(&mut walk, places[0]);
        assert_eq!(list.next(&walk), Some(places[2]), "another model");
        list.refused(&mut walk, places[2]);
        assert_eq!(list.next(&walk), None);
    }

    #[test]
    fn the_last_of_the_lowest_makes_room() {
        let mut list = WaitingList::default();
        for (priority, arrived) in [(Priority::Low, 1), (Priority::Low, 2), (Priority::High, 3)] {
            list.enter(&facts(0, priority, arrived), &History::default(), arrived);
        }
        assert_eq!(list.displace(ModelId(0)), Some(2));
        assert_eq!(list.displace(ModelId(1)), None);
    }
}
