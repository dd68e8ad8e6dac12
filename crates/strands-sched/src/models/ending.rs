//! Tokens and time limits: who runs below one is told, and a wait that it ends leaves nothing behind.

use std::sync::Arc as StdArc;
use std::sync::atomic::AtomicUsize as StdAtomicUsize;

use loom::sync::Arc;
use loom::thread;

use super::{OP, all, bounded, passed};
use crate::atomic::SeqCst;
use crate::cancel::timeout_at;
use crate::park::{self, Outcome};
use crate::token::CancelToken;
use crate::wait_queue::WaitQueue;

fn cancel_elsewhere(token: &CancelToken) -> thread::JoinHandle<()> {
    let token = token.clone();
    thread::spawn(move || assert!(token.cancel()))
}

/// Waits for what never comes, so a cancel that is lost shows as a deadlock.
#[test]
fn a_token_ends_a_wait() {
    all(|| {
        let token = CancelToken::new();
        let canceller = cancel_elsewhere(&token);
        // The outcome, of which an operation would unwind.
        if let Ok(outcome) = token.run(|| park::wait_until(&OP, 0, None, || false)) {
            assert_eq!(outcome, Outcome::Cancelled);
        }
        canceller.join().unwrap();
    });
}

#[test]
fn a_child_is_cancelled_whenever_it_is_made() {
    all(|| {
        let token = CancelToken::new();
        let canceller = cancel_elsewhere(&token);
        let child = token.child();
        canceller.join().unwrap();
        assert!(child.is_set() && child.reason().is_some());
    });
}

#[test]
fn a_callback_is_called_once_or_taken_out() {
    all(|| {
        let token = CancelToken::new();
        let canceller = cancel_elsewhere(&token);
        let count = || {
            let calls = StdArc::new(StdAtomicUsize::new(0));
            let its = calls.clone();
            let registered = token.on_cancel(move |_| {
                its.fetch_add(1, SeqCst);
            });
            (registered, calls)
        };
        let (kept, kept_calls) = count();
        let (registered, calls) = count();
        kept.keep();
        let taken_out = registered.deregister();
        canceller.join().unwrap();
        assert_eq!(kept_calls.load(SeqCst), 1);
        assert_eq!(calls.load(SeqCst), usize::from(!taken_out));
    });
}

/// Permits, of which one is released while `acquire` may end by something else.
#[derive(Default)]
struct Permits(WaitQueue<u32>);

impl Permits {
    fn acquire(&self) -> Outcome {
        let attempt = |permits: &mut u32| permits.checked_sub(1).map(|left| *permits = left);
        self.0.wait(&OP, None, (), attempt).map_or_else(|outcome| outcome, |()| Outcome::Woken)
    }

    fn release(&self) {
        let mut permits = self.0.lock();
        let chosen = permits.choose_first(|()| {});
        if chosen.is_none() {
            *permits += 1;
        }
        drop(permits);
        drop(chosen);
    }

    /// There is one, unless it was acquired; and nobody is in line.
    fn check(&self, acquired: bool) {
        let permits = self.0.lock();
        assert_eq!(*permits, u32::from(!acquired), "a permit was lost or doubled");
        assert!(permits.is_empty(), "somebody is left in line");
    }
}

fn release_elsewhere(permits: &Arc<Permits>) -> thread::JoinHandle<()> {
    let permits = permits.clone();
    thread::spawn(move || permits.release())
}

#[test]
fn a_token_and_a_permit_come_at_once() {
    bounded(3, || {
        let (token, permits) = (CancelToken::new(), Arc::new(Permits::default()));
        let (canceller, releaser) = (cancel_elsewhere(&token), release_elsewhere(&permits));
        let outcome = token.run(|| permits.acquire()).unwrap_or(Outcome::Cancelled);
        canceller.join().unwrap();
        releaser.join().unwrap();
        permits.check(outcome == Outcome::Woken);
    });
}

#[test]
fn a_time_limit_and_a_permit_come_at_once() {
    all(|| {
        let permits = Arc::new(Permits::default());
        let releaser = release_elsewhere(&permits);
        let outcome = timeout_at(passed().unwrap(), || permits.acquire()).unwrap();
        assert_ne!(outcome, Outcome::TimedOut, "it has no deadline of its own");
        releaser.join().unwrap();
        permits.check(outcome == Outcome::Woken);
    });
}

#[test]
fn a_time_limit_ends_the_wait_of_a_thread() {
    all(|| {
        let permits = Permits::default();
        let outcome = timeout_at(passed().unwrap(), || permits.acquire()).unwrap();
        assert_eq!(outcome, Outcome::Cancelled, "nobody releases one");
        assert!(permits.0.lock().is_empty(), "somebody is left in line");
    });
}
