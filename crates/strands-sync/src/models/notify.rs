//! A notification is got once, however the waits around it end.

use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use super::{model, passed};
use crate::Notify;
use crate::atomic::Relaxed;

#[test]
fn a_notification_is_got_or_kept() {
    model(3, || {
        let notify = Arc::new(Notify::new());
        let waiters = [0, 1].map(|_| {
            let notify = notify.clone();
            thread::spawn(move || usize::from(notify.notified_deadline(passed())))
        });
        notify.notify_one();
        let got: usize = waiters.into_iter().map(|waiter| waiter.join().unwrap()).sum();
        let kept = usize::from(notify.notified_deadline(passed()));
        assert_eq!(got + kept, 1, "the notification was lost or doubled");
        assert!(!notify.notified_deadline(passed()));
    });
}

#[test]
fn a_notification_goes_past_one_that_gives_up() {
    model(3, || {
        let notify = Arc::new(Notify::new());
        let patient = {
            let notify = notify.clone();
            thread::spawn(move || notify.notified())
        };
        let notifier = {
            let notify = notify.clone();
            thread::spawn(move || notify.notify_one())
        };
        if notify.notified_deadline(passed()) {
            notify.notify_one();
        }
        patient.join().unwrap();
        notifier.join().unwrap();
    });
}

/// Nothing is stored for who comes later, yet a listener that looks first and waits then misses nothing.
#[test]
fn a_listener_misses_nothing() {
    model(4, || {
        let shared = Arc::new((AtomicBool::new(false), Notify::new()));
        let notifier = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.0.store(true, Relaxed);
                shared.1.notify_waiters();
            })
        };
        let listener = shared.1.listen();
        if !shared.0.load(Relaxed) {
            listener.wait();
            assert!(shared.0.load(Relaxed), "what came before the notification is seen");
        }
        notifier.join().unwrap();
    });
}

#[test]
fn all_waiters_are_notified_beside_one_that_gives_up() {
    model(3, || {
        let notify = Arc::new(Notify::new());
        let listener = notify.clone();
        let early = notify.listen();
        let other = thread::spawn(move || {
            let _either_way = listener.notified_deadline(passed());
        });
        notify.notify_waiters();
        assert!(early.wait_deadline(passed()));
        other.join().unwrap();
        assert!(!notify.notified_deadline(passed()), "it has left a permit");
    });
}
