//! The stories. Each says what happens and what must be true; the invariants of `check` are held
//! throughout every one of them.

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
                    super::$story($crate::run::seed());
                }
            )+
        }
    };
}

mod clocks;
mod crashes;
mod genesis;
mod partition;
mod quiet;
mod random;
mod reach;
mod restart;
mod trace;

/// Every story.
#[allow(dead_code, reason = "for a campaign")]
pub fn all() -> Vec<Scenario> {
    let files = [
        clocks::ALL,
        crashes::ALL,
        crashes::MATRIX,
        genesis::ALL,
        partition::ALL,
        quiet::ALL,
        random::ALL,
        reach::ALL,
        restart::ALL,
    ];
    files.concat()
}
