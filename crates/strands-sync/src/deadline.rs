//! From a timeout to a point in time.

use std::time::{Duration, Instant};

use strands_sched::now;

/// When `timeout` from now will be, by the clock that the caller's timers go by; `None` for never,
/// which is when no `Instant` can tell it.
pub(crate) fn after(timeout: Duration) -> Option<Instant> {
    now().checked_add(timeout)
}
