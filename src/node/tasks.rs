//! The node's tasks: each has a name, its own cancellation, and an owner that waits for it.

use std::convert::Infallible;
use std::fmt::Display;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::NodeError;

/// Running tasks, in the order in which they were started. Dropping them ends them all.
#[derive(Default)]
pub(super) struct Tasks {
    tasks: Vec<Task>,
}

struct Task {
    name: &'static str,
    cancel: CancellationToken,
    handle: JoinHandle<Result<(), String>>,
}

impl Tasks {
    /// Starts a part of the node: `start` gives its handle and its work, which must run until the token is cancelled.
    pub(super) fn part<H, W, E: Display>(
        &mut self,
        name: &'static str,
        start: impl FnOnce(CancellationToken) -> (H, W),
    ) -> H
    where
        W: Future<Output = Result<(), E>> + Send + 'static,
    {
        let Ok(handle) = self.try_part(name, |cancel| Ok::<_, Infallible>(start(cancel)));
        handle
    }

    /// Starts a part of the node that may not be able to.
    pub(super) fn try_part<H, W, E: Display, F>(
        &mut self,
        name: &'static str,
        start: impl FnOnce(CancellationToken) -> Result<(H, W), F>,
    ) -> Result<H, F>
    where
        W: Future<Output = Result<(), E>> + Send + 'static,
    {
        let cancel = CancellationToken::new();
        let (handle, work) = start(cancel.clone())?;
        let work = async move { work.await.map_err(|error| error.to_string()) };
        self.tasks.push(Task {
            name,
            cancel,
            handle: tokio::spawn(work),
        });
        Ok(handle)
    }

    /// Starts work without a handle.
    pub(super) fn add<W, E: Display>(
        &mut self,
        name: &'static str,
        start: impl FnOnce(CancellationToken) -> W,
    ) where
        W: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.part(name, |cancel| ((), start(cancel)));
    }

    /// Waits until a task ends that was not asked to, and says why. Cancel-safe.
    pub(super) async fn first_end(&mut self) -> NodeError {
        poll_fn(|context| self.poll_first_end(context)).await
    }

    fn poll_first_end(&mut self, context: &mut Context<'_>) -> Poll<NodeError> {
        for at in 0..self.tasks.len() {
            if let Poll::Ready(result) = Pin::new(&mut self.tasks[at].handle).poll(context) {
                let name = self.tasks.remove(at).name;
                return Poll::Ready(match outcome(name, result) {
                    Err(error) => error,
                    Ok(()) => NodeError::TaskEnded { task: name },
                });
            }
        }
        Poll::Pending
    }

    /// Cancels and awaits the tasks one after the other, the newest first, within `limit`. A task
    /// may use half of the time that is left, so that a stuck one leaves some to the others; then
    /// it is aborted. Returns the first failure.
    pub(super) async fn stop_newest_first(mut self, limit: Duration) -> Result<(), NodeError> {
        let end = Instant::now() + limit;
        let mut first_failure = Ok(());
        while let Some(mut task) = self.tasks.pop() {
            task.cancel.cancel();
            let left = end.saturating_duration_since(Instant::now());
            let deadline = if self.tasks.is_empty() {
                end
            } else {
                Instant::now() + left / 2
            };
            let result = match timeout_at(deadline, &mut task.handle).await {
                Ok(result) => outcome(task.name, result),
                Err(_) => {
                    task.handle.abort();
                    Err(NodeError::StopTimeout { task: task.name })
                }
            };
            match &result {
                Ok(()) => tracing::debug!(task = task.name, "stopped"),
                Err(error) => {
                    tracing::warn!(task = task.name, reason = %error, "not stopped cleanly");
                }
            }
            first_failure = first_failure.and(result);
        }
        first_failure
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.cancel.cancel();
            task.handle.abort();
        }
    }
}

fn outcome(
    task: &'static str,
    result: Result<Result<(), String>, JoinError>,
) -> Result<(), NodeError> {
    let failed = |reason| NodeError::TaskFailed { task, reason };
    match result {
        Ok(result) => result.map_err(failed),
        Err(error) => Err(failed(format!("a defect in the program: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    async fn until(cancel: CancellationToken) -> Result<(), String> {
        cancel.cancelled().await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_task_to_end_gives_the_reason() {
        let mut tasks = Tasks::default();
        tasks.add("the network", until);
        tasks.add("the store", |_| async { Err::<(), _>("disk full") });
        let reason = tasks.first_end().await.to_string();
        assert_eq!(reason, "the store failed: disk full");
        assert!(
            tasks
                .stop_newest_first(Duration::from_secs(5))
                .await
                .is_ok()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_unasked_or_panics_is_named() {
        let mut tasks = Tasks::default();
        tasks.add("sync", |_| async { Ok::<_, String>(()) });
        let reason = tasks.first_end().await;
        assert!(matches!(reason, NodeError::TaskEnded { task: "sync" }));
        let panicking = async { panic!("index out of range") };
        tasks.add::<_, String>("consensus", |_| panicking);
        let reason = tasks.first_end().await.to_string();
        assert!(reason.contains("consensus failed") && reason.contains("index out of range"));
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_stop_newest_first_and_a_stuck_one_does_not_hold_the_rest() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Tasks::default();
        for name in ["first", "second"] {
            let order = order.clone();
            tasks.add(name, |cancel| async move {
                let result = until(cancel).await;
                order.lock().unwrap().push(name);
                result
            });
        }
        let stuck = std::future::pending::<Result<(), String>>();
        tasks.add("stuck", |_| stuck);
        let error = tasks.stop_newest_first(Duration::from_secs(5)).await;
        assert!(matches!(
            error,
            Err(NodeError::StopTimeout { task: "stuck" })
        ));
        assert_eq!(*order.lock().unwrap(), ["second", "first"]);
    }
}
