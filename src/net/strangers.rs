//! Where peers without a record run: on one thread of their own.
//!
//! A runtime polls its tasks in the order in which they woke. Were all peers on one, a masternode's
//! ping or vote would wait for its turn behind every packet of every stranger. So QUIC, handshakes
//! and streams of strangers have a runtime of one thread: all of them together take at most one
//! processor, and the operating system lets the others through. In a simulation, where another
//! thread would stop virtual time, they run beside the rest.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};
use tokio::task::JoinSet;

use crate::env::Offload;

/// The runtimes of those with a record and of those without.
pub(super) struct Runtimes {
    recorded: Handle,
    strangers: Handle,
    /// What `strangers` points to, unless that is the other one.
    own: Option<Runtime>,
}

impl Runtimes {
    /// Must be called on the runtime that is for those with a record.
    pub(super) fn start(offload: Offload) -> io::Result<Self> {
        let recorded = Handle::current();
        let own = match offload {
            Offload::Inline => None,
            Offload::Threads => {
                let mut one = Builder::new_multi_thread();
                one.worker_threads(1).thread_name("strangers").enable_all();
                Some(one.build()?)
            }
        };
        let strangers = (own.as_ref()).map_or_else(|| recorded.clone(), |own| own.handle().clone());
        Ok(Self {
            recorded,
            strangers,
            own,
        })
    }

    /// What QUIC spawns while the guard lives runs where the peer belongs.
    pub(super) fn enter(&self, recorded: bool) -> EnterGuard<'_> {
        self.of(recorded).enter()
    }

    /// Runs a task where the peer belongs.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        recorded: bool,
        tasks: &mut JoinSet<T>,
        work: impl Future<Output = T> + Send + 'static,
    ) {
        tasks.spawn_on(work, self.of(recorded));
    }

    fn of(&self, recorded: bool) -> &Handle {
        if recorded {
            &self.recorded
        } else {
            &self.strangers
        }
    }
}

impl Drop for Runtimes {
    fn drop(&mut self) {
        // Waiting for the thread is not allowed on another runtime's.
        if let Some(own) = self.own.take() {
            own.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn thread_name() -> Option<String> {
        std::thread::current().name().map(str::to_owned)
    }

    #[tokio::test]
    async fn strangers_that_never_give_their_thread_back_hold_up_nobody_with_a_record() {
        let runtimes = Runtimes::start(Offload::Threads).unwrap();
        let (mut strangers, mut recorded) = (JoinSet::new(), JoinSet::new());
        let (release, held) = mpsc::channel::<()>();
        runtimes.spawn(false, &mut strangers, async move {
            held.recv().unwrap_err();
            thread_name()
        });
        runtimes.spawn(false, &mut strangers, async { thread_name() });
        runtimes.spawn(true, &mut recorded, async { thread_name() });
        let there = recorded.join_next().await.unwrap().unwrap();
        assert_eq!(there, thread_name());
        assert!(strangers.try_join_next().is_none());

        drop(release);
        for name in strangers.join_all().await {
            assert_eq!(name.as_deref(), Some("strangers"));
        }
    }

    #[tokio::test]
    async fn in_a_simulation_all_run_on_one_thread() {
        let runtimes = Runtimes::start(Offload::Inline).unwrap();
        let mut tasks = JoinSet::new();
        runtimes.spawn(false, &mut tasks, async { thread_name() });
        runtimes.spawn(true, &mut tasks, async { thread_name() });
        for name in tasks.join_all().await {
            assert_eq!(name, thread_name());
        }
    }

    #[tokio::test]
    async fn what_quic_spawns_goes_where_the_peer_belongs() {
        let runtimes = Runtimes::start(Offload::Threads).unwrap();
        let spawned = |recorded| {
            let _there = runtimes.enter(recorded);
            tokio::spawn(async { thread_name() })
        };
        let (recorded, stranger) = (spawned(true), spawned(false));
        assert_eq!(recorded.await.unwrap(), thread_name());
        assert_eq!(stranger.await.unwrap().as_deref(), Some("strangers"));
    }
}
