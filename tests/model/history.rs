//! What a history is made of: a world to begin with, and moves. Both follow from a seed, and what each kind of host adds.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How the hosts of a world behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They have slots, and show at once what they have.
    Docker,
    /// They have a slot or two that people may take, and take a minute to boot what a runner runs in.
    Mac,
    /// They have no slots, are late to show what was started, and late to forget what ended.
    Ecs,
    /// They are the recording fake of the conformance suite.
    Fake,
}

/// The kinds, and of a hundred histories how many have each.
pub const KINDS: &[(Kind, u32)] = &[(Kind::Docker, 25), (Kind::Ecs, 30), (Kind::Mac, 30), (Kind::Fake, 15)];

/// The world that a history begins with.
#[derive(Debug, Clone)]
pub struct Setup {
    pub kind: Kind,
    pub hosts: Vec<HostSetup>,
    pub sets: Vec<SetSetup>,
    /// Whether GitHub assigns jobs by itself, as the broker of github.com does, or offers them.
    pub broker: bool,
}

#[derive(Debug, Clone)]
pub struct HostSetup {
    pub slots: Option<u32>,
    /// Instances of another cluster, which take slots.
    pub foreign: u32,
}

#[derive(Debug, Clone)]
pub struct SetSetup {
    pub min: u32,
    pub max: u32,
    pub backends: Vec<BackendSetup>,
    /// All in seconds.
    pub start: u32,
    pub job: u32,
    pub idle: u32,
    pub lifetime: u32,
    pub delay: u32,
    pub drain: u32,
    /// How many VMs of each backend are kept ready, on Macs.
    pub warm: u32,
}

#[derive(Debug, Clone)]
pub struct BackendSetup {
    pub hosts: Vec<usize>,
    pub max: Option<u32>,
}

/// How GitHub or the API server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fine,
    /// Some calls fail, in all the ways there are; some answers are lost.
    Patchy,
    /// Nothing works.
    Down,
}

/// How a host starts instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starts {
    Well,
    /// They take minutes.
    Slow,
    /// They never come up, and no answer comes.
    Stuck,
    /// There is no room for them.
    NoCapacity,
    /// They are refused.
    Refused,
    /// They come up, and nobody is told.
    Unanswered,
    /// They end at once.
    Fatal,
    /// They run, and never reach GitHub.
    Deaf,
}

/// What becomes of the instances of a host that goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Killed,
    Gone,
}

/// How an instance dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    Killed,
    OutOfMemory,
    Failed,
    /// Not only dead: nothing is left of it.
    Removed,
}

/// One thing that happens. `pick` chooses among those that there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Move {
    Nothing,
    Queue {
        set: usize,
        jobs: u32,
        seconds: u32,
        hangs: bool,
    },
    Cancel {
        pick: usize,
    },
    GitHub {
        weather: Weather,
        seconds: u32,
    },
    LoseMessage {
        set: usize,
    },
    RepeatMessage {
        set: usize,
    },
    Shuffle {
        set: usize,
    },
    Truncate {
        set: usize,
    },
    DelayMessages {
        set: usize,
        seconds: u32,
    },
    ZeroStatistics {
        set: usize,
    },
    ExpireToken {
        set: usize,
    },
    EndSession {
        set: usize,
    },
    VanishScaleSet {
        set: usize,
    },
    DropRegistration {
        pick: usize,
    },
    CompleteEarly {
        pick: usize,
    },
    DropSpares {
        seconds: u32,
    },
    HostAway {
        host: usize,
        seconds: u32,
        fate: Fate,
    },
    HostStarts {
        host: usize,
        starts: Starts,
        seconds: u32,
    },
    HostPulls {
        host: usize,
        seconds: u32,
    },
    EmptyListing {
        host: usize,
    },
    HostHangs {
        host: usize,
        seconds: u32,
    },
    Die {
        pick: usize,
        death: Death,
    },
    Cluster {
        weather: Weather,
        seconds: u32,
    },
    HideSecrets {
        seconds: u32,
    },
    Crash {
        seconds: u32,
    },
    Restart {
        seconds: u32,
    },
    Depose {
        seconds: u32,
    },
    Min {
        set: usize,
        to: u32,
    },
    Max {
        set: usize,
        to: u32,
    },
    Template {
        set: usize,
    },
    /// Somebody starts VMs on a Mac by hand, which its list shows or not.
    TakeByHand {
        host: usize,
        slots: u32,
        seen: bool,
        seconds: u32,
    },
    /// A Mac restarts.
    Reboot {
        host: usize,
        seconds: u32,
    },
    /// ECS takes a busy runner's machine away.
    Interrupt {
        pick: usize,
    },
    /// What runs on a host is in no listing for a while.
    Mislay {
        host: usize,
        seconds: u32,
    },
    LeaveOut {
        set: usize,
        host: usize,
    },
    PutBack {
        set: usize,
    },
    Suspend {
        set: usize,
        on: bool,
    },
    Delete {
        set: usize,
    },
}

