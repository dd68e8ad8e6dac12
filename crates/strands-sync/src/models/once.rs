//! What is done once is done by one, and seen by all.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::model;
use crate::Once;

struct Guarded {
    once: Once,
    value: UnsafeCell<usize>,
}

impl Guarded {
    fn call(&self) {
        // SAFETY: one at a time, and nobody reads before it is done; loom checks it.
        self.once.call_once(|| self.value.with_mut(|value| unsafe { *value += 1 }));
        self.is_done();
    }

    fn is_done(&self) {
        // SAFETY: it is done; loom checks it.
        assert_eq!(self.value.with(|value| unsafe { *value }), 1);
    }
}

fn beside(guarded: &Arc<Guarded>, act: fn(&Guarded)) -> thread::JoinHandle<()> {
    let guarded = guarded.clone();
    thread::spawn(move || act(&guarded))
}

#[test]
fn once_is_called_by_one() {
    model(3, || {
        let guarded = Arc::new(Guarded { once: Once::new(), value: UnsafeCell::new(0) });
        let others = [0, 1].map(|_| beside(&guarded, Guarded::call));
        guarded.call();
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn once_is_waited_for() {
    model(3, || {
        let guarded = Arc::new(Guarded { once: Once::new(), value: UnsafeCell::new(0) });
        let waiter = beside(&guarded, |guarded| {
            guarded.once.wait();
            guarded.is_done();
        });
        let looks = beside(&guarded, |guarded| {
            if guarded.once.is_completed() {
                guarded.is_done();
            }
        });
        guarded.call();
        waiter.join().unwrap();
        looks.join().unwrap();
    });
}
