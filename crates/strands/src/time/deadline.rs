//! One point in time for several waits.

use std::cmp::Ordering;
use std::time::Duration;

use super::Instant;

/// A point in time until which one waits, or never: for several waits in a row that have to be done
/// by the same time.
///
/// A timeout starts anew with each call. A deadline does not: it is made once, and everything that
/// waits until a point in time takes it, such as
/// [`Semaphore::acquire_deadline`](crate::sync::Semaphore::acquire_deadline). These also take an
/// [`Instant`], strands' or std's.
///
/// Deadlines compare by time, so `min` of two is the one that comes first; never comes last.
///
/// ```
/// use strands::sync::Semaphore;
/// use strands::time::{Deadline, Duration};
///
/// let (tables, forks) = (Semaphore::new(1), Semaphore::new(1));
/// let deadline = Deadline::after(Duration::from_millis(2));
/// let table = tables.acquire_deadline(deadline);
/// let forks = forks.acquire_many_deadline(2, deadline); // The time that is left.
/// assert!(table.is_ok() && forks.is_err() && deadline.has_passed());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// `timeout` from now; never, if the clock cannot tell that.
    ///
    /// ```
    /// use strands::time::{Deadline, Duration};
    ///
    /// assert!(Deadline::after(Duration::ZERO).has_passed());
    /// assert_eq!(Deadline::after(Duration::MAX), Deadline::never());
    /// ```
    #[must_use]
    pub fn after(timeout: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(timeout))
    }

    /// This point in time.
    ///
    /// ```
    /// use strands::time::{Deadline, Instant};
    ///
    /// let now = Instant::now();
    /// assert_eq!(Deadline::at(now).instant(), Some(now));
    /// assert_eq!(Deadline::at(now), Deadline::at(std::time::Instant::from(now)));
    /// ```
    #[must_use]
    pub fn at(instant: impl Into<Instant>) -> Deadline {
        Deadline(Some(instant.into()))
    }

    /// No limit.
    ///
    /// ```
    /// let permits = strands::sync::Semaphore::new(1);
    /// let deadline = strands::time::Deadline::never();
    /// assert!(permits.acquire_deadline(deadline).is_ok());
    /// ```
    #[must_use]
    pub const fn never() -> Deadline {
        Deadline(None)
    }

    /// When it is; `None` for never.
    ///
    /// ```
    /// assert_eq!(strands::time::Deadline::never().instant(), None);
    /// ```
    #[must_use]
    pub const fn instant(&self) -> Option<Instant> {
        self.0
    }

    /// The time left, zero when it has passed; `None` for never.
    ///
    /// ```
    /// use strands::time::{Deadline, Duration};
    ///
    /// let hour = Duration::from_secs(3600);
    /// assert!(Deadline::after(hour).remaining().unwrap() <= hour);
    /// assert_eq!(Deadline::after(Duration::ZERO).remaining(), Some(Duration::ZERO));
    /// assert_eq!(Deadline::never().remaining(), None);
    /// ```
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.0.map(|instant| instant.saturating_duration_since(Instant::now()))
    }

    /// Whether it is now or earlier.
    ///
    /// ```
    /// use strands::time::{Deadline, Duration};
    ///
    /// assert!(!Deadline::after(Duration::from_secs(3600)).has_passed());
    /// ```
    #[must_use]
    pub fn has_passed(&self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// Waits until then; not at all if it has passed, and for ever if it is never.
    ///
    /// A cancelled fiber unwinds from here.
    ///
    /// ```
    /// use strands::time::{Deadline, Duration};
    ///
    /// let deadline = Deadline::after(Duration::from_millis(1));
    /// deadline.sleep();
    /// assert!(deadline.has_passed());
    /// ```
    pub fn sleep(&self) {
        if self.has_passed() {
            return crate::yield_now();
        }
        strands_sched::sleep_until((*self).into());
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Deadline) -> Ordering {
        let key = |deadline: &Deadline| (deadline.0.is_none(), deadline.0);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Deadline) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Instant> for Deadline {
    fn from(instant: Instant) -> Deadline {
        Deadline(Some(instant))
    }
}

impl From<std::time::Instant> for Deadline {
    fn from(instant: std::time::Instant) -> Deadline {
        Deadline(Some(instant.into()))
    }
}

/// For what waits until a point in time.
impl From<Deadline> for Option<std::time::Instant> {
    fn from(deadline: Deadline) -> Option<std::time::Instant> {
        deadline.0.map(Into::into)
    }
}
