//! RwLock: who is served when, and what a cancelled waiter leaves behind.

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::{Kind, Local, at, let_others_run, on_one_worker, runtime, start, stress};
use strands_sched::{Cancelled, spawn_on, with_current_task, yield_now};
use strands_sync::{RwLock, RwLockWriteGuard};

/// What a party does with a lock, noted in a common list when it gets it.
struct Line {
    lock: RwLock<()>,
    served: RefCell<Vec<&'static str>>,
    /// While it is set, readers keep the lock.
    reading: Cell<bool>,
}

impl Line {
    fn new() -> Rc<Line> {
        Rc::new(Line {
            lock: RwLock::new(()),
            served: RefCell::default(),
            reading: Cell::new(false),
        })
    }

    fn reader(self: &Rc<Line>, name: &'static str) -> Local<()> {
        let line = self.clone();
        Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            let _guard = line.lock.read().unwrap();
            line.served.borrow_mut().push(name);
            while line.reading.get() {
                yield_now();
            }
        })
    }

    fn writer(self: &Rc<Line>, name: &'static str) -> Local<()> {
        let line = self.clone();
        Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            let _guard = line.lock.write().unwrap();
            line.served.borrow_mut().push(name);
        })
    }
}

#[test]
fn serves_in_order_and_readers_together() {
    on_one_worker(|| {
        let line = Line::new();
        let held = line.lock.write().unwrap();
        let others = [
            line.reader("r1"),
            line.reader("r2"),
            line.writer("w1"),
            line.reader("r3"),
            line.writer("w2"),
            line.reader("r4"),
        ];
        let_others_run();
        assert!(line.served.borrow().is_empty());
        line.reading.set(true);
        drop(held);
        let_others_run();
        assert_eq!(*line.served.borrow(), ["r1", "r2"], "not the reader behind a writer");
        line.reading.set(false);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(*line.served.borrow(), ["r1", "r2", "w1", "r3", "w2", "r4"]);
        assert!(line.lock.try_write().is_ok());
    });
}

/// A stream of readers who overlap: without an order the lock would never be free.
#[test]
fn readers_do_not_starve_a_writer() {
    on_one_worker(|| {
        let line = Line::new();
        line.reading.set(true);
        let first = line.reader("early");
        let writer = line.writer("writer");
        assert!(line.lock.try_read().is_err(), "a newcomer does not pass the writer");
        let late: Vec<_> = (0..10).map(|_| line.reader("late")).collect();
        let_others_run();
        assert_eq!(*line.served.borrow(), ["early"]);
        line.reading.set(false);
        first.join().unwrap();
        writer.join().unwrap();
        late.into_iter().for_each(|late| late.join().unwrap());
        assert_eq!(line.served.borrow()[..3], ["early", "writer", "late"]);
    });
}

/// Two writers who take the lock again at once, in turns and for ever.
#[test]
fn writers_do_not_starve_a_reader() {
    on_one_worker(|| {
        let lock = Rc::new(RwLock::new(()));
        let read = Rc::new(Cell::new(false));
        let writers = [0, 1].map(|_| {
            let (lock, read) = (lock.clone(), read.clone());
            Local::until_it_waits(move |about_to_wait| {
                while !read.get() {
                    let _guard = lock.write().unwrap();
                    about_to_wait();
                    yield_now();
                }
            })
        });
        drop(lock.read().unwrap());
        read.set(true);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
}

#[test]
fn a_writer_that_was_overtaken_is_handed_the_lock() {
    on_one_worker(|| {
        let lock = Rc::new(RwLock::new(0));
        let held = lock.write().unwrap();
        let its = lock.clone();
        let writer = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            *its.write().unwrap() += 1;
        });
        let_others_run();
        drop(held); // It is woken,
        let held = lock.write().unwrap(); // but we are faster.
        let_others_run();
        assert_eq!(*held, 0);
        drop(held); // Now it is handed over.
        assert!(lock.try_write().is_err() && lock.try_read().is_err());
        writer.join().unwrap();
        assert_eq!(*lock.try_read().unwrap(), 1);
    });
}

