//! Something that happens every so often.
//!
//! What tokio's users know, policies included. The next tick is a point in time, computed from the one
//! before and not from when the caller came, so that ticks do not drift; what happens when the caller comes late is the policy's.

use std::time::Duration;

use super::{Deadline, Instant};

/// Ticks at once and then every `period`. See [`Interval`].
///
/// # Panics
///
/// If `period` is zero.
///
/// ```
/// use strands::time::{Duration, Instant, interval};
///
/// let start = Instant::now();
/// let mut interval = interval(Duration::from_millis(1));
/// interval.tick(); // At once.
/// interval.tick();
/// interval.tick();
/// assert!(start.elapsed() >= Duration::from_millis(2));
/// ```
#[track_caller]
#[must_use]
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks at `start` and then every `period`. See [`Interval`].
///
/// # Panics
///
/// If `period` is zero.
///
/// ```
/// use strands::time::{Duration, Instant, interval_at};
///
/// let start = Instant::now() + Duration::from_millis(1);
/// let mut interval = interval_at(start, Duration::from_secs(3600));
/// assert_eq!(interval.tick(), start);
/// ```
#[track_caller]
#[must_use]
pub fn interval_at(start: impl Into<Instant>, period: Duration) -> Interval {
    assert!(!period.is_zero(), "`period` must be non-zero.");
    Interval {
        next: Deadline::at(start),
        period,
        missed_tick_behavior: MissedTickBehavior::default(),
    }
}

/// Ticks every so often, in step with its start: what comes between two ticks does not add up.
///
/// Made by [`interval`] and [`interval_at`].
///
/// ```
/// use strands::time::{Duration, MissedTickBehavior, interval};
///
/// let mut heartbeat = interval(Duration::from_millis(1));
/// heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
/// for _ in 0..3 {
///     heartbeat.tick();
///     // Send a heartbeat, which may take a while.
/// }
/// ```
#[derive(Debug)]
pub struct Interval {
    next: Deadline,
    period: Duration,
    missed_tick_behavior: MissedTickBehavior,
}

/// What an [`Interval`] does when its [`tick`](Interval::tick) is called late.
///
/// Late is more than 5 milliseconds after the tick was due, or more than the period if that is less. The
/// tick itself is at once then; this says when the next one is.
///
/// For a period of 10 ms, when the third tick is called 25 ms late:
///
/// ```text
/// expected  0    10    20    30    40    50    60    70
/// Burst     0    10             45 45 45 50    60    70
/// Delay     0    10             45       55    65    75
/// Skip      0    10             45    50    60    70
/// ```
///
/// ```
/// use strands::time::MissedTickBehavior;
///
/// assert_eq!(MissedTickBehavior::default(), MissedTickBehavior::Burst);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MissedTickBehavior {
    /// All ticks that were missed come at once, until it has caught up.
    #[default]
    Burst,
    /// The next is a period after the late one: the interval is in a new step.
    Delay,
    /// Those that were missed are left out; the next comes in the old step.
    Skip,
}

impl Interval {
    /// Waits for the next tick; says when it was due.
    ///
    /// If a cancelled fiber unwinds from here, the tick has not been used up. A tick that no clock can tell is waited for for
    /// ever.
    ///
    /// ```
    /// use strands::time::{Duration, interval};
    ///
    /// let mut interval = interval(Duration::from_millis(1));
    /// let first = interval.tick();
    /// assert_eq!(interval.tick(), first + Duration::from_millis(1));
    /// ```
    pub fn tick(&mut self) -> Instant {
        self.next.sleep();
        let due = self.next.instant().expect("a sleep for ever has not ended");
        self.next = match self.missed_tick_behavior.next(due, Instant::now(), self.period) {
            Some(next) => Deadline::at(next),
            None => Deadline::never(),
        };
        due
    }

    /// The next tick is a period from now.
    ///
    /// ```
    /// use strands::time::{Duration, Instant, interval};
    ///
    /// let mut idle = interval(Duration::from_millis(1));
    /// let now = Instant::now();
    /// idle.reset(); // Something has happened.
    /// assert!(idle.tick() >= now + Duration::from_millis(1));
    /// ```
    pub fn reset(&mut self) {
        self.reset_after(self.period);
    }

