//! `strands::thread_local!` where std's says nothing: pools, hooks, cancels, scopes, forks. What both
//! do is in `mirror/local.rs`.
//!
//! The allocator of this program counts by such a key itself, in all tests.
#![allow(clippy::missing_const_for_thread_local, reason = "both forms are meant")]

mod thread_common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc as std_mpsc};

use strands::sync::{Mutex, mpsc};
use strands::thread::{self, LocalKey};
use strands::{Runtime, cancel, unblock};
use thread_common::{child, child_case, errors, runtime};

struct Counting;

strands::thread_local!(static ALLOCATED: Cell<usize> = const { Cell::new(0) });

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|bytes| bytes.set(bytes.get() + layout.size()));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn an_allocator_may_count_by_fiber() {
    runtime(1).run(|| {
        let before = ALLOCATED.get();
        let other = thread::spawn(|| {
            let before = ALLOCATED.get();
            drop(std::hint::black_box(vec![0u8; 100_000]));
            thread::yield_now();
            ALLOCATED.get() - before
        });
        let other = other.join().unwrap();
        assert!((100_000..110_000).contains(&other), "{other}");
        assert!(ALLOCATED.get() - before < 10_000, "what the other allocated was counted here");
    });
}

/// Sends when it is dropped.
struct Note<T: Copy>(T, std_mpsc::Sender<T>);

impl<T: Copy> Drop for Note<T> {
    fn drop(&mut self) {
        self.1.send(self.0).unwrap();
    }
}

#[test]
fn in_the_pool_they_are_the_threads() {
    strands::thread_local!(static KEY: Cell<u32> = const { Cell::new(0) });
    strands::thread_local!(static NOTE: RefCell<Option<Note<u32>>> = const { RefCell::new(None) });
    let (sender, dropped) = std_mpsc::channel();
    let runtime = runtime(1);
    runtime.run(|| {
        KEY.set(1);
        let (os_thread, fresh) = unblock(|| {
            NOTE.set(Some(Note(7, sender)));
            (std::thread::current().id(), KEY.replace(2))
        });
        assert_ne!(os_thread, std::thread::current().id(), "the pool had no thread");
        assert_eq!((fresh, KEY.get()), (0, 1));
        // The thread is kept, and its values with it.
        let again = unblock(|| (std::thread::current().id(), KEY.get()));
        assert!(again == (os_thread, 2) || again.0 != os_thread, "{again:?}");
    });
    drop(runtime);
    assert_eq!(dropped.recv(), Ok(7), "destroyed with the pool's thread");
}

#[test]
fn on_a_plain_thread_unblock_changes_nothing() {
    strands::thread_local!(static KEY: Cell<u32> = const { Cell::new(0) });
    KEY.set(1);
    assert_eq!(unblock(|| KEY.replace(2)), 1);
    assert_eq!(KEY.get(), 2);
}

#[test]
fn in_hooks_they_are_the_workers() {
    strands::thread_local!(static KEY: Cell<u32> = const { Cell::new(0) });
    let (sender, receiver) = std_mpsc::channel();
    let runtime = Runtime::builder()
        .workers(1)
        .on_start(|| KEY.set(5))
        .on_stop(move || sender.send(KEY.get()).unwrap())
        .build()
        .unwrap();
    assert_eq!(runtime.run(|| KEY.replace(6)), 0, "a fiber is not its worker");
    assert_eq!(runtime.run(|| KEY.get()), 0, "nor another fiber");
    drop(runtime);
    assert_eq!(receiver.recv(), Ok(5));
}

#[test]
fn a_fiber_sees_nothing_of_the_thread_that_waits_for_it() {
    strands::thread_local!(static KEY: Cell<u32> = const { Cell::new(0) });
    KEY.set(1);
    assert_eq!(runtime(1).run(|| KEY.replace(2)), 0);
    assert_eq!(KEY.get(), 1);
}

#[test]
fn on_a_plain_thread_they_go_in_one_order_with_stds() {
    strands::thread_local! {
        static FIRST: RefCell<Option<Note<u8>>> = const { RefCell::new(None) };
        static THIRD: RefCell<Option<Note<u8>>> = RefCell::new(None);
    }
    std::thread_local! {
        static SECOND: RefCell<Option<Note<u8>>> = const { RefCell::new(None) };
        static FOURTH: RefCell<Option<Note<u8>>> = RefCell::new(None);
    }
    let (sender, receiver) = std_mpsc::channel();
    std::thread::spawn(move || {
        FIRST.set(Some(Note(1, sender.clone())));
        thread::park_timeout(std::time::Duration::ZERO); // From here on strands knows the thread.
        SECOND.set(Some(Note(2, sender.clone())));
        THIRD.set(Some(Note(3, sender.clone())));
        FOURTH.set(Some(Note(4, sender)));
    })
    .join()
    .unwrap();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [4, 3, 2, 1]);
}

#[test]
fn a_destructor_on_a_plain_thread_may_wait_when_strands_own_are_gone() {
    struct Waits(Arc<AtomicBool>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let flag = self.0.clone();
            thread::spawn(move || flag.store(KEY.try_with(|_| ()).is_ok(), SeqCst)).join().unwrap();
            assert!(KEY.try_with(|_| ()).is_err());
        }
    }
    strands::thread_local!(static KEY: RefCell<Option<Waits>> = const { RefCell::new(None) });
    let done = Arc::new(AtomicBool::new(false));
    let its = done.clone();
    // Made before the thread's header, and so destroyed after it.
    std::thread::spawn(move || {
        KEY.set(Some(Waits(its)));
        thread::yield_now();
        thread::current();
    })
    .join()
    .unwrap();
    assert!(done.load(SeqCst));
}

