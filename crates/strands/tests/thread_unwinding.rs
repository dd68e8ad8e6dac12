//! Fibers that wait while they unwind, and their neighbours on the same worker.

mod thread_common;

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use strands::cancel::Cancelled;
use strands::sync::{Mutex, mpsc};
use strands::thread::{self, Builder, Placement};
use thread_common::{runtime, text};

/// What a destructor waits in.
#[derive(Clone, Copy)]
enum Wait {
    Sleep,
    Lock,
    Join,
    Park,
    Yield,
}

struct Waits {
    how: Wait,
    lock: Arc<Mutex<u32>>,
    waiting: Arc<AtomicBool>,
    released: Arc<AtomicBool>,
}

impl Drop for Waits {
    fn drop(&mut self) {
        assert!(thread::panicking());
        self.waiting.store(true, SeqCst);
        while !self.released.load(SeqCst) {
            match self.how {
                Wait::Sleep => thread::sleep(Duration::from_micros(50)),
                Wait::Lock => *self.lock.lock().unwrap() += 1,
                Wait::Join => thread::spawn(thread::yield_now).join().unwrap(),
                Wait::Park => thread::park_timeout(Duration::from_micros(50)),
                Wait::Yield => {}
            }
            thread::yield_now();
            assert!(thread::panicking(), "it forgot that it unwinds");
        }
    }
}

#[test]
fn neighbours_do_not_see_it() {
    for how in [Wait::Sleep, Wait::Lock, Wait::Join, Wait::Park, Wait::Yield] {
        runtime(1).run(|| {
            let lock = Arc::new(Mutex::new(0));
            let waiting = Arc::new(AtomicBool::new(false));
            let released = Arc::new(AtomicBool::new(false));
            // Waits from before the other's panic until after.
            let early = {
                let (lock, waiting, released) = (lock.clone(), waiting.clone(), released.clone());
                thread::spawn(move || {
                    let own = Mutex::new(());
                    let guard = own.lock().unwrap();
                    while !waiting.load(SeqCst) {
                        thread::yield_now();
                    }
                    for _ in 0..20 {
                        assert!(!thread::panicking(), "seen by one that was there before");
                        *lock.lock().unwrap() += 1;
                        thread::yield_now();
                    }
                    drop(guard);
                    assert!(!own.is_poisoned());
                    released.load(SeqCst)
                })
            };
            let unwinding = {
                let (lock, waiting, released) = (lock.clone(), waiting.clone(), released.clone());
                thread::spawn(move || {
                    let _waits = Waits { how, lock, waiting, released };
                    panic!("unwinds slowly");
                })
            };
            while !waiting.load(SeqCst) {
                thread::yield_now();
            }
            assert!(!early.join().unwrap());
            // One that starts meanwhile.
            thread::spawn(|| assert!(!thread::panicking())).join().unwrap();
            for _ in 0..20 {
                assert!(!thread::panicking());
                drop(lock.lock().unwrap());
                thread::yield_now();
            }
            // One that panics meanwhile ends as ever; the first goes on unwinding.
            let payload = thread::spawn(|| panic!("meanwhile")).join().unwrap_err();
            assert_eq!(text(&*payload), "meanwhile");
            assert!(panic::catch_unwind(|| panic!("caught meanwhile")).is_err());
            released.store(true, SeqCst);
            assert_eq!(text(&*unwinding.join().unwrap_err()), "unwinds slowly");
            assert!(!lock.is_poisoned());
            assert!(!thread::panicking() && !std::thread::panicking());
        });
    }
}

#[test]
fn many_unwind_at_once() {
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            for _ in 0..3 {
                thread::sleep(Duration::from_micros(30));
                thread::yield_now();
            }
        }
    }
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let lock = Mutex::new(0);
            thread::scope(|scope| {
                for i in 0..50 {
                    let lock = &lock;
                    let child = Builder::new().placement(Placement::Anywhere);
                    let child = child.spawn_scoped(scope, move || {
                        if i % 2 == 0 {
                            let _sleeps = Sleeps;
                            panic!("even");
                        }
                        for _ in 0..10 {
                            *lock.lock().unwrap() += 1;
                            thread::yield_now();
                        }
                    });
                    let child = child.unwrap();
                    scope.spawn(move || assert_eq!(child.join().is_err(), i % 2 == 0));
                }
            });
            assert_eq!(*lock.lock().unwrap(), 250);
            assert!(!thread::panicking());
        });
    }
}

