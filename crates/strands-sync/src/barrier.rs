//! Where parties wait for each other.
//!
//! A count and a line under one lock. The last to come releases the whole line and is the leader. Each generation
//! has a number: who is woken, or gives up, knows by it whether its arrival has counted.
//!
//! A cancelled waiter takes its arrival back, as an operation that unwinds shall have had no effect; if its
//! generation is complete by then it returns normally.
//!
//! # Fairness
//!
//! All of a generation are released in one step. Who comes after that belongs to the next.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Instant;

use strands_sched::{Op, Outcome, Place, WaitQueue, cancel_unwind, charge};

/// Lets parties wait until a number of them has come, as `std::sync::Barrier`, for fibers and plain threads alike.
///
/// # Examples
///
/// ```
/// use strands_sync::Barrier;
///
/// let barrier = Barrier::new(3);
/// std::thread::scope(|scope| {
///     for _ in 0..3 {
///         scope.spawn(|| {
///             println!("before wait");
///             barrier.wait();
///             println!("after wait: all three have come");
///         });
///     }
/// });
/// ```
pub struct Barrier {
    line: WaitQueue<State>,
    parties: usize,
}

struct State {
    arrived: usize,
    generation: usize,
}

impl UnwindSafe for Barrier {}
impl RefUnwindSafe for Barrier {}

/// Whether a party was the last to come, which one of each generation is.
///
/// # Examples
///
/// ```
/// use strands_sync::{Barrier, BarrierWaitResult};
///
/// let result: BarrierWaitResult = Barrier::new(1).wait();
/// assert!(result.is_leader());
/// ```
pub struct BarrierWaitResult(bool);

impl Barrier {
    /// For `n` parties; with 0 it is as with 1: nobody waits.
    ///
    /// # Examples
    ///
    /// ```
    /// static STARTED: strands_sync::Barrier = strands_sync::Barrier::new(1);
    /// STARTED.wait();
    /// ```
    #[cfg(not(loom))]
    #[inline]
    #[must_use]
    pub const fn new(n: usize) -> Barrier {
        Barrier { line: WaitQueue::new(State { arrived: 0, generation: 0 }), parties: n }
    }

    /// For `n` parties.
    #[cfg(loom)]
    #[must_use]
    pub fn new(n: usize) -> Barrier {
        Barrier { line: WaitQueue::new(State { arrived: 0, generation: 0 }), parties: n }
    }

    /// Waits until all have come. The barrier may be used again at once.
    ///
    /// A fiber that is cancelled here has not come: another must, or the others wait on.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = strands_sync::Barrier::new(2);
    /// std::thread::scope(|scope| {
    ///     let other = scope.spawn(|| barrier.wait().is_leader());
    ///     assert_ne!(barrier.wait().is_leader(), other.join().unwrap());
    /// });
    /// ```
    pub fn wait(&self) -> BarrierWaitResult {
        charge();
        self.wait_until(None).unwrap_or_else(|_cancelled| cancel_unwind())
    }

    /// As `wait`. Who gives up has not come.
    pub(crate) fn wait_until(
        &self,
        deadline: Option<Instant>,
    ) -> Result<BarrierWaitResult, Outcome> {
        static WAIT: Op = Op("Barrier::wait");
        let mut state = self.line.lock();
        state.arrived += 1;
        if state.arrived >= self.parties {
            state.arrived = 0;
            state.generation = state.generation.wrapping_add(1);
            state.release_all();
            return Ok(BarrierWaitResult(true));
        }
        let generation = state.generation;
        let outcome = state.wait(Place::Last, &WAIT, deadline, (), || {});
        if outcome != Outcome::Woken {
            let mut state = self.line.lock();
            if state.generation == generation {
                state.arrived -= 1;
                return Err(outcome);
            }
        }
        Ok(BarrierWaitResult(false))
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}

impl BarrierWaitResult {
    /// Whether this party was the last to come.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = strands_sync::Barrier::new(1);
    /// assert!(barrier.wait().is_leader());
    /// ```
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl fmt::Debug for BarrierWaitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWaitResult").field("is_leader", &self.is_leader()).finish()
    }
}
