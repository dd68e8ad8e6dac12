//! Tokens: asking all who run below one to stop, whoever and wherever they are.
//!
//! A token is cancelled once, by whoever comes first, and stays so. Its word is set before anybody is
//! told, and who listens is on the list before it looks at the word; both under one lock. So everybody is told once, or sees
//! for itself. Parties that run below it are told by a wake and look at their
//! [frames](crate::frame); children are cancelled; callbacks are called, by who cancels,
//! after the whole tree has been marked and without a lock held.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::about::About;
use crate::atomic::{Acquire, AtomicBool, Release};
use crate::cancel;
use crate::current;
use crate::frame::{self, Until};
use crate::park::{self, Op, Outcome};
use crate::runtime::with_driver;
use crate::select::{Arm, Operation};
use crate::task::{TaskRef, drop_payload};
use crate::wait_queue::{WaitQueue, Waiter};

/// Asks any number of fibers and plain threads to stop what they do below it.
///
/// Whoever holds a clone can [`cancel`](Self::cancel) it, once and for good. Then:
///
/// - what waits inside of [`run`](Self::run) unwinds to there, or will at its next wait;
/// - [children](Self::child) are cancelled, and theirs;
/// - [callbacks](Self::on_cancel) are called, and those who [`wait`](Self::wait) for it go on.
///
/// It does not matter who asks whom: fibers of any runtime and plain threads may do either. A
/// fiber that is spawned inside of `run` is not below the token: it has a stack of its own. Let it
/// run below a clone, or spawn it in a scope, which passes on what ends it.
///
/// ```
/// use strands_sched::CancelToken;
///
/// let token = CancelToken::new();
/// let its = token.clone();
/// let worker = std::thread::spawn(move || {
///     its.run(|| strands_sched::sleep_until(None)) // As long as it takes.
/// });
/// token.cancel_with("the user has left");
/// assert_eq!(worker.join().unwrap().unwrap_err().to_string(), "the user has left");
/// ```
#[derive(Clone)]
pub struct CancelToken {
    inner: Arc<Inner>,
}

/// Why a token was cancelled: the first reason that was given. Cloning is cheap.
///
/// ```
/// use strands_sched::CancelToken;
///
/// let token = CancelToken::new();
/// token.cancel();
/// assert_eq!(token.reason().unwrap().to_string(), "the token was cancelled");
/// ```
#[derive(Clone)]
pub struct CancelReason(Arc<dyn Error + Send + Sync>);

struct Inner {
    cancelled: AtomicBool,
    state: WaitQueue<State>,
    /// With our key among its listeners.
    parent: Option<(CancelToken, u64)>,
}

#[derive(Default)]
struct State {
    reason: Option<CancelReason>,
    next_key: u64,
    /// In the order in which they came. Empty once there is a reason.
    listeners: BTreeMap<u64, Listener>,
}

enum Listener {
    /// Runs below the token: to be woken, so that it looks at its frames.
    Party(TaskRef),
    Child(Weak<Inner>),
    Call(Callback),
}

type Callback = Box<dyn FnOnce(&CancelReason) + Send>;

impl Default for CancelToken {
    fn default() -> CancelToken {
        CancelToken::new()
    }
}

impl CancelToken {
    /// A token without a parent.
    ///
    /// ```
    /// assert!(!strands_sched::CancelToken::new().is_cancelled());
    /// ```
    #[must_use]
    pub fn new() -> CancelToken {
        CancelToken::with_parent(None, State::default())
    }

    fn with_parent(parent: Option<(CancelToken, u64)>, state: State) -> CancelToken {
        let cancelled = AtomicBool::new(state.reason.is_some());
        CancelToken { inner: Arc::new(Inner { cancelled, state: WaitQueue::new(state), parent }) }
    }

    /// A token that is cancelled with this one, for the same reason; and by itself without this one.
    ///
    /// ```
    /// let server = strands_sched::CancelToken::new();
    /// let (first, second) = (server.child(), server.child());
    /// first.cancel();
    /// assert!(first.is_cancelled() && !second.is_cancelled() && !server.is_cancelled());
    /// server.cancel_with("shutdown");
    /// assert_eq!(second.reason().unwrap().to_string(), "shutdown");
    /// ```
    #[must_use]
    pub fn child(&self) -> CancelToken {
        let mut state = self.inner.state.lock();
        if let Some(reason) = state.reason.clone() {
            return CancelToken::with_parent(
                None,
                State { reason: Some(reason), ..State::default() },
            );
        }
        let key = state.key();
        let child = CancelToken::with_parent(Some((self.clone(), key)), State::default());
        state.listeners.insert(key, Listener::Child(Arc::downgrade(&child.inner)));
        child
    }

