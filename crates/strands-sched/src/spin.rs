//! Whether, and for how long, a worker with nothing to do looks into its inbox before it sleeps.
//!
//! To fall asleep, to be rung and to wake up takes microseconds, in a virtual machine tens of them. Where fibers of two
//! workers hand things to each other all the time that is most of the time, and the next wake is much closer.
//! Elsewhere a worker that spins only burns what others could use. So spinning is paid for by *credit*:
//!
//! - a sleep earns one if another thread rang so soon that a spin would have found what it brought;
//! - a spin that finds something earns one;
//! - a spin in vain costs [`PRICE`], and without so much there is none.
//!
//! So at most one in `PRICE` of the times that it has nothing to do can end in a spin in vain. A worker whose wakes come
//! from timers, from sockets or from far away does not spin at all, nor does one that nobody wakes.
//!
//! A spin lasts as long as two wake-ups take, which is measured: one because that is what is gained, and one
//! because who is to wake us may have to wake up first. Turned down: a fixed time. Where it is shorter than
//! a wake-up takes, two that sleep never find each other awake; where it is longer it is wasted.

use std::cell::Cell;

/// What a spin in vain costs.
const PRICE: u32 = 4;
/// So many spins in vain in a row, at most.
const LONGEST_ROW: u32 = 4;
/// A spin's bounds. A worker that is late because others have its processor must not spin for as long
/// as that; the upper one is how long ready fibers may keep events waiting, too.
const SHORTEST_NS: u64 = 5_000;
const LONGEST_NS: u64 = 50_000;

/// What one worker knows.
pub(crate) struct Spin {
    credit: Cell<u32>,
    /// How long it takes from the ring to the end of the sleep, on average.
    waking_ns: Cell<u64>,
}

impl Spin {
    pub(crate) fn new() -> Spin {
        Spin { credit: Cell::new(0), waking_ns: Cell::new(0) }
    }

    /// Whether to spin.
    #[inline]
    pub(crate) fn is_worth_it(&self) -> bool {
        self.credit.get() >= PRICE
    }

    /// For how long.
    pub(crate) fn length_ns(&self) -> u64 {
        (2 * self.waking_ns.get()).clamp(SHORTEST_NS, LONGEST_NS)
    }

    /// A spin has found something.
    pub(crate) fn has_paid(&self) {
        self.credit.set((self.credit.get() + 1).min(LONGEST_ROW * PRICE));
    }

    /// A spin has found nothing.
    pub(crate) fn was_in_vain(&self) {
        self.credit.set(self.credit.get().saturating_sub(PRICE));
    }

    /// A sleep has ended, as another thread rang. Times in ns on one clock.
    pub(crate) fn was_rung(&self, asleep_at: u64, rung_at: u64, awake_at: u64) {
        let waking_ns = awake_at.saturating_sub(rung_at).min(LONGEST_NS);
        self.waking_ns.set((7 * self.waking_ns.get() + waking_ns).div_ceil(8));
        if rung_at.saturating_sub(asleep_at) <= self.length_ns() {
            self.has_paid();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// How long its wake-ups take, after a while.
    const WAKING_NS: u64 = 10_000;

    fn after_a_while(rung_after_ns: u64) -> Spin {
        let spin = Spin::new();
        (0..1_000).for_each(|_| spin.was_rung(0, rung_after_ns, rung_after_ns + WAKING_NS));
        spin
    }

    #[test]
    fn it_lasts_as_long_as_two_wake_ups() {
        assert_eq!(Spin::new().length_ns(), SHORTEST_NS);
        assert_eq!(after_a_while(0).length_ns(), 2 * WAKING_NS);
        let late = Spin::new();
        (0..1_000).for_each(|_| late.was_rung(0, 0, 1_000_000_000));
        assert_eq!(late.length_ns(), LONGEST_NS);
    }

    #[test]
    fn only_near_rings_make_it_spin() {
        assert!(!Spin::new().is_worth_it(), "nothing has happened yet");
        assert!(!after_a_while(LONGEST_NS + 1).is_worth_it());
        assert!(after_a_while(2 * WAKING_NS).is_worth_it());
        let few = Spin::new();
        (1..PRICE).for_each(|_| few.was_rung(0, 0, 0));
        assert!(!few.is_worth_it());
    }

    #[test]
    fn a_worker_whose_spins_were_all_in_vain_does_not_spin() {
        let spin = after_a_while(0);
        for _ in 0..LONGEST_ROW {
            assert!(spin.is_worth_it());
            spin.was_in_vain();
        }
        assert!(!spin.is_worth_it());
    }

    /// However near the rings are: if no spin finds one, most of the times it does not spin.
    #[test]
    fn spins_in_vain_are_few() {
        let spin = Spin::new();
        let spins = (0..1_000).filter(|_| {
            let spins = spin.is_worth_it();
            if spins {
                spin.was_in_vain();
            }
            spin.was_rung(0, 0, 0);
            spins
        });
        assert!((1..=1_000 / PRICE as usize).contains(&spins.count()));
    }
}
