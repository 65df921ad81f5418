//! Where storage work runs: one thread for writes and two for reads, or in place.
//!
//! Each lane has a queue of [`QUEUE_JOBS`]. When it is full the caller waits for room; nothing is
//! dropped. A job whose caller has gone still runs. Closing lets the queues run empty, then closes
//! the database.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::Database;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::sleep;

use super::StoreThreads;

/// How many jobs wait in a lane before its callers do.
const QUEUE_JOBS: usize = 64;

/// How many threads read.
const READERS: usize = 2;

type Job = Box<dyn FnOnce(&Database) + Send>;

/// Which of the two queues a job goes through.
#[derive(Clone, Copy)]
pub(super) enum Lane {
    Read,
    Write,
}

/// The database has been closed.
#[derive(Debug)]
pub(super) struct Closed;

/// Owns the database and the threads that use it.
pub(super) struct Executor {
    state: Mutex<State>,
    slow: Option<SlowWrites>,
}

/// Writes that take time although they run in place.
struct SlowWrites {
    each: Duration,
    turn: Semaphore,
}

enum State {
    Inline(Arc<Database>),
    Threads(Threads),
    Closed,
}

struct Threads {
    writes: mpsc::Sender<Job>,
    reads: mpsc::Sender<Job>,
    handles: Vec<JoinHandle<()>>,
    /// Yields `None` when all threads have closed their part of the database.
    ended: mpsc::Receiver<()>,
}

enum Route {
    Inline(Arc<Database>),
    Queue(mpsc::Sender<Job>),
}

impl Executor {
    pub(super) fn start(database: Database, threads: StoreThreads) -> std::io::Result<Self> {
        let database = Arc::new(database);
        let state = match threads {
            StoreThreads::Inline | StoreThreads::InlineSlow(_) => State::Inline(database),
            StoreThreads::Own => State::Threads(Threads::start(database)?),
        };
        let slow = match threads {
            StoreThreads::InlineSlow(each) => Some(SlowWrites {
                each,
                turn: Semaphore::new(1),
            }),
            StoreThreads::Inline | StoreThreads::Own => None,
        };
        Ok(Self {
            state: Mutex::new(state),
            slow,
        })
    }

    /// Runs a job in its lane and waits for its result. The job must not panic.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        work: impl FnOnce(&Database) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        match self.route(lane)? {
            Route::Inline(database) => match (&self.slow, lane) {
                (Some(slow), Lane::Write) => {
                    let _turn = slow.turn.acquire().await.map_err(|_| Closed)?;
                    let result = work(&database);
                    // The caller must not keep the database open meanwhile.
                    drop(database);
                    sleep(slow.each).await;
                    Ok(result)
                }
                _ => Ok(work(&database)),
            },
            Route::Queue(queue) => {
                let (answer, result) = oneshot::channel();
                let job: Job = Box::new(move |database| {
                    if answer.send(work(database)).is_err() {
                        tracing::debug!("the caller of a storage job did not wait for its result");
                    }
                });
                queue.send(job).await.map_err(|_| Closed)?;
                result.await.map_err(|_| Closed)
            }
        }
    }

    /// Waits for all queued work, then closes the database. Closing again is no error.
    pub(super) async fn close(&self) {
        match self.take() {
            State::Threads(mut threads) => {
                drop((threads.writes, threads.reads));
                let nothing = threads.ended.recv().await;
                debug_assert_eq!(nothing, None, "threads only drop this sender");
                join(threads.handles);
            }
            State::Inline(database) => close_last(database),
            State::Closed => {}
        }
    }

    fn route(&self, lane: Lane) -> Result<Route, Closed> {
        let state = self.state.lock().expect("no holder of this lock panics");
        match (&*state, lane) {
            (State::Inline(database), _) => Ok(Route::Inline(database.clone())),
            (State::Threads(threads), Lane::Write) => Ok(Route::Queue(threads.writes.clone())),
            (State::Threads(threads), Lane::Read) => Ok(Route::Queue(threads.reads.clone())),
            (State::Closed, _) => Err(Closed),
        }
    }

    fn take(&self) -> State {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        std::mem::replace(&mut state, State::Closed)
    }
}

/// A node closes its store; this is for those who only drop it. It blocks until queued work is done.
impl Drop for Executor {
    fn drop(&mut self) {
        match self.take() {
            State::Threads(threads) => {
                drop((threads.writes, threads.reads));
                join(threads.handles);
            }
            State::Inline(database) => close_last(database),
            State::Closed => {}
        }
    }
}

impl Threads {
    fn start(database: Arc<Database>) -> std::io::Result<Self> {
        let (writes, write_queue) = mpsc::channel(QUEUE_JOBS);
        let (reads, read_queue) = mpsc::channel(QUEUE_JOBS);
        let (alive, ended) = mpsc::channel(1);
        let write_queue = Arc::new(Mutex::new(write_queue));
        let read_queue = Arc::new(Mutex::new(read_queue));
        let lanes = std::iter::once(("store-write", write_queue))
            .chain((0..READERS).map(|_| ("store-read", read_queue.clone())));
        let mut handles = Vec::with_capacity(1 + READERS);
        for (name, queue) in lanes {
            let (database, alive) = (database.clone(), alive.clone());
            let body = move || serve(database, &queue, alive);
            handles.push(std::thread::Builder::new().name(name.into()).spawn(body)?);
        }
        Ok(Self {
            writes,
            reads,
            handles,
            ended,
        })
    }
}

/// A thread's life: jobs until all senders are gone.
fn serve(database: Arc<Database>, queue: &Mutex<mpsc::Receiver<Job>>, alive: mpsc::Sender<()>) {
    loop {
        let next = queue
            .lock()
            .expect("no holder of this lock panics")
            .blocking_recv();
        let Some(job) = next else { break };
        job(&database);
    }
    close_last(database);
    drop(alive);
}

/// Closes the database if this was its last user.
fn close_last(database: Arc<Database>) {
    let Some(database) = Arc::into_inner(database) else {
        return;
    };
    // Nothing is lost: every commit is durable by itself; the next open repairs the file.
    match catch_unwind(AssertUnwindSafe(|| database.close())) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(reason = %error, "the database did not close cleanly");
        }
        // On a file that was altered behind its back.
        Err(_) => tracing::warn!("the database could not be closed: it is damaged"),
    }
}

fn join(handles: Vec<JoinHandle<()>>) {
    for handle in handles {
        // The last handle to a store may be dropped by a job on one of these threads.
        if handle.thread().id() != std::thread::current().id() && handle.join().is_err() {
            tracing::error!("a storage thread ended by a panic");
        }
    }
}