    /// Cancels it. Says whether this was the first time.
    ///
    /// The first time it returns when its children are cancelled, all have been told, and all callbacks have
    /// returned; it does not wait for those that unwind. After that it returns at once.
    ///
    /// # Panics
    ///
    /// With the first panic of a callback, after all of them have been called.
    ///
    /// ```
    /// let token = strands_sched::CancelToken::new();
    /// assert!(token.cancel());
    /// assert!(!token.cancel());
    /// ```
    pub fn cancel(&self) -> bool {
        self.cancel_with("the token was cancelled")
    }

    /// As [`cancel`](Self::cancel), with a reason: a text, or an error. The first one stays.
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// ```
    /// use std::io;
    ///
    /// let token = strands_sched::CancelToken::new();
    /// assert!(token.cancel_with(io::Error::from(io::ErrorKind::BrokenPipe)));
    /// assert!(!token.cancel_with("too late"));
    /// let reason = token.reason().unwrap();
    /// let error = reason.get_ref().downcast_ref::<io::Error>().unwrap();
    /// assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    /// ```
    pub fn cancel_with(&self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> bool {
        let reason = CancelReason(reason.into().into());
        let (mut is_first, mut callbacks) = (None, Vec::new());
        // Not by recursion: a chain of children may be long.
        let mut tokens = vec![self.clone()];
        while let Some(token) = tokens.pop() {
            let listeners = token.mark(&reason);
            is_first.get_or_insert(listeners.is_some());
            for listener in listeners.into_iter().flat_map(BTreeMap::into_values) {
                match listener {
                    Listener::Party(party) => party.wake(),
                    Listener::Child(child) => {
                        tokens.extend(child.upgrade().map(|inner| CancelToken { inner }));
                    }
                    Listener::Call(callback) => callbacks.push(callback),
                }
            }
        }
        let mut panic = None;
        for callback in callbacks {
            // Whoever cancels may be asked himself, by this very token.
            let call = || cancel::uncancellable(|| callback(&reason));
            if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(call)) {
                match &panic {
                    None => panic = Some(payload),
                    Some(_) => drop_payload(payload),
                }
            }
        }
        match panic {
            Some(payload) => panic::resume_unwind(payload),
            None => is_first == Some(true),
        }
    }

    /// Sets the word, and wakes who waits; those who listen, if it was not cancelled before.
    fn mark(&self, reason: &CancelReason) -> Option<BTreeMap<u64, Listener>> {
        let mut state = self.inner.state.lock();
        if state.reason.is_some() {
            return None;
        }
        state.reason = Some(reason.clone());
        let listeners = mem::take(&mut state.listeners);
        // Before anybody is woken to look at it.
        self.inner.cancelled.store(true, Release);
        state.release_all();
        Some(listeners)
    }

    /// Whether it is cancelled.
    ///
    /// A loop that asks until it is so lets others run, as one that tries a lock does; it does not
    /// unwind from here.
    ///
    /// ```
    /// let token = strands_sched::CancelToken::new();
    /// let its = token.clone();
    /// let counter = std::thread::spawn(move || (0..).take_while(|_| !its.is_cancelled()).count());
    /// token.cancel();
    /// counter.join().unwrap();
    /// ```
    pub fn is_cancelled(&self) -> bool {
        cancel::uncancellable(park::charge);
        self.is_set()
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.inner.cancelled.load(Acquire)
    }

    /// Why it is cancelled, if it is.
    ///
    /// ```
    /// let token = strands_sched::CancelToken::new();
    /// assert!(token.reason().is_none());
    /// token.cancel_with("no more tickets");
    /// assert_eq!(token.reason().unwrap().to_string(), "no more tickets");
    /// ```
    pub fn reason(&self) -> Option<CancelReason> {
        self.inner.state.lock().reason.clone()
    }

    /// Waits until it is cancelled; why it was.
    ///
    /// ```
    /// let token = strands_sched::CancelToken::new();
    /// std::thread::scope(|scope| {
    ///     let waiter = scope.spawn(|| token.wait().to_string());
    ///     token.cancel_with("done");
    ///     assert_eq!(waiter.join().unwrap(), "done");
    /// });
    /// ```
    pub fn wait(&self) -> CancelReason {
        self.wait_until(None).expect("only a deadline ends the wait without a reason")
    }

    /// As [`wait`](Self::wait), for `timeout` at most: then `None`. One too long for the clock is no limit.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let token = strands_sched::CancelToken::new();
    /// assert!(token.wait_timeout(Duration::from_millis(1)).is_none());
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Option<CancelReason> {
        let now = with_driver(|driver| driver.now()).unwrap_or_else(Instant::now);
        self.wait_until(now.checked_add(timeout))
    }

