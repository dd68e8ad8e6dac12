//! What an idle worker waits in.
//!
//! A driver knows the events that can make a fiber ready while no fiber runs: I/O (the reactor)
//! and the passing of time. Each worker has one of its own, and calls it from its own stack only.
//! The scheduler keeps the timers; the driver is told how long it may wait.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::runtime::with_driver;

/// One worker's source of events and time.
///
/// It is used by its worker's thread only, from the worker's own stack ([`poll`](Self::poll)) and
/// from its fibers (through [`as_any`](Self::as_any)), never at once.
///
/// ```
/// use std::any::Any;
/// use std::sync::Arc;
/// use std::thread::{self, Thread};
/// use std::time::Duration;
/// use strands_sched::{Builder, Driver, DriverWaker, SpawnOptions};
///
/// /// Waits for nothing but time and the waker, by what std has.
/// struct Park;
/// impl Driver for Park {
///     fn poll(&self, timeout: Option<Duration>) {
///         match timeout {
///             None => thread::park(),
///             Some(Duration::ZERO) => {}
///             Some(limit) => thread::park_timeout(limit),
///         }
///     }
///     fn waker(&self) -> Arc<dyn DriverWaker> {
///         Arc::new(Unpark(thread::current()))
///     }
///     fn as_any(&self) -> &dyn Any {
///         self
///     }
///     fn describe(&self) -> String {
///         "std::thread::park".into()
///     }
/// }
/// struct Unpark(Thread);
/// impl DriverWaker for Unpark {
///     fn wake(&self) {
///         self.0.unpark();
///     }
/// }
///
/// let runtime = Builder::new().workers(2).driver(Arc::new(|_| Ok(Box::new(Park)))).build()?;
/// assert_eq!(runtime.run(SpawnOptions::default(), || 1 + 1)?, 2);
/// # std::io::Result::Ok(())
/// ```
pub trait Driver: 'static {
    /// Lets events make fibers ready, by [`Header::wake`](crate::Header::wake).
    ///
    /// Waits for the first event up to `timeout` (`None`: without limit; zero: not at all), or
    /// until the [`waker`](Self::waker) is used, also when that happened before the call. May
    /// return early. Errors that the system returns must not end the wait early time after time.
    fn poll(&self, timeout: Option<Duration>);

    /// What ends a [`poll`](Self::poll), from any thread.
    fn waker(&self) -> Arc<dyn DriverWaker>;

    /// The time that the worker's timers go by.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// For the layer that made this driver to find it again.
    fn as_any(&self) -> &dyn Any;

    /// One line on what it is, for `Runtime::describe`.
    fn describe(&self) -> String;
}

/// Ends one [`Driver::poll`]: the one under way or, if there is none, the next.
///
/// ```
/// let driver = strands_sched::TimeDriver::factory()(0)?;
/// let waker = driver.waker();
/// std::thread::spawn(move || waker.wake());
/// driver.poll(None); // Would not end by itself.
/// # std::io::Result::Ok(())
/// ```
pub trait DriverWaker: Send + Sync + 'static {
    /// Ends the poll. Cheap enough to be called once for each time a worker falls asleep.
    fn wake(&self);
}

/// Makes the driver of the worker with the given index.
///
/// ```
/// use strands_sched::{Builder, DriverFactory, SpawnOptions, TimeDriver};
///
/// let factory: DriverFactory = TimeDriver::factory();
/// let runtime = Builder::new().workers(1).driver(factory).build()?;
/// assert_eq!(runtime.run(SpawnOptions::default(), || 1 + 1)?, 2);
/// # std::io::Result::Ok(())
/// ```
pub type DriverFactory = Arc<dyn Fn(usize) -> std::io::Result<Box<dyn Driver>> + Send + Sync>;

/// A driver without I/O: waits for the waker and for time only.
///
/// ```
/// use std::time::{Duration, Instant};
/// use strands_sched::{Builder, SpawnOptions, TimeDriver, sleep_until};
///
/// let runtime = Builder::new().workers(1).driver(TimeDriver::factory()).build()?;
/// runtime.run(SpawnOptions::default(), || {
///     let deadline = Instant::now() + Duration::from_millis(1);
///     sleep_until(Some(deadline));
///     assert!(Instant::now() >= deadline);
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub struct TimeDriver {
    signal: Arc<Signal>,
}

#[derive(Default)]
struct Signal {
    raised: std::sync::Mutex<bool>,
    changed: std::sync::Condvar,
}

impl TimeDriver {
    /// A [`DriverFactory`] of such drivers.
    ///
    /// ```
    /// let driver = strands_sched::TimeDriver::factory()(0)?;
    /// driver.waker().wake();
    /// driver.poll(None); // Ends at once: it was woken before.
    /// # std::io::Result::Ok(())
    /// ```
    pub fn factory() -> DriverFactory {
        Arc::new(|_| Ok(Box::new(TimeDriver { signal: Arc::default() })))
    }
}

impl Driver for TimeDriver {
    fn poll(&self, timeout: Option<Duration>) {
        let mut raised = self.signal.raised.lock().unwrap();
        if !*raised && timeout != Some(Duration::ZERO) {
            raised = match timeout {
                None => self.signal.changed.wait(raised).unwrap(),
                Some(limit) => self.signal.changed.wait_timeout(raised, limit).unwrap().0,
            };
        }
        *raised = false;
    }

    fn waker(&self) -> Arc<dyn DriverWaker> {
        self.signal.clone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn describe(&self) -> String {
        "time only".into()
    }
}

impl DriverWaker for Signal {
    fn wake(&self) {
        *self.raised.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

/// The present, by the clock of the caller's worker; on a plain thread by the system's.
///
/// Deadlines of waits go by it.
///
/// ```
/// use std::time::Duration;
/// use strands_sched::{now, sleep_until};
///
/// let deadline = now() + Duration::from_millis(1);
/// sleep_until(Some(deadline));
/// assert!(now() >= deadline);
/// ```
#[must_use]
pub fn now() -> Instant {
    with_driver(|driver| driver.now()).unwrap_or_else(Instant::now)
}