#[test]
fn a_lock_is_poisoned_by_the_fiber_that_panics_under_it() {
    runtime(1).run(|| {
        let lock = Arc::new(Mutex::new(0));
        let its = lock.clone();
        let holder = thread::spawn(move || {
            let _guard = its.lock().unwrap();
            thread::yield_now();
            panic!("while it is locked");
        });
        holder.join().unwrap_err();
        assert!(lock.is_poisoned());
    });
}

#[test]
fn a_destructor_that_waits_during_a_join() {
    // The joined payload's destructor waits, in the joiner.
    struct Waits(Arc<AtomicUsize>);
    impl Drop for Waits {
        fn drop(&mut self) {
            thread::yield_now();
            thread::spawn(|| ()).join().unwrap();
            self.0.fetch_add(1, SeqCst);
        }
    }
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let dropped = Arc::new(AtomicUsize::new(0));
            let value = Waits(dropped.clone());
            drop(thread::spawn(move || panic::panic_any(value)).join().unwrap_err());
            assert_eq!(dropped.load(SeqCst), 1);
            // Detached: where the fiber ends.
            let value = Waits(dropped.clone());
            drop(thread::spawn(move || value));
            while dropped.load(SeqCst) < 2 {
                thread::yield_now();
            }
        });
    }
}

#[test]
fn a_payload_that_panics_when_it_is_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload's");
        }
    }
    runtime(1).run(|| {
        let payload = thread::spawn(|| panic::panic_any(Bomb)).join().unwrap_err();
        let caught = panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
        assert_eq!(text(&*caught.unwrap_err()), "the payload's");
        // Detached before it ends: the panic ends with the fiber, and the worker goes on.
        drop(thread::spawn(|| panic::panic_any(Bomb)));
        drop(thread::spawn(|| Bomb));
        for _ in 0..10 {
            thread::yield_now();
        }
        thread::spawn(|| ()).join().unwrap();
    });
}

/// Waits in its destructor, parked, until it is released.
struct Held {
    waiting: Arc<AtomicBool>,
    released: Arc<AtomicBool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.waiting.store(true, SeqCst);
        while !self.released.load(SeqCst) {
            thread::park();
        }
    }
}

/// A fiber that is suspended in its unwinding.
struct Unwinding {
    fiber: Option<thread::JoinHandle<()>>,
    released: Arc<AtomicBool>,
}

impl Unwinding {
    fn begin() -> Unwinding {
        let (waiting, released) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let held = Held { waiting: waiting.clone(), released: released.clone() };
        let fiber = thread::spawn(move || {
            let _held = held;
            panic!("held");
        });
        while !waiting.load(SeqCst) {
            thread::yield_now();
        }
        Unwinding { fiber: Some(fiber), released }
    }

    fn end(mut self) {
        let fiber = self.fiber.take().unwrap();
        self.released.store(true, SeqCst);
        fiber.thread().unpark();
        assert!(fiber.join().is_err());
    }
}

impl Drop for Unwinding {
    fn drop(&mut self) {
        if let Some(fiber) = &self.fiber {
            self.released.store(true, SeqCst);
            fiber.thread().unpark();
        }
    }
}

#[test]
fn neighbours_do_not_see_one_that_began_beside_another() {
    runtime(1).run(|| {
        let (first, second) = (Unwinding::begin(), Unwinding::begin());
        let lock = Mutex::new(());
        let guard = lock.lock().unwrap();
        first.end();
        assert!(!thread::panicking());
        thread::yield_now();
        assert!(!thread::panicking());
        drop(guard);
        assert!(!lock.is_poisoned());
        second.end();
        assert!(!thread::panicking());
    });
}

