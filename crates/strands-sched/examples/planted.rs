//! Mistakes, made on purpose in fibers: `cargo xtask sanitize` runs each under its tool and fails
//! unless the tool reports it. That the tests pass under a tool shows nothing if the tool is blind.
//!
//! ```text
//! cargo run -p strands-sched --example planted -- NAME
//! ```

use std::cell::{Cell, UnsafeCell};
use std::hint::{black_box, spin_loop};
use std::process::ExitCode;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering::Relaxed};

use strands_sched::{Builder, Join, Placement, Runtime, SpawnOptions, spawn_on, yield_now};

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    match &*name {
        "use-after-free" => use_after_free(),
        "use-after-return" => use_after_return(),
        "neighbour" => neighbour(),
        "race" => race(),
        "no-race" => no_race(),
        _ => {
            eprintln!("usage: planted use-after-free|use-after-return|neighbour|race|no-race");
            return ExitCode::from(2);
        }
    }
    println!("went on to the end");
    ExitCode::SUCCESS
}

/// Memory of the heap that is freed before one suspension and used after it.
fn use_after_free() {
    let runtime = Builder::new().workers(1).build().unwrap();
    let other = spawn(&runtime, 0, || (0..10).for_each(|_| yield_now()));
    let wrong = spawn(&runtime, 0, || {
        let value = Box::into_raw(Box::new(1_u64));
        yield_now();
        // SAFETY: it is a box's.
        drop(unsafe { Box::from_raw(value) });
        yield_now();
        // SAFETY: none: this is the mistake.
        black_box(unsafe { value.read_volatile() });
    });
    join([other, wrong]);
}

/// A local that is used after its function has returned, with a suspension in between.
fn use_after_return() {
    #[inline(never)]
    fn publish(address: &Cell<*const u64>) {
        let local = black_box(7_u64);
        address.set(black_box(&local));
        yield_now();
    }
    let runtime = Builder::new().workers(1).build().unwrap();
    let other = spawn(&runtime, 0, || (0..10).for_each(|_| yield_now()));
    let wrong = spawn(&runtime, 0, || {
        let address = Cell::new(ptr::null());
        publish(&address);
        yield_now();
        // SAFETY: none: this is the mistake.
        black_box(unsafe { address.get().read_volatile() });
    });
    join([other, wrong]);
}

/// One fiber writes just past a local of another that is suspended.
fn neighbour() {
    static LOCAL: AtomicPtr<[u8; 64]> = AtomicPtr::new(ptr::null_mut());
    static DONE: AtomicBool = AtomicBool::new(false);
    let runtime = Builder::new().workers(1).build().unwrap();
    let victim = spawn(&runtime, 0, || {
        let mut local = black_box([0; 64]);
        LOCAL.store(&mut local, Relaxed);
        while !DONE.load(Relaxed) {
            yield_now();
        }
        black_box(&local);
    });
    let wrong = spawn(&runtime, 0, || {
        while LOCAL.load(Relaxed).is_null() {
            yield_now();
        }
        // SAFETY: none: this is the mistake.
        unsafe { *LOCAL.load(Relaxed).add(1).cast::<u8>() = 1 };
        DONE.store(true, Relaxed);
    });
    join([victim, wrong]);
}

/// Two fibers of two workers write to one place, and nothing orders them.
fn race() {
    static ARRIVED: AtomicU32 = AtomicU32::new(0);
    let runtime = Builder::new().workers(2).build().unwrap();
    let place = Arc::new(Place(UnsafeCell::new(0)));
    let fibers = [0, 1].map(|worker| {
        let place = place.clone();
        spawn(&runtime, worker, move || {
            ARRIVED.fetch_add(1, Relaxed);
            while ARRIVED.load(Relaxed) < 2 {
                spin_loop();
            }
            (0..100).for_each(|_| place.count());
        })
    });
    join(fibers);
}

/// Two fibers of one worker write to one place in turn, which is right.
fn no_race() {
    let runtime = Builder::new().workers(2).build().unwrap();
    let place = Arc::new(Place(UnsafeCell::new(0)));
    let fibers = [0, 1].map(|_| {
        let place = place.clone();
        spawn(&runtime, 0, move || {
            for _ in 0..100 {
                place.count();
                yield_now();
            }
        })
    });
    join(fibers);
    // SAFETY: both fibers have ended.
    assert_eq!(unsafe { *place.0.get() }, 200);
}

struct Place(UnsafeCell<u64>);

// SAFETY: none for `race`: this is the mistake. In `no_race` one thread uses it at a time.
unsafe impl Sync for Place {}
// SAFETY: a number may go anywhere.
unsafe impl Send for Place {}

impl Place {
    fn count(&self) {
        // SAFETY: as for `Sync`.
        unsafe { *self.0.get() += 1 }
    }
}

fn spawn(runtime: &Runtime, worker: usize, f: impl FnOnce() + Send + 'static) -> Join<()> {
    let options = SpawnOptions { placement: Placement::Worker(worker), ..SpawnOptions::default() };
    spawn_on(runtime.shared(), options, f).unwrap()
}

fn join(fibers: [Join<()>; 2]) {
    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
}
