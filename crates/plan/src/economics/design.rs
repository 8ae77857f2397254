//! What could be run: which clouds hold the GPUs, and how they are paid. A pattern is a value here, not code.

use super::scenario::Scenario;

/// The kinds of option, by what has to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Today,
    /// Everything in one cloud.
    Single,
    /// GPUs in another cloud than the rest.
    Pattern1,
    /// Two clouds at once.
    Pattern2,
    /// A reserved base, and what is above it on demand.
    Pattern3,
    /// The same with the base in another cloud than the rest.
    Pattern1And3,
    /// Two clouds, each with its reserved base.
    Pattern2And3,
    Hosted,
}

/// How the GPUs of one part of the load are paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On demand, at the size of the peak, all month.
    Peak,
    /// Reserved up to a base, and on demand above it in this cloud (an index into `clouds`).
    Base { burst: usize },
}

/// A part of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Index into `clouds`.
    pub cloud: usize,
    /// Of all requests.
    pub percent: u32,
    pub mode: Mode,
}

/// One option, before it is priced.
#[derive(Clone, Debug, PartialEq)]
pub struct Design {
    pub id: String,
    pub kind: Kind,
    /// Index into `clouds`, where everything moves there.
    pub moves_to: Option<usize>,
    pub legs: Vec<Leg>,
    /// Index into `hosted`.
    pub hosted: Option<usize>,
}

impl Kind {
    /// Whether more than one provider has to be run.
    pub fn is_multi_cloud(self) -> bool {
        matches!(self, Self::Pattern1 | Self::Pattern2 | Self::Pattern1And3 | Self::Pattern2And3)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Today => "today",
            Self::Single => "single cloud",
            Self::Pattern1 => "pattern 1",
            Self::Pattern2 => "pattern 2",
            Self::Pattern3 => "pattern 3",
            Self::Pattern1And3 => "patterns 1 and 3",
            Self::Pattern2And3 => "patterns 2 and 3",
            Self::Hosted => "hosted",
        }
    }
}

impl Design {
    /// All that can be made of the clouds and hosted models of a scenario, in a fixed order.
    pub fn all(scenario: &Scenario) -> Vec<Self> {
        let clouds = 0..scenario.clouds.len();
        let mut all = Vec::new();
        all.extend(clouds.clone().filter_map(|cloud| Self::single(scenario, cloud)));
        all.extend(clouds.clone().filter_map(|cloud| Self::pattern1(scenario, cloud)));
        all.extend(pairs(clouds.clone()).map(|(a, b)| Self::pattern2(scenario, a, b)));
        for base in clouds.clone() {
            all.extend(clouds.clone().map(|burst| Self::pattern3(scenario, base, burst)));
        }
        all.extend(pairs(clouds).map(|(a, b)| Self::pattern2_and_3(scenario, a, b)));
        all.extend((0..scenario.hosted.len()).map(|hosted| Self {
            id: format!("hosted-{}", scenario.hosted[hosted].name),
            kind: Kind::Hosted,
            moves_to: None,
            legs: Vec::new(),
            hosted: Some(hosted),
        }));
        all
    }

    /// The clouds with GPUs, each once, in the order of the legs.
    pub fn clouds(&self) -> Vec<usize> {
        let mut clouds = Vec::new();
        for leg in &self.legs {
            let burst = match leg.mode {
                Mode::Base { burst } => Some(burst),
                Mode::Peak => None,
            };
            for cloud in [Some(leg.cloud), burst].into_iter().flatten() {
                if !clouds.contains(&cloud) {
                    clouds.push(cloud);
                }
            }
        }
        clouds
    }

    fn of(id: String, kind: Kind, legs: Vec<Leg>) -> Self {
        Self { id, kind, moves_to: None, legs, hosted: None }
    }

    /// Home as it is, or all of it in another cloud where it may move.
    fn single(scenario: &Scenario, cloud: usize) -> Option<Self> {
        let is_home = is_home(scenario, cloud);
        let legs = vec![Leg { cloud, percent: 100, mode: Mode::Peak }];
        let design = Self::of(format!("single-{}", scenario.clouds[cloud].cloud), Kind::Single, legs);
        (is_home || scenario.home.may_move).then_some(Self { moves_to: Some(cloud).filter(|_| !is_home), ..design })
    }

    fn pattern1(scenario: &Scenario, cloud: usize) -> Option<Self> {
        let legs = vec![Leg { cloud, percent: 100, mode: Mode::Peak }];
        let design = Self::of(format!("pattern1-{}", scenario.clouds[cloud].cloud), Kind::Pattern1, legs);
        (!is_home(scenario, cloud)).then_some(design)
    }

    fn pattern2(scenario: &Scenario, a: usize, b: usize) -> Self {
        let legs = halves(scenario, a, b, |_| Mode::Peak);
        Self::of(format!("pattern2-{}", names(scenario, a, b)), Kind::Pattern2, legs)
    }

    fn pattern3(scenario: &Scenario, base: usize, burst: usize) -> Self {
        let legs = vec![Leg { cloud: base, percent: 100, mode: Mode::Base { burst } }];
        let named = if base == burst { scenario.clouds[base].cloud.clone() } else { names(scenario, base, burst) };
        if is_home(scenario, base) {
            Self::of(format!("pattern3-{named}"), Kind::Pattern3, legs)
        } else {
            Self::of(format!("pattern1+3-{named}"), Kind::Pattern1And3, legs)
        }
    }

    fn pattern2_and_3(scenario: &Scenario, a: usize, b: usize) -> Self {
        let legs = halves(scenario, a, b, |cloud| Mode::Base { burst: cloud });
        Self::of(format!("pattern2+3-{}", names(scenario, a, b)), Kind::Pattern2And3, legs)
    }
}

fn is_home(scenario: &Scenario, cloud: usize) -> bool {
    scenario.clouds[cloud].cloud == scenario.home.cloud
}

fn names(scenario: &Scenario, a: usize, b: usize) -> String {
    format!("{}-{}", scenario.clouds[a].cloud, scenario.clouds[b].cloud)
}

fn halves(scenario: &Scenario, a: usize, b: usize, mode: impl Fn(usize) -> Mode) -> Vec<Leg> {
    let leg = |cloud, percent| Leg { cloud, percent, mode: mode(cloud) };
    vec![leg(a, scenario.split_percent), leg(b, 100 - scenario.split_percent)]
}

fn pairs(clouds: std::ops::Range<usize>) -> impl Iterator<Item = (usize, usize)> {
    let end = clouds.end;
    clouds.flat_map(move |a| (a + 1..end).map(move |b| (a, b)))
}