/// A move, and how long it is after the one before.
#[derive(Clone, Copy, PartialEq)]
pub struct Step {
    pub after: Duration,
    pub what: Move,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after({}, {:?})", self.after.as_millis(), self.what)
    }
}

/// All that happens, and where.
#[derive(Debug, Clone)]
pub struct History {
    pub seed: u64,
    pub setup: Setup,
    pub steps: Vec<Step>,
}

/// The history of a seed, with hosts of the kind that the seed chooses.
pub fn history(seed: u64) -> History {
    let mut at = apart(seed).random_range(0..KINDS.iter().map(|(_, share)| share).sum());
    let chosen = KINDS.iter().find(|(_, share)| {
        let found = at < *share;
        at = at.saturating_sub(*share);
        found
    });
    history_of(seed, chosen.map_or(Kind::Docker, |(kind, _)| *kind))
}

/// The chance of what is not the same for all kinds: what is, does not change when a kind comes or goes.
fn apart(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ 0x6b69_6e64)
}

/// The history of a seed, with hosts of a kind.
pub fn history_of(seed: u64, kind: Kind) -> History {
    let mut history = on_docker(seed);
    let mut rng = apart(seed);
    match kind {
        Kind::Docker => {}
        Kind::Ecs => on_ecs(&mut history, &mut rng),
        Kind::Mac => on_macs(&mut history, &mut rng),
        Kind::Fake => on_fakes(&mut history, &mut rng),
    }
    history.setup.kind = kind;
    history
}

/// Nobody limits what a cluster runs, and a task needs its time.
fn on_ecs(history: &mut History, rng: &mut StdRng) {
    for host in &mut history.setup.hosts {
        *host = HostSetup { slots: None, foreign: 0 };
    }
    for set in &mut history.setup.sets {
        set.start = *pick(rng, &[120, 300]);
    }
    let hosts = history.setup.hosts.len();
    strew(history, rng, |rng| match rng.random_range(0..2) {
        0 => Move::Interrupt { pick: rng.random_range(0..100) },
        _ => Move::Mislay { host: rng.random_range(0..hosts), seconds: *pick(rng, &[20, 120, 240]) },
    });
}

/// macOS limits what a Mac runs to two VMs, and a VM needs its time.
fn on_macs(history: &mut History, rng: &mut StdRng) {
    for host in &mut history.setup.hosts {
        *host = HostSetup { slots: Some(*pick(rng, &[1, 2, 2, 2])), foreign: 0 };
    }
    for set in &mut history.setup.sets {
        set.start = *pick(rng, &[300, 600]);
        set.warm = *pick(rng, &[0, 0, 1]);
    }
    let hosts = history.setup.hosts.len();
    strew(history, rng, |rng| {
        let host = rng.random_range(0..hosts);
        match rng.random_range(0..6) {
            0..3 => Move::TakeByHand {
                host,
                slots: rng.random_range(1..=2),
                seen: rng.random_range(0..2) == 0,
                seconds: *pick(rng, &[30, 200, 600]),
            },
            3..5 => Move::Reboot { host, seconds: *pick(rng, &[20, 60, 240]) },
            _ => Move::HostAway { host, seconds: 1500, fate: *pick(rng, &[Fate::Kept, Fate::Killed]) },
        }
    });
}