/// Each of them stays until both are in.
#[test]
fn readers_that_were_overtaken_are_handed_the_lock_together() {
    on_one_worker(|| {
        let line = Line::new();
        line.reading.set(true);
        let held = line.lock.write().unwrap();
        let readers = ["r1", "r2"].map(|name| line.reader(name));
        drop(held); // The first is woken,
        let held = line.lock.try_write().expect("who comes by may take it");
        let_others_run();
        assert!(line.served.borrow().is_empty());
        drop(held); // Now it is handed over.
        assert!(line.lock.try_write().is_err());
        let_others_run();
        assert_eq!(*line.served.borrow(), ["r1", "r2"]);
        line.reading.set(false);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert!(line.lock.try_write().is_ok());
    });
}

/// The first is woken and finds the lock free: it lets in the one behind it.
#[test]
fn readers_that_were_woken_are_in_together() {
    on_one_worker(|| {
        let line = Line::new();
        line.reading.set(true);
        let held = line.lock.write().unwrap();
        let readers = ["r1", "r2"].map(|name| line.reader(name));
        drop(held);
        drop(line.lock.read().expect("who comes by may read too"));
        let_others_run();
        assert_eq!(*line.served.borrow(), ["r1", "r2"]);
        assert!(line.lock.try_read().is_ok(), "nobody waits");
        line.reading.set(false);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

/// The first in line is woken but its worker computes; the second must not wait for that, though readers who
/// overlap go before it.
#[test]
fn the_next_is_woken_if_the_first_does_not_come() {
    let runtime = runtime(2);
    let lock = Arc::new(RwLock::new(()));
    let held = lock.write().unwrap();
    let in_line = |worker: usize, then: Box<dyn FnOnce() + Send>| {
        let its = lock.clone();
        let writer = start(runtime.shared(), Kind::Fiber(worker), move || drop(its.write()));
        let (says, said) = std::sync::mpsc::channel();
        // It comes after the writer on its worker.
        let after = start(runtime.shared(), Kind::Fiber(worker), move || {
            says.send(()).unwrap();
            then();
        });
        said.recv().unwrap();
        (writer, after)
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let computes = is_over.clone();
    let compute = move || {
        while !computes.load(SeqCst) {
            std::hint::spin_loop();
        }
    };
    let (first, busy) = in_line(0, Box::new(compute));
    let (second, after) = in_line(1, Box::new(|| {}));
    drop(held);
    let mut reads = lock.try_read().expect("who comes by may read");
    while let Ok(also_reads) = lock.try_read() {
        reads = also_reads;
    }
    drop(reads); // Somebody came and was too late: it is handed over.
    second().unwrap();
    is_over.store(true, SeqCst);
    for other in [first, busy, after] {
        other().unwrap();
    }
}

#[test]
fn readers_behind_a_writer_that_is_cancelled_go_in() {
    let runtime = runtime(1);
    let lock = Arc::new(RwLock::new(()));
    runtime
        .run(at(0), || {
            let held = lock.read().unwrap();
            let its = lock.clone();
            let writer = spawn_on(runtime.shared(), at(0), move || drop(its.write())).unwrap();
            let_others_run();
            let its = lock.clone();
            let reader = spawn_on(runtime.shared(), at(0), move || drop(its.read())).unwrap();
            let_others_run();
            assert!(!reader.is_finished(), "it is behind the writer");
            writer.task().cancel();
            assert!(writer.join().unwrap_err().is::<Cancelled>());
            // While we hold it still.
            reader.join().unwrap();
            drop(lock.try_read().expect("nobody waits"));
            drop(held);
            assert!(lock.try_write().is_ok() && !lock.is_poisoned());
        })
        .unwrap();
}

#[test]
fn a_cancelled_reader_holds_nobody_up() {
    let runtime = runtime(1);
    let lock = Arc::new(RwLock::new(0));
    runtime
        .run(at(0), || {
            let held = lock.write().unwrap();
            let its = lock.clone();
            let reader = spawn_on(runtime.shared(), at(0), move || drop(its.read())).unwrap();
            let its = lock.clone();
            let_others_run();
            let writer =
                spawn_on(runtime.shared(), at(0), move || *its.write().unwrap() += 1).unwrap();
            let_others_run();
            reader.task().cancel();
            assert!(reader.join().unwrap_err().is::<Cancelled>());
            drop(held);
            writer.join().unwrap();
            assert_eq!(*lock.try_read().unwrap(), 1);
        })
        .unwrap();
}

#[test]
fn a_cancel_that_comes_after_the_lock_is_kept_for_later() {
    let runtime = runtime(1);
    runtime
        .run(at(0), || {
            let lock = RwLock::new(0);
            with_current_task(|me| me.cancel());
            // Free: nothing to wait for, so no cancel.
            *lock.write().unwrap() += 1;
            assert_eq!(*lock.read().unwrap(), 1);
            let caught = std::panic::catch_unwind(yield_now);
            assert!(caught.unwrap_err().is::<Cancelled>());
        })
        .unwrap();
}

/// A cancel unwinds a writer in the middle of its work: that is not a panic.
#[test]
fn a_cancel_does_not_poison() {
    let runtime = runtime(1);
    let lock = Arc::new(RwLock::new(0));
    runtime
        .run(at(0), || {
            let its = lock.clone();
            let writer = spawn_on(runtime.shared(), at(0), move || {
                let _guard = its.write().unwrap();
                strands_sched::sleep_until(None);
            })
            .unwrap();
            let_others_run();
            assert!(lock.try_read().is_err());
            writer.task().cancel();
            assert!(writer.join().unwrap_err().is::<Cancelled>());
            assert_eq!(*lock.read().unwrap(), 0);
        })
        .unwrap();
}

#[test]
fn a_downgrade_lets_in_readers_behind_a_writer() {
    on_one_worker(|| {
        let line = Line::new();
        line.reading.set(true);
        let held = line.lock.write().unwrap();
        let others = [line.reader("r1"), line.writer("w"), line.reader("r2")];
        let_others_run();
        let reads = RwLockWriteGuard::downgrade(held);
        let_others_run();
        assert_eq!(*line.served.borrow(), ["r1", "r2"]);
        line.reading.set(false);
        let_others_run();
        assert_eq!(*line.served.borrow(), ["r1", "r2"], "we read still");
        drop(reads);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(*line.served.borrow(), ["r1", "r2", "w"]);
    });
}

/// Readers, writers, those who try, downgrade, and are cancelled, on threads and two workers.
#[test]
fn holds_under_everything_at_once() {
    let runtime = runtime(2);
    let lock = Arc::new(RwLock::new((0usize, 0usize)));
    let (written, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let rounds = 300 * stress();
    let mut started = Vec::new();
    for (i, kind) in
        [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1), Kind::Fiber(0), Kind::Thread, Kind::Fiber(1)]
            .into_iter()
            .enumerate()
    {
        let (lock, written) = (lock.clone(), written.clone());
        started.push(start(runtime.shared(), kind, move || {
            for round in 0..rounds {
                if (round + i) % 3 == 0 {
                    let mut both = lock.write().unwrap();
                    both.0 += 1;
                    if round % 2 == 0 {
                        yield_now();
                    }
                    both.1 += 1;
                    written.fetch_add(1, SeqCst);
                    if round % 5 == 0 {
                        let both = RwLockWriteGuard::downgrade(both);
                        assert_eq!(both.0, both.1);
                    }
                } else {
                    let both = lock.read().unwrap();
                    assert_eq!(both.0, both.1, "a reader beside a writer");
                    if round % 7 == 0 {
                        yield_now();
                    }
                }
                if let Ok(both) = lock.try_read() {
                    assert_eq!(both.0, both.1);
                }
            }
        }));
    }
    // Beside them, fibers that are cancelled wherever they are.
    let canceller = {
        let (lock, stop, shared) = (lock.clone(), stop.clone(), runtime.shared().clone());
        std::thread::spawn(move || {
            let mut round = 0;
            while !stop.load(SeqCst) {
                round += 1;
                let lock = lock.clone();
                let victim = spawn_on(&shared, at(round % 2), move || {
                    loop {
                        if round % 3 == 0 { drop(lock.write()) } else { drop(lock.read()) }
                    }
                })
                .unwrap();
                (0..round % 50).for_each(|_| std::thread::yield_now());
                victim.task().cancel();
                assert!(victim.join().unwrap_err().is::<Cancelled>());
            }
        })
    };
    started.into_iter().for_each(|started| started().unwrap());
    stop.store(true, SeqCst);
    canceller.join().unwrap();
    let both = lock.try_write().expect("nobody has it, nobody waits");
    assert_eq!((both.0, both.1), (written.load(SeqCst), written.load(SeqCst)));
}
