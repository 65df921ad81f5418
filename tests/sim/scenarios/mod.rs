//! The stories. Each says what happens and what must be true; the invariants of `check` are held
//! throughout every one of them.

#[cfg(test)]
use std::io::Write;

/// One story, for a campaign that runs all of them with many seeds.
#[derive(Clone, Copy)]
#[allow(
    dead_code,
    reason = "the suite has a test of each; a campaign reads these"
)]
pub struct Scenario {
    /// As the test is called.
    pub name: &'static str,
    pub run: fn(u64),
}

/// Makes a test of each of a file's stories, and lists them.
macro_rules! scenarios {
    ($($story:ident),+ $(,)?) => {
        #[allow(dead_code, reason = "the suite has a test of each; a campaign reads these")]
        pub const ALL: &[$crate::scenarios::Scenario] = &[$($crate::scenarios::Scenario {
            name: concat!(module_path!(), "::suite::", stringify!($story)),
            run: $story,
        }),+];

        #[cfg(test)]
        mod suite {
            $(
                #[test]
                fn $story() {
                    $crate::scenarios::timed(super::$story);
                }
            )+
        }
    };
}

/// The largest stories have their full size in a release build of the suite, and a smaller one in
/// the dev profile and in campaigns, which run each of them many times.
const fn sized(full: u32, small: u32) -> u32 {
    if crate::FULL_SIZES { full } else { small }
}

/// Runs a story of the suite and says how long that took here, which no assertion may depend on.
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "the suite reports its own wall times"
)]
fn timed(story: fn(u64)) {
    let began = std::time::Instant::now();
    story(crate::run::seed());
    let name = std::thread::current();
    let name = name.name().unwrap_or_default().to_owned();
    let line = format!("{:>7.1} s  {name}\n", began.elapsed().as_secs_f64());
    // Not by a macro, whose output the test harness swallows.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

mod behind;
mod burst;
mod byzantine;
mod clocks;
mod crashes;
mod disks;
mod genesis;
mod keys;
mod partition;
mod quiet;
mod random;
mod reach;
mod restart;
mod start;
mod trace;
mod uplinks;

/// Every story.
#[allow(dead_code, reason = "for a campaign")]
pub fn all() -> Vec<Scenario> {
    let files = [
        behind::ALL,
        burst::ALL,
        clocks::ALL,
        crashes::ALL,
        crashes::MATRIX,
        disks::ALL,
        genesis::ALL,
        keys::ALL,
        partition::ALL,
        quiet::ALL,
        random::ALL,
        reach::ALL,
        restart::ALL,
        start::ALL,
        trace::ALL,
        uplinks::ALL,
    ];
    [files.concat(), byzantine::FILES.concat()].concat()
}