/// The fake's hosts have the same number of slots each, or no limit.
fn on_fakes(history: &mut History, rng: &mut StdRng) {
    let slots = *pick(rng, &[Some(2), Some(3), Some(6), None]);
    history.setup.hosts.iter_mut().for_each(|host| host.slots = slots);
}

/// Puts moves among those that there are, at the time of the one before.
fn strew(history: &mut History, rng: &mut StdRng, make: impl Fn(&mut StdRng) -> Move) {
    let often = *pick(rng, &[2, 5, 12]);
    for step in std::mem::take(&mut history.steps) {
        history.steps.push(step);
        if rng.random_range(0..100) < often {
            history.steps.push(Step { after: Duration::ZERO, what: make(rng) });
        }
    }
}

fn on_docker(seed: u64) -> History {
    let mut rng = StdRng::seed_from_u64(seed);
    let setup = setup(&mut rng);
    let count = rng.random_range(60..220);
    // Each history has its own mixture: some are about hosts, some about GitHub, some about nothing but jobs.
    let weights: Vec<u32> =
        MOVES.iter().map(|(weight, _)| weight * *pick(&mut rng, &[0, 1, 1, 2, 4])).collect();
    let mut steps = Vec::new();
    let mut deleted = false;
    for number in 0..count {
        let late = number * 3 > count * 2;
        let after = pause(&mut rng);
        let mut what = one(&mut rng, &setup, &weights);
        if let Move::Delete { .. } = what {
            if !late || deleted {
                what = Move::Nothing;
            }
            deleted |= late;
        }
        steps.push(Step { after, what });
    }
    History { seed, setup, steps }
}

fn pick<'a, T>(rng: &mut StdRng, of: &'a [T]) -> &'a T {
    &of[rng.random_range(0..of.len())]
}

fn pause(rng: &mut StdRng) -> Duration {
    let millis = match rng.random_range(0..100) {
        0..50 => rng.random_range(0..1_000),
        50..85 => rng.random_range(0..6_000),
        85..98 => rng.random_range(0..40_000),
        _ => rng.random_range(0..300_000),
    };
    Duration::from_millis(millis)
}

fn setup(rng: &mut StdRng) -> Setup {
    let hosts: Vec<HostSetup> = (0..rng.random_range(1..=3))
        .map(|_| HostSetup {
            slots: *pick(rng, &[Some(1), Some(2), Some(3), Some(4), Some(6), None]),
            foreign: *pick(rng, &[0, 0, 0, 1]),
        })
        .collect();
    let sets = (0..*pick(rng, &[1, 1, 1, 2])).map(|_| set(rng, hosts.len())).collect();
    let broker = rng.random_range(0..4) > 0;
    Setup { kind: Kind::Docker, hosts, sets, broker }
}

fn set(rng: &mut StdRng, hosts: usize) -> SetSetup {
    let max = rng.random_range(1..=6);
    let cut = rng.random_range(1..=hosts);
    let mut backends =
        vec![BackendSetup { hosts: (0..cut).collect(), max: *pick(rng, &[None, None, Some(2)]) }];
    if cut < hosts {
        backends.push(BackendSetup { hosts: (cut..hosts).collect(), max: None });
    }
    SetSetup {
        min: rng.random_range(0..=max.min(3)),
        max,
        backends,
        start: *pick(rng, &[60, 120, 300]),
        job: *pick(rng, &[600, 1200]),
        idle: *pick(rng, &[0, 0, 0, 300]),
        lifetime: *pick(rng, &[0, 0, 0, 900]),
        delay: *pick(rng, &[0, 10, 60]),
        drain: *pick(rng, &[0, 60, 300, 900]),
        warm: 0,
    }
}

type Make = fn(&mut StdRng, usize, usize) -> Move;