    /// The next tick is at once.
    ///
    /// ```
    /// use strands::time::{Duration, interval};
    ///
    /// let mut interval = interval(Duration::from_secs(3600));
    /// interval.tick();
    /// interval.reset_immediately();
    /// interval.tick();
    /// ```
    pub fn reset_immediately(&mut self) {
        self.reset_at(Instant::now());
    }

    /// The next tick is `after` from now.
    ///
    /// ```
    /// use strands::time::{Duration, interval};
    ///
    /// let mut interval = interval(Duration::from_secs(3600));
    /// interval.reset_after(Duration::from_millis(1));
    /// interval.tick();
    /// ```
    pub fn reset_after(&mut self, after: Duration) {
        self.next = Deadline::after(after);
    }

    /// The next tick is at `deadline`, which may be in the past.
    ///
    /// ```
    /// use strands::time::{Duration, Instant, interval};
    ///
    /// let mut interval = interval(Duration::from_secs(3600));
    /// let soon = Instant::now() + Duration::from_millis(1);
    /// interval.reset_at(soon);
    /// assert_eq!(interval.tick(), soon);
    /// ```
    pub fn reset_at(&mut self, deadline: impl Into<Instant>) {
        self.next = Deadline::at(deadline);
    }

    /// What happens when a tick is late.
    ///
    /// ```
    /// use strands::time::{Duration, MissedTickBehavior, interval};
    ///
    /// let interval = interval(Duration::from_millis(1));
    /// assert_eq!(interval.missed_tick_behavior(), MissedTickBehavior::Burst);
    /// ```
    #[must_use]
    pub fn missed_tick_behavior(&self) -> MissedTickBehavior {
        self.missed_tick_behavior
    }

    /// Says what shall happen when a tick is late.
    ///
    /// ```
    /// use strands::time::{Duration, MissedTickBehavior, interval};
    ///
    /// let mut interval = interval(Duration::from_millis(1));
    /// interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    /// assert_eq!(interval.missed_tick_behavior(), MissedTickBehavior::Skip);
    /// ```
    pub fn set_missed_tick_behavior(&mut self, behavior: MissedTickBehavior) {
        self.missed_tick_behavior = behavior;
    }

    /// From tick to tick.
    ///
    /// ```
    /// use strands::time::{Duration, interval};
    ///
    /// let interval = interval(Duration::from_millis(1));
    /// assert_eq!(interval.period(), Duration::from_millis(1));
    /// ```
    #[must_use]
    pub fn period(&self) -> Duration {
        self.period
    }
}

impl MissedTickBehavior {
    /// When the tick after the one due at `due` is, if that came at `now`; `None` for never.
    fn next(self, due: Instant, now: Instant, period: Duration) -> Option<Instant> {
        /// Timers and schedulers are late by less; no policy shall be in force for that.
        const TOLERANCE: Duration = Duration::from_millis(5);
        let late = now.saturating_duration_since(due);
        if late <= TOLERANCE.min(period) {
            return due.checked_add(period);
        }
        match self {
            MissedTickBehavior::Burst => due.checked_add(period),
            MissedTickBehavior::Delay => now.checked_add(period),
            MissedTickBehavior::Skip => now.checked_add(period - remainder(late, period)),
        }
    }
}

/// What is left of `duration` after as many whole periods as fit.
fn remainder(duration: Duration, period: Duration) -> Duration {
    const NANOS_PER_SEC: u128 = 1_000_000_000;
    let left = duration.as_nanos() % period.as_nanos();
    Duration::new((left / NANOS_PER_SEC) as u64, (left % NANOS_PER_SEC) as u32)
}