    /// As [`wait`](Self::wait), until `deadline` at most: then `None`.
    ///
    /// ```
    /// use std::time::Instant;
    ///
    /// let token = strands_sched::CancelToken::new();
    /// assert!(token.wait_deadline(Instant::now()).is_none());
    /// ```
    pub fn wait_deadline(&self, deadline: impl Into<Option<Instant>>) -> Option<CancelReason> {
        self.wait_until(deadline.into())
    }

    /// To [wait](Self::wait) until it is cancelled, as one of several operations; see [`select`](crate::select).
    ///
    /// ```
    /// use strands_sched::{CancelToken, Order, Timer, select};
    ///
    /// let token = CancelToken::new();
    /// let cancelled = token.select_cancelled();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| token.cancel_with("shutdown"));
    ///     assert_eq!(select(&[&Timer::at(None), &cancelled], Order::Fair, None), Some(1));
    /// });
    /// assert_eq!(cancelled.take().unwrap().to_string(), "shutdown");
    /// ```
    pub fn select_cancelled(&self) -> TokenOperation<'_> {
        TokenOperation { token: self, waiter: Waiter::new() }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<CancelReason> {
        static WAIT: Op = Op("CancelToken::wait");
        park::charge();
        match self.inner.state.wait(&WAIT, deadline, (), |state| state.reason.clone()) {
            Ok(reason) => Some(reason),
            Err(Outcome::Cancelled) => cancel::unwind(),
            Err(Outcome::Woken | Outcome::TimedOut) => self.reason(),
        }
    }

    /// Runs `f` below this token: once it is cancelled, the first call in `f` that has to wait
    /// unwinds to here.
    ///
    /// A call that has succeeded returns what it has got, and `f` may come to its end though the
    /// token is cancelled: then its value is returned. What asks the fiber to end, or a
    /// token or time limit further outside, is not stopped here.
    ///
    /// # Errors
    ///
    /// Why the token was cancelled. If that was before, `f` is not run.
    ///
    /// # Panics
    ///
    /// With the panic of `f`.
    ///
    /// ```
    /// use strands_sched::{CancelToken, yield_now};
    ///
    /// let token = CancelToken::new();
    /// assert_eq!(token.run(|| 42).unwrap(), 42);
    /// let result = token.run(|| {
    ///     token.cancel_with("enough");
    ///     loop {
    ///         yield_now();
    ///     }
    /// });
    /// assert_eq!(result.map(|()| 0).unwrap_err().to_string(), "enough");
    /// ```
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> Result<T, CancelReason> {
        let party = current::with(TaskRef::to);
        // On the list before anything below can look at the word.
        let _listens = match self.listen(Listener::Party(party)) {
            Ok(key) => Registration { token: self, key },
            Err((_, reason)) => return Err(reason),
        };
        frame::run(Until::Token(self.clone()), f)
            .map_err(|_| self.reason().expect("only a token that is cancelled ends its frame"))
    }

    /// Has `callback` called when it is cancelled: by who cancels it. If it is cancelled already,
    /// here and now. Either way once, unless the handle is dropped before a cancel begins.
    ///
    /// A callback may wait, and holds up who cancels. Nothing cancels it meanwhile, but a
    /// [`timeout_at`](crate::timeout_at) of its own works. It should not own a clone of this token, or the two
    /// keep each other alive.
    ///
    /// # Panics
    ///
    /// If it is called here: with the panic of `callback`.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// let token = strands_sched::CancelToken::new();
    /// let (tells, told) = channel();
    /// let never = tells.clone();
    /// let kept = token.on_cancel(move |reason| tells.send(reason.to_string()).unwrap());
    /// drop(token.on_cancel(move |_| never.send("never".into()).unwrap()));
    /// token.cancel_with("closing time");
    /// assert_eq!(told.iter().collect::<Vec<_>>(), ["closing time"]);
    /// assert!(!kept.deregister(), "it has been called");
    /// ```
    pub fn on_cancel(&self, callback: impl FnOnce(&CancelReason) + Send + 'static) -> OnCancel {
        let key = match self.listen(Listener::Call(Box::new(callback))) {
            Ok(key) => Some(key),
            Err((Listener::Call(callback), reason)) => {
                cancel::uncancellable(|| callback(&reason));
                None
            }
            Err(_) => unreachable!("a callback was put on the list"),
        };
        OnCancel { token: self.clone(), key }
    }

