//! The rows: which link, which load, who is measured and for how long.

use std::time::Duration;

use crate::REPETITIONS;
use crate::emulator::Shape;
use crate::measure::{Design, Setting, Times};
use crate::place::Joined;
use crate::session::{Load, Plan};

/// One row to be measured.
pub struct Case {
    /// How the row is called.
    pub name: &'static str,
    /// The link and what flows.
    pub setting: Setting,
    /// Who.
    pub designs: Vec<Design>,
    /// How many runs of each.
    pub repetitions: usize,
    /// How many of them at the same time, each over a link of its own.
    pub at_once: usize,
    /// Which targets it speaks to.
    pub kind: Kind,
}

/// Which targets a row speaks to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The reference link.
    Reference,
    /// None.
    Further,
    /// Loopback.
    Loopback,
}

const REFERENCE: Shape = Shape {
    mbit: 20.0,
    rtt: Duration::from_millis(40),
    queue_packets: 100,
    loss: 0.0,
};
const ASK_EVERY: Duration = Duration::from_millis(20);
const ONE_WAY: Plan = Plan {
    load: Load::OneWay,
    ask_every: ASK_EVERY,
};

/// The rows; only the first, in less than a minute, when it must be quick.
pub fn cases(quick: bool, joined: Joined) -> Vec<Case> {
    let all: Vec<Design> = Design::ALL
        .into_iter()
        .filter(|one| one.runs(joined))
        .collect();
    let few = all.iter().copied().filter(|one| match one {
        Design::TcpFrames946Kb | Design::QuicDefaults => false,
        Design::Timed | Design::TcpFrames64Kib | Design::Yamux | Design::QuicPriority => true,
    });
    let few: Vec<Design> = few.collect();
    let times = if quick { QUICK } else { FULL };
    let case = |name, shape, plan, designs: &[Design]| Case {
        name,
        setting: Setting {
            joined,
            shape,
            plan,
            times,
        },
        designs: designs.to_vec(),
        repetitions: REPETITIONS,
        at_once: REPETITIONS,
        kind: Kind::Further,
    };
    let reference = Case {
        kind: Kind::Reference,
        ..case(
            "20 Mbit/s, 40 ms, queue of 100, one way",
            REFERENCE,
            ONE_WAY,
            &all,
        )
    };
    if quick {
        return vec![reference];
    }
    let both = Plan {
        load: Load::BothWays,
        ..ONE_WAY
    };
    // On a tenth of the link, requests shall not take ten times the share.
    let seldom = Plan {
        ask_every: ASK_EVERY * 5,
        ..ONE_WAY
    };
    let slow = Shape {
        mbit: 2.0,
        ..REFERENCE
    };
    let fast = Shape {
        mbit: 100.0,
        ..REFERENCE
    };
    let mut loopback = case(
        "loopback",
        REFERENCE,
        ONE_WAY,
        &[Design::Timed, Design::QuicPriority],
    );
    loopback.kind = Kind::Loopback;
    loopback.repetitions = LOOPBACK_REPETITIONS;
    loopback.at_once = 1;
    loopback.setting.times = SHORT;
    loopback.setting.joined = Joined::Loopback;
    vec![
        reference,
        case(
            "20 Mbit/s, 40 ms, queue of 100, both ways",
            REFERENCE,
            both,
            &few,
        ),
        case("2 Mbit/s, 40 ms, queue of 100, one way", slow, seldom, &few),
        Case {
            at_once: 1,
            ..case(
                "100 Mbit/s, 40 ms, queue of 100, one way",
                fast,
                ONE_WAY,
                &few,
            )
        },
        loopback,
    ]
}

/// On loopback all depends on the processors, whose speed may change within seconds where machines
/// share them: many short runs of each design in turn meet the same of it.
const LOOPBACK_REPETITIONS: usize = 7;
const SHORT: Times = Times {
    idle: Duration::from_millis(500),
    settle: Duration::from_secs(1),
    window: Duration::from_millis(2_500),
    patience: Duration::from_secs(1),
};
const QUICK: Times = Times {
    idle: Duration::from_secs(1),
    settle: Duration::from_secs(2),
    window: Duration::from_millis(4_500),
    patience: Duration::from_secs(1),
};
const FULL: Times = Times {
    idle: Duration::from_secs(1),
    settle: Duration::from_secs(3),
    window: Duration::from_secs(7),
    patience: Duration::from_secs(2),
};