#[test]
fn a_scope_and_is_finished_wait_for_destructors() {
    strands::thread_local!(static KEY: RefCell<Option<Slow>> = const { RefCell::new(None) });
    struct Slow(Arc<AtomicBool>);
    impl Drop for Slow {
        fn drop(&mut self) {
            (0..20).for_each(|_| thread::yield_now());
            self.0.store(true, SeqCst);
        }
    }
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let done = Arc::new(AtomicBool::new(false));
            let its = done.clone();
            thread::scope(|scope| {
                scope.spawn(move || KEY.set(Some(Slow(its))));
            });
            assert!(done.load(SeqCst));

            let done = Arc::new(AtomicBool::new(false));
            let its = done.clone();
            let handle = thread::spawn(move || KEY.set(Some(Slow(its))));
            while !handle.is_finished() {
                thread::yield_now();
            }
            assert!(done.load(SeqCst));
        });
    }
}

#[test]
fn destructors_of_cancelled_fibers_use_locks_and_channels() {
    struct Goodbye {
        mutex: Arc<Mutex<u32>>,
        out: mpsc::Sender<u32>,
        wait: mpsc::Receiver<u32>,
    }
    impl Drop for Goodbye {
        fn drop(&mut self) {
            assert!(!thread::panicking(), "the unwinding is over");
            let n = self.wait.recv().unwrap();
            *self.mutex.lock().expect("a cancel poisons nothing") += n;
            self.out.send(n).unwrap();
        }
    }
    strands::thread_local!(static KEY: RefCell<Option<Goodbye>> = const { RefCell::new(None) });
    for workers in [1, 3] {
        let runtime = runtime(workers);
        let mutex = Arc::new(Mutex::new(0));
        let (out, all) = mpsc::channel();
        let (begun, begins) = std_mpsc::channel();
        let mut senders = Vec::new();
        for _ in 0..10 {
            let (sender, wait) = mpsc::channel();
            senders.push(sender);
            let (mutex, out, begun) = (mutex.clone(), out.clone(), begun.clone());
            runtime.spawn(move || {
                KEY.set(Some(Goodbye { mutex, out, wait }));
                begun.send(()).unwrap();
                thread::park();
                unreachable!("nobody unparks it");
            });
        }
        drop(out);
        (0..10).for_each(|_| begins.recv().unwrap());
        let stopper = std::thread::spawn(move || drop(runtime));
        senders.into_iter().zip(1..).for_each(|(sender, n)| sender.send(n).unwrap());
        assert_eq!(all.iter().sum::<u32>(), 55);
        stopper.join().unwrap();
        assert_eq!(*mutex.lock().unwrap(), 55);
    }
}

#[test]
fn a_value_may_be_used_across_waits_and_shields() {
    strands::thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });
    runtime(1).run(|| {
        let fibers: Vec<_> = (0..100u32)
            .map(|i| {
                thread::spawn(move || {
                    DEPTH.with(|depth| {
                        for _ in 0..=i % 10 {
                            depth.set(depth.get() + 1);
                            cancel::uncancellable(thread::yield_now);
                        }
                        depth.get()
                    })
                })
            })
            .collect();
        let sum: u32 = fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum();
        assert_eq!(sum, 10 * 55);
    });
}

#[test]
fn local_fibers_have_their_own() {
    strands::thread_local!(static KEY: Cell<u32> = const { Cell::new(0) });
    runtime(1).run(|| {
        KEY.set(1);
        assert_eq!(strands::spawn_local(|| KEY.replace(2)).join().unwrap(), 0);
        assert_eq!(KEY.get(), 1);
    });
}

#[test]
fn a_key_costs_only_those_who_use_it() {
    strands::thread_local!(static KEY: Cell<[u64; 4]> = const { Cell::new([0; 4]) });
    static INITS: AtomicUsize = AtomicUsize::new(0);
    strands::thread_local!(static COUNTED: Box<u8> = {
        INITS.fetch_add(1, SeqCst);
        Box::new(1)
    });
    runtime(2).run(|| {
        let fibers: Vec<_> = (0..50)
            .map(|i| {
                thread::spawn(move || {
                    if i % 10 == 0 {
                        COUNTED.with(|_| ())
                    }
                })
            })
            .collect();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    });
    assert_eq!(INITS.load(SeqCst), 5);
    assert_eq!(KEY.take(), [0; 4]);
}

/// Says so on standard error when it is dropped.
struct Noisy(&'static str);

impl Drop for Noisy {
    fn drop(&mut self) {
        thread::yield_now(); // It is a fiber's, which may wait.
        eprintln!("{} dropped by {:?}", self.0, thread::current().name());
    }
}

fn noisy(key: &'static LocalKey<RefCell<Option<Noisy>>>, text: &'static str) {
    key.set(Some(Noisy(text)));
}

#[test]
fn the_main_fiber_destroys_its_values_before_the_process_ends() {
    strands::thread_local!(static KEY: RefCell<Option<Noisy>> = const { RefCell::new(None) });
    if child_case().is_some() {
        #[strands::main]
        fn main() -> std::process::ExitCode {
            noisy(&KEY, "main's");
            std::process::ExitCode::from(7)
        }
        assert_eq!(main(), std::process::ExitCode::from(7));
        eprintln!("main has ended");
        return;
    }
    let test = "the_main_fiber_destroys_its_values_before_the_process_ends";
    let output = child(test, "main").output().unwrap();
    let text = errors(&output);
    let (dropped, ended) = (text.find("main's dropped by Some(\"main\")"), text.find("has ended"));
    assert!(dropped.is_some() && dropped < ended, "{text}");
}
