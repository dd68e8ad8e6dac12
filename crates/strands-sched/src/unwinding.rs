//! Who unwinds: what std's count of panics tells of fibers that share a thread.
//!
//! std says only whether anybody on this thread unwinds. So a worker counts its suspended fibers
//! that do, or that may. As long as there are none, std's answer is about the running fiber. One
//! that suspends while there are others may or may not, and is counted too; what is believed of it
//! is what was last known. When std says that nobody unwinds, all doubts are gone and the count
//! begins anew: a new *era*, so that fibers counted before need not be visited.
//!
//! Two questions, two answers. Locks and `panicking` ask what is *believed*. A cancel must not meet
//! a destructor (two unwindings in one fiber abort the process), so it asks whether the fiber *may*
//! unwind, and is held back if so, until nobody does. But who unwinds may wait for a fiber that only
//! a cancel ends: a worker with nothing left to do or to wait for goes by belief here too.
//!
//! Nearly always nobody unwinds, and all this costs two loads and a store a suspension.

use std::cell::Cell;
use std::thread::panicking;

use crate::live::Live;
use crate::task::Header;

/// Of one worker; used by its thread only.
pub(crate) struct Unwinding {
    /// Suspended fibers of this era that unwind, or that may.
    count: Cell<u32>,
    /// From 1; a fiber that is not counted has 0.
    era: Cell<u32>,
    /// A cancel could not be delivered because of them.
    cancel_deferred: Cell<bool>,
}

impl Unwinding {
    pub(crate) fn new() -> Unwinding {
        Unwinding { count: Cell::new(0), era: Cell::new(1), cancel_deferred: Cell::new(false) }
    }

    /// Whether `me`, which runs, unwinds, as far as that can be known: a panic that began, or was
    /// caught, while *another* fiber of this worker was suspended in its unwinding does not show
    /// until that one has gone on.
    pub(crate) fn of(&self, me: &Header) -> bool {
        panicking() && (self.count.get() == 0 || me.unwinding.get())
    }

    /// `me` is about to suspend. Says whether [`resumed`](Self::resumed) must be told.
    #[inline(always)]
    pub(crate) fn suspending(&self, me: &Header) -> bool {
        let noted = self.count.get() != 0 || panicking();
        if noted {
            self.note(me);
        } else {
            me.unwinding.set(false);
        }
        noted
    }

    #[cold]
    fn note(&self, me: &Header) {
        if !panicking() {
            self.nobody();
            me.unwinding.set(false);
            return;
        }
        let others = self.count.get();
        if others == 0 || me.cancel_payloads.get() != 0 {
            me.unwinding.set(true);
        }
        self.count.set(others + 1);
        me.unwinding_era.set(self.era.get());
    }

    /// `me`, noted when it suspended, goes on. Says whether it may be unwinding.
    #[cold]
    pub(crate) fn resumed(&self, me: &Header) -> bool {
        let counted = me.unwinding_era.replace(0) == self.era.get();
        if counted {
            self.count.set(self.count.get() - 1);
        }
        if !panicking() {
            self.nobody();
            me.unwinding.set(false);
        } else if self.count.get() == 0 {
            me.unwinding.set(counted);
        } else {
            return counted;
        }
        me.unwinding.get()
    }

    fn nobody(&self) {
        if self.count.replace(0) != 0 {
            self.era.set(self.era.get().wrapping_add(1).max(1));
        }
    }

    /// A cancel of the running fiber is held back, as it might be unwinding.
    pub(crate) fn defer_cancel(&self) {
        self.cancel_deferred.set(true);
    }

    pub(crate) fn defers_cancels(&self) -> bool {
        self.cancel_deferred.get()
    }

    /// Delivers the cancels that were held back, if nobody unwinds any more.
    #[inline(always)]
    pub(crate) fn deliver_deferred(&self, live: &Live) {
        if self.count.get() != 0 || self.cancel_deferred.get() {
            self.try_deliver(live);
        }
    }

    #[cold]
    fn try_deliver(&self, live: &Live) {
        if panicking() {
            return;
        }
        self.nobody();
        if self.cancel_deferred.replace(false) {
            live.for_each(|fiber| {
                if fiber.cancel_requested() {
                    fiber.wake();
                }
            });
        }
    }

    /// Delivers cancels that were held back to fibers of which it is not believed that they
    /// unwind. Says whether there were any.
    #[cold]
    pub(crate) fn deliver_believed(&self, live: &Live) -> bool {
        let mut any = false;
        self.cancel_deferred.set(false);
        live.for_each(|fiber| {
            let in_doubt = fiber.unwinding_era.get() == self.era.get();
            if in_doubt && !fiber.unwinding.get() && fiber.cancel_requested() {
                fiber.unwinding_era.set(0);
                self.count.set(self.count.get() - 1);
                fiber.wake();
                any = true;
            }
        });
        any
    }
}