    fn listen(&self, listener: Listener) -> Result<u64, (Listener, CancelReason)> {
        let mut state = self.inner.state.lock();
        if let Some(reason) = &state.reason {
            return Err((listener, reason.clone()));
        }
        let key = state.key();
        state.listeners.insert(key, listener);
        Ok(key)
    }

    /// Says whether the listener was still on the list.
    fn forget(&self, key: u64) -> bool {
        let listener = self.inner.state.lock().listeners.remove(&key);
        listener.is_some() // Dropped here, without the lock: it may have destructors of others.
    }
}

impl State {
    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Not by recursion: a chain of parents, each held by its child alone, may be long.
        let mut parent = self.parent.take();
        while let Some((token, key)) = parent {
            token.forget(key);
            parent = Arc::into_inner(token.inner).and_then(|mut inner| inner.parent.take());
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("reason", &self.reason()).finish_non_exhaustive()
    }
}

impl CancelReason {
    /// The error that was given; a text has become one.
    ///
    /// ```
    /// let token = strands_sched::CancelToken::new();
    /// token.cancel_with(std::fmt::Error);
    /// assert!(token.reason().unwrap().get_ref().is::<std::fmt::Error>());
    /// ```
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl fmt::Debug for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl Error for CancelReason {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// To wait until a token is cancelled, as one of several operations. See [`CancelToken::select_cancelled`].
///
/// ```
/// use strands_sched::{CancelToken, Order, TokenOperation, try_select};
///
/// let token = CancelToken::new();
/// let cancelled: TokenOperation<'_> = token.select_cancelled();
/// assert_eq!(try_select(&[&cancelled], Order::Fair), None);
/// token.cancel();
/// assert_eq!(try_select(&[&cancelled], Order::Fair), Some(0));
/// ```
pub struct TokenOperation<'a> {
    token: &'a CancelToken,
    waiter: Waiter<()>,
}

impl TokenOperation<'_> {
    /// Why the token is cancelled, if it is. It stays so, and may be asked and chosen again.
    ///
    /// ```
    /// assert!(strands_sched::CancelToken::new().select_cancelled().take().is_none());
    /// ```
    pub fn take(&self) -> Option<CancelReason> {
        self.token.reason()
    }
}

// SAFETY: `withdraw` takes the waiter out of the only line it is put in.
unsafe impl Operation for TokenOperation<'_> {
    fn attempt(&self) -> bool {
        self.waiter.assert_idle();
        self.token.is_set()
    }

    unsafe fn enrol(&self, arm: Arm<'_>) -> bool {
        let mut state = self.token.inner.state.lock();
        // SAFETY: `select` borrows us until we are withdrawn.
        state.reason.is_none() && unsafe { state.enrol(&self.waiter, arm, ()) }
    }

    unsafe fn withdraw(&self) {
        self.token.inner.state.withdraw(&self.waiter);
    }

    fn about(&self) -> About {
        About { operation: "CancelToken::wait", object: self.waiter.line(), descriptor: None }
    }
}

/// A callback's place at a token. Dropping it takes the callback out.
///
/// ```
/// use strands_sched::{CancelToken, OnCancel};
///
/// let token = CancelToken::new();
/// let handle: OnCancel = token.on_cancel(|_| unreachable!("it is taken out"));
/// assert!(handle.deregister());
/// token.cancel();
/// ```
#[must_use = "dropping it takes the callback out; `keep` leaves it there"]
pub struct OnCancel {
    token: CancelToken,
    /// None if it was called at once, or is kept.
    key: Option<u64>,
}

impl OnCancel {
    /// Takes the callback out, and drops it here. False if it has been called, or is being called just now.
    ///
    /// ```
    /// let token = strands_sched::CancelToken::new();
    /// token.cancel();
    /// assert!(!token.on_cancel(|_| ()).deregister(), "it was called at once");
    /// ```
    pub fn deregister(mut self) -> bool {
        self.key.take().is_some_and(|key| self.token.forget(key))
    }

    /// Leaves the callback in for as long as the token lives.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// let (tells, told) = channel();
    /// let token = strands_sched::CancelToken::new();
    /// token.on_cancel(move |_| tells.send(()).unwrap()).keep();
    /// token.cancel();
    /// told.recv().unwrap();
    /// ```
    pub fn keep(mut self) {
        self.key = None;
    }
}

impl Drop for OnCancel {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.token.forget(key);
        }
    }
}

impl fmt::Debug for OnCancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnCancel").finish_non_exhaustive()
    }
}

/// A party's place on the list, for the time of a call.
struct Registration<'a> {
    token: &'a CancelToken,
    key: u64,
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.token.forget(self.key);
    }
}
