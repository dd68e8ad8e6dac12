//! What a worker waits in: a backend, and how it is chosen.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use strands_sched::{Driver, DriverFactory, DriverWaker, with_driver};

use crate::backend::fork;
use crate::backend::{self, Registrar};

/// Which interface of the operating system the reactor uses.
///
/// ```
/// use strands_reactor::{Backend, driver_factory};
/// use strands_sched::Builder;
///
/// let runtime = Builder::new().workers(1).driver(driver_factory(Backend::Mio)).build()?;
/// assert!(runtime.describe().contains("mio"));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Backend {
    /// What the environment variable `STRANDS_BACKEND` names (`auto`, `epoll`, `mio`); if it is
    /// not set, or says `auto`: epoll on Linux, mio elsewhere.
    #[default]
    Auto,
    /// Linux epoll. Waits to the nanosecond; to the millisecond, rounded up, on kernels before
    /// 5.11 and where a filter forbids `epoll_pwait2`.
    Epoll,
    /// The `mio` crate: kqueue on macOS and the BSDs, which waits to the nanosecond; AFD on
    /// Windows and epoll on Linux, which wait to the millisecond, rounded up.
    Mio,
}

/// Makes the drivers of a runtime's workers; see `Builder::driver`.
///
/// The factory returns the errors of the system with what could not be made and what helps (when
/// there are too few descriptors: each worker needs two, with mio three); `InvalidInput` if
/// `STRANDS_BACKEND` names no backend; `Unsupported` if the system has no such backend.
///
/// ```
/// use strands_reactor::{Backend, driver_factory};
/// use strands_sched::{Builder, SpawnOptions};
///
/// let runtime = Builder::new().workers(2).driver(driver_factory(Backend::Auto)).build()?;
/// println!("{}", runtime.describe());
/// assert_eq!(runtime.run(SpawnOptions::default(), || 1 + 1)?, 2);
/// # std::io::Result::Ok(())
/// ```
pub fn driver_factory(backend: Backend) -> DriverFactory {
    Arc::new(move |_worker| {
        fork::prepare();
        let chosen = match backend {
            Backend::Auto => from_environment()?,
            chosen => chosen,
        };
        Ok(Box::new(Reactor::new(chosen)?))
    })
}

const VARIABLE: &str = "STRANDS_BACKEND";

fn from_environment() -> io::Result<Backend> {
    match std::env::var_os(VARIABLE) {
        None => Ok(Backend::Auto),
        Some(value) => match value.to_str() {
            Some("" | "auto") => Ok(Backend::Auto),
            Some("epoll") => Ok(Backend::Epoll),
            Some("mio") => Ok(Backend::Mio),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{VARIABLE} is {value:?}, no backend: set it to auto, epoll or mio, or unset it"
                ),
            )),
        },
    }
}

/// One worker's reactor.
pub(crate) struct Reactor {
    id: u32,
    backend: Box<dyn backend::Backend>,
}

impl Reactor {
    fn new(chosen: Backend) -> io::Result<Reactor> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = NEXT.fetch_add(1, Relaxed);
        assert_ne!(id, 0, "4 billion workers were made");
        Ok(Reactor { id, backend: backend::make(chosen, id)? })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn registrar_clone(&self) -> Arc<dyn Registrar> {
        self.backend.registrar().clone()
    }
}

/// Runs `f` with the reactor of this thread's worker, if it is a worker's and has one.
#[inline]
pub(crate) fn with_local<R>(f: impl FnOnce(&Reactor) -> R) -> Option<R> {
    with_driver(|driver| driver.as_any().downcast_ref::<Reactor>().map(f)).flatten()
}

/// The id of the reactor of this thread's worker.
#[inline]
pub(crate) fn local_id() -> Option<u32> {
    with_local(Reactor::id)
}

impl Driver for Reactor {
    fn poll(&self, timeout: Option<Duration>) {
        self.backend.poll(timeout);
    }

    fn waker(&self) -> Arc<dyn DriverWaker> {
        self.backend.waker()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn describe(&self) -> String {
        self.backend.name().into()
    }
}
