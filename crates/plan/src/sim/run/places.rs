//! Where the gateways stand, and which of them a request comes to.

use outrigger_core::{Rng, fleet::Fleet, state::State, units::Nanos, waiting::WaitingList};
use rand_core::{Rng as _, SeedableRng as _};

use super::{Setup, Sim};
use crate::trace::Arrival;

#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) state: State,
    pub(super) rng: Rng,
    pub(super) waiting: WaitingList<u32>,
    /// `None` where the setup names no places.
    pub(super) place: Option<usize>,
}

impl Setup {
    /// The fleet as it is seen from a gateway's place.
    pub(super) fn fleet_at(&self, place: Option<usize>) -> &Fleet {
        place.map_or(&self.fleet, |place| &self.places[place].fleet)
    }
}

/// As many in each place as the fleet has replicas of the gateway.
pub(super) fn gateways(setup: &Setup) -> Vec<Gateway> {
    let each = setup.fleet.gateway.replicas.count() as usize;
    let gateway = |i: usize| {
        let place = (!setup.places.is_empty()).then_some(i / each);
        let fleet = place.map_or(&setup.fleet, |place| &setup.places[place].fleet);
        let mut rng = Rng::seed_from_u64(setup.seed.wrapping_mul(1_000_003).wrapping_add(i as u64));
        let state = State::new(fleet.clone(), Nanos::ZERO, &mut rng);
        Gateway { state, rng, waiting: WaitingList::default(), place }
    };
    (0..each * setup.places.len().max(1)).map(gateway).collect()
}

impl Sim<'_> {
    /// The gateway that a request comes to: any in its place. The requests of a session share one.
    pub(super) fn deal(&mut self, arrival: &Arrival) -> u32 {
        let places = self.setup.places.len().max(1);
        let each = self.gateways.len() / places;
        let place = if places == 1 { 0 } else { self.place_of(arrival) };
        let within = if each == 1 { 0 } else { ((u64::from(self.dealer.next_u32()) * each as u64) >> 32) as usize };
        (place * each + within) as u32
    }

    fn place_of(&mut self, arrival: &Arrival) -> usize {
        let drawn = match arrival.session {
            Some(session) => Rng::seed_from_u64(session).next_u32(),
            None => self.dealer.next_u32(),
        };
        let places = &self.setup.places;
        let all: f64 = places.iter().map(|place| place.share).sum();
        let mut left = f64::from(drawn) / 4_294_967_296.0 * all;
        let found = places.iter().position(|place| {
            left -= place.share;
            left < 0.0
        });
        found.unwrap_or(places.len() - 1)
    }
}