#[test]
fn one_that_has_unwound_is_not_taken_for_it_later() {
    runtime(1).run(|| {
        let me = thread::current();
        let waits = || {
            let released = Arc::<AtomicBool>::default();
            let its = released.clone();
            thread::spawn(move || {
                its.store(true, SeqCst);
                me.unpark();
            });
            let _held = Held { waiting: Arc::default(), released };
            panic!("caught");
        };
        assert!(panic::catch_unwind(AssertUnwindSafe(waits)).is_err());
        thread::yield_now();
        let lock = Mutex::new(());
        let guard = lock.lock().unwrap();
        let other = Unwinding::begin();
        assert!(!thread::panicking());
        drop(guard);
        assert!(!lock.is_poisoned());
        other.end();
    });
}

#[test]
fn who_unwinds_may_wait_for_one_that_only_a_cancel_ends() {
    struct Joins(Option<thread::JoinHandle<()>>);
    impl Drop for Joins {
        fn drop(&mut self) {
            assert!(self.0.take().unwrap().join().is_err());
        }
    }
    let runtime = runtime(1);
    let (waiting, is_waiting) = std::sync::mpsc::channel();
    let joiner = runtime.spawn(move || {
        let other = thread::spawn(move || {
            thread::park();
            // The joiner is suspended in its unwinding by now.
            waiting.send(()).unwrap();
            loop {
                thread::park();
            }
        });
        thread::yield_now();
        let parked = other.thread().clone();
        let _joins = Joins(Some(other));
        thread::spawn(move || parked.unpark());
        panic!("joins in its unwinding");
    });
    is_waiting.recv().unwrap();
    runtime.shutdown_timeout(Duration::MAX).unwrap();
    assert!(joiner.join().is_err());
}

