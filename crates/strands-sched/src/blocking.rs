//! The blocking pool: OS threads that run closures which block in the kernel, so that no worker does.
//!
//! Promised: a job that [`Pool::submit`] accepts runs, whatever happens after: its closure may borrow from
//! a fiber that waits for it. Jobs are started in the order of submission, at most `max_threads` at a time.
//!
//! The invariant, true whenever the lock is free: if the queue is not empty, there is a thread that is not
//! idle. A thread becomes idle or ends only in the same critical section in which it saw the queue empty;
//! a submitter that adds a job takes an idle thread off the list, or else starts one, or else knows that
//! all threads there are (at least one) are busy and will look again.
//!
//! The thread that went idle last is woken first. Its caches are warm, and what a burst left over is never
//! woken and ends after `keep_alive`. One condvar for all would wake them in turn, and a job now and then
//! would keep hundreds of threads for ever. So each thread has a condvar of its own.
//!
//! Turned down: starting threads outside the lock. It would shorten the section by a `clone` at a time when
//! the pool grows, and need an answer for the jobs of others that were queued for a thread that never came.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::fork;
use crate::runtime::no_thread;
use crate::task::drop_payload;

/// A closure for a pool thread. It should not unwind; if it does, the pool is none the worse.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Run by each pool thread when it starts or ends.
pub(crate) type Hook = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct PoolConfig {
    /// With 0, every job comes back from `submit`.
    pub(crate) max_threads: usize,
    /// An idle thread ends after this long without work.
    pub(crate) keep_alive: Duration,
    /// Threads are called this, a hyphen, and a number.
    pub(crate) thread_name: String,
    pub(crate) on_start: Option<Hook>,
    pub(crate) on_stop: Option<Hook>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_threads: 512,
            keep_alive: Duration::from_secs(10),
            thread_name: "strands-blocking".to_owned(),
            on_start: None,
            on_stop: None,
        }
    }
}

