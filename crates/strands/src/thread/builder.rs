//! Spawning.

use std::ffi::CString;
use std::io;

use strands_sched::SpawnOptions;

use crate::runtime;
use crate::thread::{JoinHandle, LocalJoinHandle, Placement, Scope, ScopedJoinHandle};

/// Spawns a fiber that runs `f`, as `std::thread::spawn` spawns a thread.
///
/// On the caller's runtime; from a plain thread on the default one. `f` starts on any worker and
/// stays on it: values that are not `Send` may live on its stack across anything that waits.
///
/// # Panics
///
/// If no fiber can be spawned: see [`Builder::spawn`], which returns the error instead.
///
/// ```
/// let handles: Vec<_> = (0..100u64).map(|i| strands::spawn(move || i * i)).collect();
/// let sum: u64 = handles.into_iter().map(|handle| handle.join().unwrap()).sum();
/// assert_eq!(sum, 328_350);
/// ```
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    started(Builder::new().spawn(f))
}

/// Spawns a fiber on the caller's worker, where it may share what is not `Send`.
///
/// # Panics
///
/// If the caller is not a fiber, or no fiber can be spawned; [`Builder::spawn_local`] returns the
/// error instead.
///
/// ```
/// use std::rc::Rc;
///
/// let runtime = strands::Runtime::builder().workers(2).build()?;
/// runtime.run(|| {
///     let shared = Rc::new("not Send");
///     let its = shared.clone();
///     let handle = strands::spawn_local(move || its.len());
///     assert_eq!(handle.join().unwrap(), shared.len());
/// });
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn spawn_local<F, T>(f: F) -> LocalJoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    started(Builder::new().spawn_local(f))
}

/// What was spawned. While the caller's runtime shuts down there is none, and the caller is to end as well.
#[track_caller]
pub(crate) fn started<T>(spawned: io::Result<T>) -> T {
    if spawned.is_err() {
        strands_sched::check_shutdown();
    }
    spawned.expect("failed to spawn thread")
}

/// A fiber to be spawned with a name, a stack size or a place, as `std::thread::Builder`.
///
/// ```
/// let handle = strands::thread::Builder::new()
///     .name("parser".into())
///     .stack_size(1024 * 1024)
///     .spawn(|| strands::thread::current().name().map(String::from))?;
/// assert_eq!(handle.join().unwrap().as_deref(), Some("parser"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "must eventually spawn the thread"]
pub struct Builder {
    name: Option<String>,
    stack_size: Option<usize>,
    placement: Placement,
}

impl Builder {
    /// A fiber without a name, with its runtime's stack size, anywhere.
    ///
    /// ```
    /// strands::thread::Builder::new().spawn(|| {})?.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[allow(clippy::new_without_default, reason = "std's has no default either")]
    pub fn new() -> Builder {
        Builder { name: None, stack_size: None, placement: Placement::default() }
    }

    /// Its name, for [`Thread::name`](crate::thread::Thread::name), the overflow message and
    /// reports.
    ///
    /// The OS knows no fibers, so what it and std's panic message call the thread is the worker's
    /// name. Spawning panics if the name contains a zero byte, as std's does.
    ///
    /// ```
    /// let builder = strands::thread::Builder::new().name("reader".into());
    /// assert_eq!(builder.spawn(|| {})?.thread().name(), Some("reader"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name);
        self
    }

    /// The size of its stack in bytes, rounded up to whole pages; 16 KiB at least.
    ///
    /// Reserved as address space and committed by the kernel page by page, as the fiber uses it.
    ///
    /// ```
    /// fn depth(n: u32) -> u32 {
    ///     let frame = std::hint::black_box([n; 256]); // A kilobyte.
    ///     if n == 0 { 0 } else { depth(n - 1) + frame[0] - n + 1 }
    /// }
    /// let builder = strands::thread::Builder::new().stack_size(16 * 1024 * 1024);
    /// assert_eq!(builder.spawn(|| depth(2_000))?.join().unwrap(), 2_000);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stack_size(mut self, size: usize) -> Builder {
        self.stack_size = Some(size);
        self
    }

    /// Where it starts, and so where it stays.
    ///
    /// ```
    /// use strands::thread::{Builder, Placement};
    ///
    /// let runtime = strands::Runtime::builder().workers(2).build()?;
    /// runtime.run(|| {
    ///     let os_thread = || std::thread::current().id();
    ///     let beside = Builder::new().placement(Placement::Here).spawn(os_thread).unwrap();
    ///     assert_eq!(beside.join().unwrap(), os_thread());
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn placement(mut self, placement: Placement) -> Builder {
        self.placement = placement;
        self
    }

    /// Spawns the fiber, as [`spawn`](crate::spawn()) does.
    ///
    /// # Errors
    ///
    /// - `OutOfMemory` while stacks are exhausted: fibers that were accepted wait for one already.
    ///   Also for one stack so large that it cannot be mapped.
    /// - `InvalidInput` for a stack that does not fit the address space, and for a [`Placement`] that
    ///   the caller's runtime does not have. From a plain
    ///   thread also for a value of an environment variable that the default runtime cannot use.
    /// - `Other` while the runtime is shutting down.
    /// - `Unsupported` in a [forked child](crate::soundness#the-life-of-the-process).
    /// - From a plain thread, if the default runtime could not be started: what the system said.
    ///
    /// # Panics
    ///
    /// If the name contains a zero byte.
    ///
    /// ```
    /// let handle = strands::thread::Builder::new().spawn(|| "done")?;
    /// assert_eq!(handle.join().unwrap(), "done");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let join = strands_sched::spawn(self.options(), runtime::default_runtime, f)?;
        Ok(JoinHandle::new(join))
    }

    /// Spawns the fiber in a scope, as [`Scope::spawn`] does.
    ///
    /// # Errors
    ///
    /// As for [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// If the name contains a zero byte.
    ///
    /// ```
    /// use strands::thread;
    ///
    /// let text = String::from("borrowed");
    /// let length = thread::scope(|scope| {
    ///     let counter = thread::Builder::new().name("counter".into());
    ///     counter.spawn_scoped(scope, || text.len()).unwrap().join().unwrap()
    /// });
    /// assert_eq!(length, 8);
    /// ```
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        scope.spawn_with(self.options(), f)
    }

    /// Spawns the fiber on the caller's worker, as [`spawn_local`](crate::spawn_local) does.
    ///
    /// The [placement](Self::placement) is the caller's worker, whatever was asked for.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the caller is not a fiber: a plain thread has no worker to stay on. Else
    /// as for [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// If the name contains a zero byte.
    ///
    /// ```
    /// use strands::thread::Builder;
    ///
    /// let error = Builder::new().spawn_local(|| {}).unwrap_err();
    /// assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    /// ```
    #[track_caller]
    pub fn spawn_local<F, T>(self, f: F) -> io::Result<LocalJoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let join = strands_sched::spawn_local(self.options(), f)?;
        Ok(LocalJoinHandle::new(join))
    }

    #[track_caller]
    pub(crate) fn options(self) -> SpawnOptions {
        if let Some(name) = self.name.as_deref().filter(|name| name.contains('\0')) {
            // With std's whole text.
            CString::new(name).expect("thread name may not contain interior null bytes");
        }
        let Builder { name, stack_size: stack_bytes, placement } = self;
        SpawnOptions { name, stack_bytes, placement, ..SpawnOptions::default() }
    }
}