#[cfg(test)]
mod tests {
    use super::MissedTickBehavior::{self, Burst, Delay, Skip};
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// When ticks come, by calls at these times, each beside the time it was due.
    fn ticks(policy: MissedTickBehavior, period: u64, calls: &[u64]) -> Vec<(u64, u64)> {
        let start = Instant::now();
        let mut due = start;
        let calls = calls.iter().map(|&call| {
            let now = due.max(start + ms(call)); // An early call waits.
            let at = [due, now].map(|instant| (instant - start).as_millis() as u64);
            due = policy.next(due, now, ms(period)).unwrap();
            (at[0], at[1])
        });
        calls.collect()
    }

    #[test]
    fn the_table_in_the_docs() {
        let calls = [0, 10, 45, 45, 45, 46, 46, 46];
        let came = |policy| ticks(policy, 10, &calls).iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(came(Burst), [0, 10, 45, 45, 45, 50, 60, 70]);
        assert_eq!(came(Delay), [0, 10, 45, 55, 65, 75, 85, 95]);
        assert_eq!(came(Skip), [0, 10, 45, 50, 60, 70, 80, 90]);
        let due = |policy| ticks(policy, 10, &calls).iter().map(|tick| tick.0).collect::<Vec<_>>();
        assert_eq!(due(Burst), [0, 10, 20, 30, 40, 50, 60, 70]);
        assert_eq!(due(Delay), [0, 10, 20, 55, 65, 75, 85, 95]);
        assert_eq!(due(Skip), [0, 10, 20, 50, 60, 70, 80, 90]);
    }

    #[test]
    fn a_little_late_is_not_late() {
        for policy in [Burst, Delay, Skip] {
            // Up to 5 ms, or the period if that is less.
            assert_eq!(ticks(policy, 10, &[0, 15, 15]), [(0, 0), (10, 15), (20, 20)]);
            assert_eq!(ticks(policy, 2, &[2, 2]), [(0, 2), (2, 2)]);
        }
        assert_eq!(ticks(Delay, 10, &[0, 16, 16]), [(0, 0), (10, 16), (26, 26)]);
        assert_eq!(ticks(Delay, 2, &[3, 3]), [(0, 3), (5, 5)]);
        assert_eq!(ticks(Skip, 2, &[3, 3]), [(0, 3), (4, 4)]);
    }

    #[test]
    fn late_by_whole_periods() {
        assert_eq!(ticks(Skip, 10, &[20, 20]), [(0, 20), (30, 30)], "20 is now, the next is 30");
        assert_eq!(ticks(Delay, 10, &[20, 20]), [(0, 20), (30, 30)]);
        assert_eq!(ticks(Burst, 10, &[20, 20, 20, 20]), [(0, 20), (10, 20), (20, 20), (30, 30)]);
        let years = Duration::from_secs(3600 * 24 * 365 * 600);
        assert_eq!(remainder(years + ms(3), ms(7)), ms((years.as_millis() as u64 + 3) % 7));
        assert_eq!(remainder(years, years * 2), years, "does not fit nanoseconds in 64 bits");
    }

    #[test]
    fn a_huge_period_is_never() {
        let now = Instant::now();
        for policy in [Burst, Delay, Skip] {
            assert_eq!(policy.next(now, now, Duration::MAX), None);
            assert_eq!(policy.next(now, now + ms(100), Duration::MAX), None);
        }
        let mut interval = interval(Duration::MAX);
        interval.tick(); // The first is at once.
        assert_eq!(interval.next, Deadline::never());
        interval.reset();
        assert_eq!(interval.next, Deadline::never());
        interval.reset_immediately();
        interval.tick();
    }

    #[test]
    fn resets() {
        let hour = ms(3_600_000);
        let mut interval = interval(hour);
        let start = interval.tick();
        assert_eq!(interval.next, Deadline::at(start + hour));
        interval.reset_at(start);
        assert_eq!(interval.tick(), start);
        assert_eq!(interval.next, Deadline::at(start + hour), "in step with what it was reset to");
        let before = Instant::now();
        interval.reset();
        assert!(interval.next >= Deadline::at(before + hour));
        interval.reset_after(hour * 2);
        assert!(interval.next >= Deadline::at(before + hour * 2));
    }

    #[test]
    #[should_panic(expected = "`period` must be non-zero.")]
    fn no_period_is_none() {
        let _ = interval(Duration::ZERO);
    }
}