/// A bounded pool of OS threads, started when they are needed. Dropping it is a shutdown without waiting.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Starts no thread.
    pub(crate) fn new(config: PoolConfig) -> Self {
        Self::with_start(config, |builder, main| Ok(builder.spawn(main)?.thread().id()))
    }

    /// Runs `job` on a pool thread, after those submitted before.
    ///
    /// # Errors
    /// Gives the job back if the pool is shut down, or has no thread and cannot start one (the system's
    /// limit is reached); the caller then runs it in place.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Job> {
        let mut state = self.shared.lock();
        if state.shut_down {
            return Err(job);
        }
        state.queue.push_back(job);
        if let Some(idle) = state.idle.pop() {
            drop(state);
            idle.notify_one();
            return Ok(());
        }
        if state.threads.len() < self.shared.config.max_threads {
            match self.start_thread(&mut state) {
                Ok(()) => return Ok(()),
                Err(error) => state.last_refusal = Some(error),
            }
        }
        if state.threads.is_empty() {
            // The queue was empty before, or the invariant would not have held: this is our job.
            return Err(state.queue.pop_back().expect("pushed above"));
        }
        Ok(())
    }

    /// Refuses new jobs and waits until those accepted have run and all threads have ended, or until
    /// `deadline` (`None`: without limit). Gives the number of threads still busy, 0 only if no accepted job
    /// is left; they go on until the queue is empty. A pool thread must not wait here without a deadline.
    pub(crate) fn shutdown(&self, deadline: Option<Instant>) -> usize {
        let mut state = self.shared.lock();
        state.refuse_jobs();
        while !state.threads.is_empty() {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                break;
            }
            state = wait(&self.shared.all_ended, state, left);
        }
        // Idle threads are only on their way out.
        state.threads.len() - state.idle.len()
    }

    /// OS threads of the pool, busy or idle.
    pub(crate) fn threads(&self) -> usize {
        self.shared.lock().threads.len()
    }

    /// Whether `thread` is one of the pool's.
    pub(crate) fn has_thread(&self, thread: ThreadId) -> bool {
        self.shared.lock().threads.contains(&thread)
    }

    /// Jobs that no thread has taken yet.
    pub(crate) fn queued(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Whether there is work.
    pub(crate) fn is_busy(&self) -> bool {
        let state = self.shared.lock();
        !state.queue.is_empty() || state.threads.len() > state.idle.len()
    }

    /// Threads without work.
    pub(crate) fn idle(&self) -> usize {
        self.shared.lock().idle.len()
    }

    /// Why the pool did not grow when it was to grow last.
    pub(crate) fn last_refusal(&self) -> Option<String> {
        let state = self.shared.lock();
        let name = format!("{}-{}", self.shared.config.thread_name, state.started);
        state.last_refusal.as_ref().map(|error| no_thread(&name, error).to_string())
    }

    /// `start` is how an OS thread is started: tests hand in one that fails.
    fn with_start(config: PoolConfig, start: StartThread) -> Self {
        let shared = Shared { config, start, state: Mutex::default(), all_ended: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    fn start_thread(&self, state: &mut State) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let name = format!("{}-{}", shared.config.thread_name, state.started);
        let builder = thread::Builder::new().name(name);
        let id = (self.shared.start)(builder, Box::new(move || shared.thread_main()))?;
        state.started += 1;
        state.threads.push(id);
        state.last_refusal = None;
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().refuse_jobs();
    }
}

type StartThread = fn(thread::Builder, Box<dyn FnOnce() + Send>) -> io::Result<ThreadId>;

struct Shared {
    config: PoolConfig,
    start: StartThread,
    state: Mutex<State>,
    /// Notified when the last thread ends.
    all_ended: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    /// Started and not ended.
    threads: Vec<ThreadId>,
    /// Of these, the ones without work, the one idle for longest first. To take one off is to promise it a
    /// look at the queue: wake it.
    idle: Vec<Arc<Condvar>>,
    /// Threads started since the pool was made: the next one's number.
    started: usize,
    /// What the system said if the last thread that was wanted could not be started.
    last_refusal: Option<io::Error>,
    shut_down: bool,
}

type Locked<'a> = MutexGuard<'a, State>;

impl Shared {
    fn thread_main(&self) {
        let me = Arc::new(Condvar::new());
        loop {
            run_hook(&self.config.on_start);
            self.run_jobs(&me);
            run_hook(&self.config.on_stop);

            let mut state = self.lock();
            // A job may have come while the hook ran. If `max_threads` is reached, it counts on this thread.
            if !state.queue.is_empty() {
                continue;
            }
            let my_id = thread::current().id();
            state.threads.retain(|&id| id != my_id);
            if state.threads.is_empty() {
                self.all_ended.notify_all();
            }
            return;
        }
    }

    /// Returns when the thread should end.
    fn run_jobs(&self, me: &Arc<Condvar>) {
        let mut state = self.lock();
        loop {
            while let Some(job) = state.queue.pop_front() {
                drop(state);
                run_job(job);
                state = self.lock();
            }
            match self.wait_for_job(state, me) {
                Some(woken) => state = woken,
                None => return,
            }
        }
    }

    /// Idles. `None` after `keep_alive` or when the pool is shut down.
    fn wait_for_job<'a>(&'a self, mut state: Locked<'a>, me: &Arc<Condvar>) -> Option<Locked<'a>> {
        if state.shut_down {
            return None;
        }
        // A time too far to be represented is no limit.
        let end_at = Instant::now().checked_add(self.config.keep_alive);
        state.idle.push(Arc::clone(me));
        loop {
            let left = end_at.map(|at| at.saturating_duration_since(Instant::now()));
            state = wait(me, state, left);
            // Off the list, whatever the clock says: a submitter counts on this thread.
            let place = state.idle.iter().position(|idle| Arc::ptr_eq(idle, me));
            let Some(place) = place else {
                return Some(state);
            };
            let expired = end_at.is_some_and(|at| at <= Instant::now());
            if expired || state.shut_down {
                state.idle.remove(place);
                return None;
            }
        }
    }

    fn lock(&self) -> Locked<'_> {
        // Nothing that panics runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn refuse_jobs(&mut self) {
        self.shut_down = true;
        for idle in &self.idle {
            idle.notify_one();
        }
    }
}

fn run_job(job: Job) {
    let result = catch_unwind(AssertUnwindSafe(job));
    if fork::in_forked_child() {
        fork::end_child(result.is_err());
    }
    if let Err(payload) = result {
        drop_payload(payload);
    }
}

/// Runs a hook of the user's; a panic in it is reported by the panic hook and goes no further.
pub(crate) fn run_hook(hook: &Option<Hook>) {
    if let Some(hook) = hook.clone() {
        run_job(Box::new(move || hook()));
    }
}

fn wait<'a>(condvar: &Condvar, state: Locked<'a>, left: Option<Duration>) -> Locked<'a> {
    match left {
        None => condvar.wait(state).unwrap_or_else(PoisonError::into_inner),
        Some(left) => {
            let waited = condvar.wait_timeout(state, left);
            waited.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}

#[cfg(test)]
mod tests;
