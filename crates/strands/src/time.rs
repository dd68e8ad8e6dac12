//! `std::time`, with a clock that the runtime keeps.
//!
//! [`Instant`] is a type of strands' own, so that a runtime can be run in a time of its own. It
//! converts from and into std's at no cost. The rest of std's is std's.
//!
//! Beyond std: [`timeout`] ends what takes too long, whatever it waits for. [`Interval`] is for what
//! happens every so often, and [`Deadline`] is a point in time that several waits share. What waits until a point in time takes either `Instant`, or a `Deadline`.
//!
//! ```
//! use strands::time::{Duration, Instant};
//!
//! let start = Instant::now();
//! strands::sleep(Duration::from_millis(1));
//! assert!(start.elapsed() >= Duration::from_millis(1));
//! ```

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

pub use std::time::{Duration, SystemTime, SystemTimeError, TryFromFloatSecsError, UNIX_EPOCH};

pub use deadline::Deadline;
pub use interval::{Interval, MissedTickBehavior, interval, interval_at};
pub use timeout::{Elapsed, deadline, timeout};

mod deadline;
mod interval;
mod timeout;

/// A point in time that never runs backwards, as `std::time::Instant`.
///
/// ```
/// use strands::time::Instant;
///
/// let earlier = Instant::now();
/// let later = Instant::now();
/// assert!(later >= earlier);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(std::time::Instant);

impl Instant {
    /// The present, by the clock that the caller's worker goes by; on a plain thread, the system's.
    ///
    /// ```
    /// let _now = strands::time::Instant::now();
    /// ```
    #[must_use]
    pub fn now() -> Instant {
        Instant(strands_sched::now())
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    ///
    /// ```
    /// use strands::time::{Duration, Instant};
    ///
    /// let now = Instant::now();
    /// assert_eq!((now + Duration::from_secs(2)).duration_since(now), Duration::from_secs(2));
    /// assert_eq!(now.duration_since(now + Duration::from_secs(2)), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn duration_since(&self, earlier: Instant) -> Duration {
        self.0.duration_since(earlier.0)
    }

    /// The time from `earlier` to this; `None` if `earlier` is later.
    ///
    /// ```
    /// use strands::time::{Duration, Instant};
    ///
    /// let now = Instant::now();
    /// assert_eq!(now.checked_duration_since(now + Duration::from_nanos(1)), None);
    /// ```
    #[must_use]
    pub fn checked_duration_since(&self, earlier: Instant) -> Option<Duration> {
        self.0.checked_duration_since(earlier.0)
    }

    /// The time from `earlier` to this; zero if `earlier` is later.
    ///
    /// ```
    /// use strands::time::{Duration, Instant};
    ///
    /// let now = Instant::now();
    /// assert_eq!(now.saturating_duration_since(now + Duration::from_nanos(1)), Duration::ZERO);
    /// ```
    #[must_use]
    pub fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// The time from this to the present.
    ///
    /// ```
    /// let start = strands::time::Instant::now();
    /// println!("took {:?}", start.elapsed());
    /// ```
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Instant::now().duration_since(*self)
    }

    /// This plus `duration`, if the clock can tell it.
    ///
    /// ```
    /// use strands::time::{Duration, Instant};
    ///
    /// assert_eq!(Instant::now().checked_add(Duration::MAX), None);
    /// ```
    #[must_use]
    pub fn checked_add(&self, duration: Duration) -> Option<Instant> {
        self.0.checked_add(duration).map(Instant)
    }

    /// This minus `duration`, if the clock can tell it.
    ///
    /// ```
    /// use strands::time::{Duration, Instant};
    ///
    /// assert_eq!(Instant::now().checked_sub(Duration::MAX), None);
    /// ```
    #[must_use]
    pub fn checked_sub(&self, duration: Duration) -> Option<Instant> {
        self.0.checked_sub(duration).map(Instant)
    }
}

/// When `dur` from now will be; `None` for never, which is when the clock cannot tell it.
pub(crate) fn deadline_in(dur: Duration) -> Option<std::time::Instant> {
    Instant::now().0.checked_add(dur)
}

impl From<std::time::Instant> for Instant {
    fn from(instant: std::time::Instant) -> Instant {
        Instant(instant)
    }
}

impl From<Instant> for std::time::Instant {
    fn from(instant: Instant) -> std::time::Instant {
        instant.0
    }
}

/// For what waits until a point in time.
impl From<Instant> for Option<std::time::Instant> {
    fn from(instant: Instant) -> Option<std::time::Instant> {
        Some(instant.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// # Panics
    ///
    /// If the clock cannot tell the result; [`checked_add`](Instant::checked_add) does not.
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0 + duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// # Panics
    ///
    /// If the clock cannot tell the result; [`checked_sub`](Instant::checked_sub) does not.
    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0 - duration)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        self.0 -= duration;
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    /// The time between them; zero if `other` is later.
    fn sub(self, other: Instant) -> Duration {
        self.0 - other.0
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
