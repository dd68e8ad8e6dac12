//! The wait queue's line: everybody in it is released in one step, also who gives up meanwhile.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{OP, bounded, passed};
use crate::park::Outcome;
use crate::wait_queue::WaitQueue;

/// What is opened once; the line's lock guards the flag, the flag guards the cell.
struct Gate {
    line: WaitQueue<bool>,
    cell: UnsafeCell<u32>,
}

impl Gate {
    fn new() -> Arc<Gate> {
        Arc::new(Gate { line: WaitQueue::new(false), cell: UnsafeCell::new(0) })
    }

    /// Whether it was woken in line; it may also find the gate open, or give up.
    fn pass(&self, deadline: Option<std::time::Instant>) -> bool {
        let result = self.line.wait(&OP, deadline, (), |open| open.then_some(()));
        if result.is_ok() || result == Err(Outcome::Woken) {
            // SAFETY: the gate is open, so nobody writes; loom checks it.
            assert_eq!(self.cell.with(|cell| unsafe { *cell }), 7);
        }
        result == Err(Outcome::Woken)
    }

    fn open(&self) -> usize {
        // SAFETY: nobody reads before the gate is open; loom checks it.
        self.cell.with_mut(|cell| unsafe { *cell = 7 });
        let mut line = self.line.lock();
        *line = true;
        line.release_all()
    }
}

fn beside(gate: &Arc<Gate>, pass: fn(&Gate) -> bool) -> thread::JoinHandle<bool> {
    let gate = gate.clone();
    thread::spawn(move || pass(&gate))
}

#[test]
fn all_in_line_are_released() {
    bounded(2, || {
        let gate = Gate::new();
        let others = [0, 1].map(|_| beside(&gate, |gate| gate.pass(None)));
        let released = gate.open();
        let woken: usize = others.into_iter().map(|other| usize::from(other.join().unwrap())).sum();
        assert_eq!(released, woken);
        assert!(gate.line.lock().is_empty(), "somebody is left in line");
    });
}

/// Who gives up may stand before, behind or between those who are released, or hang on the anchor alone.
#[test]
fn a_release_races_one_that_gives_up() {
    bounded(3, || {
        let gate = Gate::new();
        let patient = beside(&gate, |gate| gate.pass(None));
        let hasty = beside(&gate, |gate| gate.pass(passed()));
        let released = gate.open();
        let woken = usize::from(patient.join().unwrap()) + usize::from(hasty.join().unwrap());
        assert_eq!(released, woken, "they disagree on who was woken");
        assert!(gate.line.lock().is_empty(), "somebody is left in line");
    });
}

/// Who gets in line while others are being released is not one of them, and is not lost.
#[test]
fn who_comes_later_waits_for_the_next() {
    bounded(3, || {
        let line: Arc<WaitQueue<()>> = Arc::new(WaitQueue::new(()));
        let waiters = [0, 1].map(|_| {
            let line = line.clone();
            thread::spawn(move || line.wait(&OP, None, (), |()| None::<()>))
        });
        let mut released = 0;
        while released < 2 {
            released += line.lock().release_all();
            thread::yield_now();
        }
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Err(Outcome::Woken));
        }
        assert!(line.lock().is_empty());
    });
}
