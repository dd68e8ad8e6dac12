//! Panics: in the open, in destructors, with waits while unwinding, with nobody who joins.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use strands::sync::{Arc, Mutex};

use crate::activities::spawning::pause;
use crate::books::{self, Count, check};
use crate::party::{InDrop, Party, Started};

/// Waits in its destructor, by a sleep, a lock or a join.
struct Waits {
    how: u32,
    lock: Arc<Mutex<u32>>,
    other: Option<Started<()>>,
}

impl Drop for Waits {
    fn drop(&mut self) {
        match self.how {
            0 => strands::sleep(Duration::from_micros(100)),
            1 => {
                // May be poisoned: another's panic may begin while it holds the lock.
                let mut value = self.lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                strands::yield_now();
                *value += 1;
            }
            2 => drop(self.other.take().map(Started::join)),
            _ => strands::yield_now(),
        }
    }
}

/// Fibers that panic, some of which wait while they unwind.
pub fn unwind(party: &mut Party) {
    let lock = Arc::new(Mutex::new(0));
    let mut others: Vec<Started<()>> = Vec::new();
    for _ in 0..party.rng.u32(1..8) {
        let lock = lock.clone();
        others.extend(party.start(move |party| {
            let other = party.start(pause);
            let _waits = Waits { how: party.rng.u32(..4), lock: lock.clone(), other };
            pause(party);
            let caught = party.catch(|party| {
                let _waits = Waits { how: party.rng.u32(..2), lock, other: None };
                if party.rng.bool() {
                    party.panic();
                }
            });
            if caught.is_some() && party.rng.bool() {
                party.panic();
            }
        }));
    }
    party.rng.shuffle(&mut others);
    for other in others {
        // Or detached, so that the payload is dropped where it ends.
        if party.rng.u32(..4) > 0 {
            other.join();
        }
    }
}

/// Panics when dropped, once it has been armed.
struct Bomb {
    armed: bool,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.armed {
            books::count(Count::PanicsInDrop);
            panic::panic_any(InDrop);
        }
    }
}

/// Destructors that panic: of a local value, and of the value of a fiber that nobody joins.
pub fn in_drop(party: &mut Party) {
    for _ in 0..party.rng.u32(1..6) {
        let mut bomb = Bomb { armed: false };
        pause(party);
        // Nothing waits between this and the drop, so nothing else unwinds.
        bomb.armed = true;
        let caught = panic::catch_unwind(AssertUnwindSafe(|| drop(bomb)));
        let is_ours = |payload: Box<dyn std::any::Any + Send>| payload.is::<InDrop>();
        check(caught.is_err_and(is_ours), || "a destructor's panic was lost".into());
    }
    let detached = party.start_fiber(|party| {
        pause(party);
        Bomb { armed: true }
    });
    // Dropped by the fiber or, if that has ended already, here.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(detached)));
    let joined = party.start_fiber(|party| {
        pause(party);
        Bomb { armed: false }
    });
    joined.map(Started::join);
}