/// How often each kind of move is, and how one is made, for a set and a host.
const MOVES: &[(u32, Make)] = &[
    (2, |_, _, _| Move::Nothing),
    (16, |rng, set, _| Move::Queue {
        set,
        jobs: rng.random_range(1..=4),
        seconds: *pick(rng, &[1, 5, 20, 60, 200]),
        hangs: rng.random_range(0..40) == 0,
    }),
    (3, |rng, _, _| Move::Cancel { pick: rng.random_range(0..100) }),
    (2, |rng, _, _| Move::GitHub {
        weather: *pick(rng, &[Weather::Patchy, Weather::Down]),
        seconds: *pick(rng, &[5, 60, 300]),
    }),
    (2, |_, set, _| Move::LoseMessage { set }),
    (2, |_, set, _| Move::RepeatMessage { set }),
    (2, |_, set, _| Move::Shuffle { set }),
    (1, |_, set, _| Move::Truncate { set }),
    (2, |rng, set, _| Move::DelayMessages { set, seconds: *pick(rng, &[3, 30, 200]) }),
    (2, |_, set, _| Move::ZeroStatistics { set }),
    (1, |_, set, _| Move::ExpireToken { set }),
    (1, |_, set, _| Move::EndSession { set }),
    (1, |_, set, _| Move::VanishScaleSet { set }),
    (1, |rng, _, _| Move::DropRegistration { pick: rng.random_range(0..100) }),
    (1, |rng, _, _| Move::CompleteEarly { pick: rng.random_range(0..100) }),
    (3, |rng, _, host| Move::HostAway {
        host,
        seconds: *pick(rng, &[1, 20, 90, 400]),
        fate: *pick(rng, &[Fate::Kept, Fate::Kept, Fate::Killed, Fate::Gone]),
    }),
    (4, |rng, _, host| Move::HostStarts {
        host,
        starts: *pick(
            rng,
            &[
                Starts::Slow,
                Starts::Stuck,
                Starts::NoCapacity,
                Starts::Refused,
                Starts::Unanswered,
                Starts::Fatal,
                Starts::Deaf,
            ],
        ),
        seconds: *pick(rng, &[5, 30, 120]),
    }),
    (1, |_, _, host| Move::EmptyListing { host }),
    (2, |rng, _, host| Move::HostPulls { host, seconds: *pick(rng, &[60, 300, 1200]) }),
    (1, |rng, _, _| Move::DropSpares { seconds: *pick(rng, &[300, 900]) }),
    (4, |rng, _, _| Move::Die {
        pick: rng.random_range(0..100),
        death: *pick(rng, &[Death::Killed, Death::OutOfMemory, Death::Failed, Death::Removed]),
    }),
    (2, |rng, _, _| Move::Cluster {
        weather: *pick(rng, &[Weather::Patchy, Weather::Down]),
        seconds: *pick(rng, &[2, 20, 120]),
    }),
    (1, |rng, _, _| Move::HideSecrets { seconds: *pick(rng, &[20, 120, 600]) }),
    (3, |rng, _, _| Move::Crash { seconds: *pick(rng, &[0, 1, 10, 60]) }),
    (1, |rng, _, _| Move::Restart { seconds: *pick(rng, &[0, 1, 10]) }),
    (1, |rng, _, _| Move::Depose { seconds: *pick(rng, &[0, 1, 10]) }),
    (2, |rng, set, _| Move::Min { set, to: rng.random_range(0..=3) }),
    (2, |rng, set, _| Move::Max { set, to: rng.random_range(0..=6) }),
    (2, |_, set, _| Move::Template { set }),
    (1, |rng, set, _| Move::Suspend { set, on: rng.random_range(0..2) == 0 }),
    (2, |_, set, _| Move::Delete { set }),
    // Nothing is removed from it, and what was deregistered does not end.
    (2, |rng, _, host| Move::HostHangs { host, seconds: *pick(rng, &[20, 120, 900]) }),
    (2, |_, set, host| Move::LeaveOut { set, host }),
    (2, |_, set, _| Move::PutBack { set }),
];

fn one(rng: &mut StdRng, setup: &Setup, weights: &[u32]) -> Move {
    let set = rng.random_range(0..setup.sets.len());
    let host = rng.random_range(0..setup.hosts.len());
    let total: u32 = weights.iter().sum();
    let mut at = rng.random_range(0..total.max(1));
    for ((_, make), weight) in MOVES.iter().zip(weights) {
        if at < *weight {
            return make(rng, set, host);
        }
        at -= weight;
    }
    Move::Nothing
}