#[test]
fn no_cancel_is_delivered_to_one_that_began_to_unwind_beside_another() {
    struct Tells(std::sync::mpsc::Sender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    struct Waits {
        unwinding: std::sync::mpsc::Sender<()>,
        cancelled: std::sync::mpsc::Receiver<()>,
        /// Released with this.
        _other: Unwinding,
    }
    impl Drop for Waits {
        fn drop(&mut self) {
            self.unwinding.send(()).unwrap();
            // Blocks the worker: it must not suspend before it has been cancelled.
            self.cancelled.recv().unwrap();
            // A cancel delivered here would abort.
            thread::sleep(Duration::from_micros(100));
        }
    }
    let runtime = runtime(2);
    let (tells, cancelled) = std::sync::mpsc::channel();
    let (unwinding, is_unwinding) = std::sync::mpsc::channel();
    let fiber = runtime.run(move || {
        let on = |worker| Builder::new().placement(Placement::Worker(worker));
        // Shutdown cancels the fibers of worker 1 after those of worker 0.
        let started = Arc::<AtomicBool>::default();
        let its = started.clone();
        let witness = on(1).spawn(move || {
            let _tells = Tells(tells);
            its.store(true, SeqCst);
            loop {
                thread::park();
            }
        });
        drop(witness.unwrap());
        // One that never started would be dropped, and tell nothing.
        while !started.load(SeqCst) {
            thread::yield_now();
        }
        let both = on(0).spawn(move || {
            let _waits = Waits { unwinding, cancelled, _other: Unwinding::begin() };
            panic!("unwinds beside another");
        });
        both.unwrap()
    });
    is_unwinding.recv().unwrap();
    runtime.shutdown_timeout(Duration::MAX).unwrap();
    assert_eq!(text(&*fiber.join().unwrap_err()), "unwinds beside another");
}

#[test]
fn who_panics_beside_one_that_unwinds_is_known() {
    struct Asks(Arc<Mutex<()>>, Arc<AtomicUsize>);
    impl Drop for Asks {
        fn drop(&mut self) {
            for _ in 0..3 {
                assert!(thread::panicking());
                // Locked in the unwinding, so it is not poisoned by it.
                drop(self.0.lock());
                thread::yield_now();
            }
            self.1.fetch_add(1, SeqCst);
        }
    }
    runtime(1).run(|| {
        let first = Unwinding::begin();
        let (held, free) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
        let asked = Arc::<AtomicUsize>::default();
        let fibers = [0, 1, 2].map(|_| {
            let (held, free, asked) = (held.clone(), free.clone(), asked.clone());
            thread::spawn(move || {
                let _guard = held.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let _asks = Asks(free, asked);
                panic!("beside another");
            })
        });
        while asked.load(SeqCst) < 3 {
            assert!(!thread::panicking());
            thread::yield_now();
        }
        for fiber in fibers {
            assert_eq!(text(&*fiber.join().unwrap_err()), "beside another");
        }
        assert!(held.is_poisoned() && !free.is_poisoned());
        // Nor does one that has caught its panic still unwind.
        let caught = panic::catch_unwind(|| panic!("caught beside another"));
        assert!(caught.is_err() && !thread::panicking() && std::thread::panicking());
        first.end();
    });
}

#[test]
fn no_cancel_is_delivered_to_one_that_began_beside_another_though_nothing_else_is_left() {
    struct Receives(mpsc::Receiver<()>);
    impl Drop for Receives {
        fn drop(&mut self) {
            // A cancel delivered here would abort.
            self.0.recv().unwrap();
        }
    }
    let runtime = runtime(1);
    let (release, released) = mpsc::channel();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let fiber = runtime.spawn(move || {
        let _receives = Receives(released);
        let _other = Unwinding::begin();
        thread::spawn(move || begun.send(()).unwrap());
        panic!("unwinds beside another");
    });
    has_begun.recv().unwrap();
    // It cancels all that waits, and waits for none.
    runtime.shutdown_timeout(Duration::ZERO).unwrap_err();
    std::thread::yield_now();
    release.send(()).unwrap();
    assert_eq!(text(&*fiber.join().unwrap_err()), "unwinds beside another");
}

#[test]
fn no_cancel_is_delivered_beneath_what_no_panic_may_leave() {
    extern "C" fn callback(wait: &Wait) {
        (wait.0)();
    }
    struct Wait(Box<dyn Fn()>);
    let runtime = runtime(1);
    let (release, released) = mpsc::channel();
    let (waits, is_waiting) = std::sync::mpsc::channel();
    let returned = Arc::new(AtomicBool::new(false));
    let its = returned.clone();
    let fiber = runtime.spawn(move || {
        thread::spawn(move || waits.send(()).unwrap());
        callback(&Wait(Box::new(move || released.recv().unwrap())));
        its.store(true, SeqCst);
        loop {
            thread::park();
        }
    });
    is_waiting.recv().unwrap();
    runtime.shutdown_timeout(Duration::ZERO).unwrap_err();
    assert!(!fiber.is_finished());
    release.send(()).unwrap();
    assert!(fiber.join().unwrap_err().is::<Cancelled>());
    assert!(returned.load(SeqCst));
}

#[test]
fn no_cancel_is_delivered_while_unwinding() {
    struct Waits(std::sync::mpsc::Sender<()>, Arc<AtomicBool>);
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            // Long enough for the shutdown to come; a cancel delivered here would abort.
            for _ in 0..100 {
                thread::sleep(Duration::from_micros(100));
            }
            self.1.store(true, SeqCst);
        }
    }
    let runtime = runtime(1);
    let (unwinding, is_unwinding) = std::sync::mpsc::channel();
    let to_its_end = Arc::new(AtomicBool::new(false));
    let waits = Waits(unwinding, to_its_end.clone());
    let fiber = runtime.spawn(move || {
        let _waits = waits;
        panic!("unwinds slowly");
    });
    is_unwinding.recv().unwrap();
    runtime.shutdown_timeout(Duration::MAX).unwrap();
    assert!(to_its_end.load(SeqCst));
    assert_eq!(text(&*fiber.join().unwrap_err()), "unwinds slowly");
}
