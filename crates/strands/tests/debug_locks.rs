//! What dumps say of locks that nobody waits for. The switch is the process's, so the tests take turns.

mod thread_common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use serde_json::Value;
use strands::debug::{dump, track_locks};
use strands::sync::{Barrier, Condvar, Mutex, RwLock, RwLockWriteGuard, channel, mpsc};
use strands::thread::{self, Builder};
use thread_common::{runtime, stress};

/// Lets one test at a time run. The switch is on meanwhile, and nothing is held before and after.
fn tracked<R>(test: impl FnOnce() -> R) -> R {
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    assert_eq!(holds(), BTreeMap::new());
    let text = dump().to_string();
    assert!(text.contains("call strands::debug::track_locks(true)"), "{text}");
    assert!(!track_locks(true));
    let result = test();
    assert_eq!(holds(), BTreeMap::new(), "nothing is held any more");
    assert!(track_locks(false));
    result
}

/// Who holds what, such as `RwLock::read`, in the order of taking; each by its name, or `ended`.
fn holds() -> BTreeMap<String, Vec<String>> {
    let json: Value = serde_json::from_str(&dump().to_json()).expect("a dump is JSON");
    let fibers = json["runtimes"].as_array().unwrap().iter();
    let fibers = fibers.flat_map(|runtime| runtime["fibers"].as_array().unwrap());
    let fibers =
        fibers.map(|fiber| (fiber["name"].as_str().unwrap_or("nameless"), &fiber["holds"]));
    let others = json["other_holders"].as_array().unwrap().iter();
    let others = others.map(|other| (other["thread"].as_str().unwrap_or("ended"), &other["holds"]));
    let mut all = BTreeMap::<String, Vec<String>>::new();
    for (name, holds) in fibers.chain(others) {
        for hold in holds.as_array().unwrap() {
            let operation = hold["operation"].as_str().unwrap();
            let shared = if operation == "RwLock::read" { "shared" } else { "exclusive" };
            assert_eq!(hold["mode"], shared);
            assert!(hold["held_ns"].as_u64().is_some(), "{hold}");
            all.entry(name.into()).or_default().push(operation.into());
        }
    }
    all
}

fn expect<const N: usize>(expected: [(&str, &[&str]); N]) {
    let owned = |operations: &[&str]| operations.iter().map(|it| String::from(*it)).collect();
    let expected = expected.into_iter().map(|(name, its)| (String::from(name), owned(its)));
    assert_eq!(holds(), expected.collect::<BTreeMap<String, Vec<String>>>());
}

/// Waits until it is so, and lets others run.
fn when(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

fn is_parked_in(operation: &str) -> bool {
    let json: Value = serde_json::from_str(&dump().to_json()).unwrap();
    let fibers = json["runtimes"].as_array().unwrap().iter();
    let mut fibers = fibers.flat_map(|runtime| runtime["fibers"].as_array().unwrap());
    fibers.any(|fiber| fiber["wait"]["operation"] == operation)
}

fn meet(barrier: &Barrier, times: usize) {
    for _ in 0..times {
        barrier.wait();
    }
}

fn named(name: &str) -> Builder {
    Builder::new().name(name.into())
}

const MUTEX: &str = "Mutex::lock";
const READ: &str = "RwLock::read";
const WRITE: &str = "RwLock::write";

/// Runs `test` in a fiber of one worker that is called `me`.
fn by_me(test: impl FnOnce() + Send + 'static) {
    runtime(1).run(|| named("me").spawn(test).unwrap().join().unwrap());
}

#[test]
fn who_holds_what_nobody_waits_for_is_listed() {
    let each = || {
        let (mutex, rwlock) = (Mutex::new(()), RwLock::new(()));
        let guard = mutex.lock().unwrap();
        expect([("me", &[MUTEX])]);
        let text = dump().to_string();
        assert!(text.contains("    holds the Mutex 0x") && !text.contains("track_locks"), "{text}");
        let reads = rwlock.read().unwrap();
        expect([("me", &[MUTEX, READ])]);
        let text = dump().to_string();
        assert!(text.contains("    holds the RwLock 0x") && text.contains(" for reading, for "));
        let reads_too = rwlock.try_read().unwrap();
        expect([("me", &[MUTEX, READ, READ])]);
        assert!(rwlock.try_write().is_err() && mutex.try_lock().is_err());
        drop((guard, reads));
        expect([("me", &[READ])]);
        drop(reads_too);
        expect([]);
        let writes = rwlock.write().unwrap();
        expect([("me", &[WRITE])]);
        assert!(dump().to_string().contains(" for writing, for "));
        let reads = RwLockWriteGuard::downgrade(writes);
        expect([("me", &[READ])]);
        drop(reads);
        let (tries, writes) = (mutex.try_lock().unwrap(), rwlock.try_write().unwrap());
        expect([("me", &[MUTEX, WRITE])]);
        drop((tries, writes));
        expect([]);
    };
    tracked(|| {
        by_me(each);
        std::thread::Builder::new().name("me".into()).spawn(each).unwrap().join().unwrap();
    });
}

#[test]
fn readers_of_many_parties_are_listed_each() {
    tracked(|| {
        let lock = Arc::new(RwLock::new(()));
        let barrier = Arc::new(Barrier::new(4));
        let read = || {
            let (lock, barrier) = (lock.clone(), barrier.clone());
            move || {
                let reads = lock.read().unwrap();
                meet(&barrier, 2);
                drop(reads);
                meet(&barrier, 2);
            }
        };
        let runtime = runtime(2);
        let fibers = runtime.run(|| ["one", "two"].map(|name| named(name).spawn(read()).unwrap()));
        let thread = std::thread::Builder::new().name("three".into()).spawn(read()).unwrap();
        barrier.wait();
        expect([("one", &[READ]), ("two", &[READ]), ("three", &[READ])]);
        meet(&barrier, 2);
        expect([]);
        drop(lock.write().unwrap()); // The share of the books has gone too.
        barrier.wait();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        thread.join().unwrap();
    });
}

#[test]
fn a_lock_that_is_handed_on_is_listed_with_its_next_holder() {
    tracked(|| {
        let (mutex, rwlock) = (Arc::new(Mutex::new(())), Arc::new(RwLock::new(())));
        let (its, others) = (mutex.clone(), rwlock.clone());
        let (release, released) = channel::unbounded::<()>();
        by_me(move || {
            let wait_for = |name: &str, operation, wait: Box<dyn FnOnce() + Send>| {
                let waiter = named(name).spawn(wait).unwrap();
                when(|| is_parked_in(operation));
                waiter
            };
            let guard = mutex.lock().unwrap();
            let until = released.clone();
            let next = wait_for(
                "next",
                MUTEX,
                Box::new(move || {
                    let _guard = its.lock().unwrap();
                    until.recv().unwrap();
                }),
            );
            drop(guard);
            when(|| is_parked_in("channel::Receiver::recv"));
            let waiting = holds();
            assert_eq!(waiting["next"][0], MUTEX, "{waiting:?}");
            assert!(!waiting.contains_key("me"), "{waiting:?}");
            release.send(()).unwrap();
            next.join().unwrap();
            // Readers are let in by a writer, and by one that downgrades.
            for downgrades in [false, true] {
                let writes = rwlock.write().unwrap();
                let (its, until) = (others.clone(), released.clone());
                let next = wait_for(
                    "next",
                    READ,
                    Box::new(move || {
                        let _reads = its.read().unwrap();
                        until.recv().unwrap();
                    }),
                );
                let reads = downgrades.then_some(()).map(|()| RwLockWriteGuard::downgrade(writes));
                when(|| is_parked_in("channel::Receiver::recv"));
                let waiting = holds();
                assert_eq!(waiting["next"][0], READ, "{waiting:?}");
                assert_eq!(waiting.get("me").map(|its| &*its[0]), reads.is_some().then_some(READ));
                drop(reads);
                release.send(()).unwrap();
                next.join().unwrap();
            }
        });
    });
}

#[test]
fn a_wait_for_a_condition_releases() {
    tracked(|| {
        by_me(|| {
            let pair = Arc::new((Mutex::new(false), Condvar::new()));
            let its = pair.clone();
            let (release, released) = mpsc::channel::<()>();
            let waits = move || {
                let guard = its.1.wait_while(its.0.lock().unwrap(), |ready| !*ready).unwrap();
                released.recv().unwrap();
                drop(guard);
                thread::park();
            };
            let waits = named("waits").spawn(waits).unwrap();
            when(|| is_parked_in("Condvar::wait"));
            expect([]);
            *pair.0.lock().unwrap() = true;
            pair.1.notify_one();
            when(|| is_parked_in("Receiver::recv"));
            expect([("waits", &[MUTEX])]);
            release.send(()).unwrap();
            when(|| is_parked_in("thread::park"));
            expect([]);
            waits.thread().unpark();
            waits.join().unwrap();
            // And one that ends by its time, or never began.
            let limit = Duration::from_millis(1);
            let guard = pair.1.wait_timeout(pair.0.lock().unwrap(), limit).unwrap();
            expect([("me", &[MUTEX])]);
            drop(guard);
        });
    });
}

#[test]
fn who_gives_up_or_panics_leaves_nothing() {
    tracked(|| {
        by_me(|| {
            let (mutex, rwlock) = (Arc::new(Mutex::new(())), Arc::new(RwLock::new(())));
            let guards = (mutex.lock().unwrap(), rwlock.write().unwrap());
            let (one, two, three) = (mutex.clone(), rwlock.clone(), rwlock.clone());
            let waiters = [
                strands::spawn(move || drop(one.lock())),
                strands::spawn(move || drop(two.read())),
                strands::spawn(move || drop(three.write())),
            ];
            when(|| [MUTEX, READ, WRITE].into_iter().all(is_parked_in));
            waiters.iter().for_each(|waiter| waiter.cancel());
            waiters.into_iter().for_each(|waiter| assert!(waiter.join().is_err()));
            expect([("me", &[MUTEX, WRITE])]);
            drop(guards);
            let panics = strands::spawn(move || {
                let _guards = (mutex.lock().unwrap(), rwlock.read().unwrap());
                std::panic::resume_unwind(Box::new("poisons the mutex"));
            });
            assert!(panics.join().is_err());
            expect([]);
        });
    });
}

#[test]
fn a_guard_that_another_fiber_drops_is_gone() {
    tracked(|| {
        by_me(|| {
            static MUTEXED: Mutex<()> = Mutex::new(());
            static RWLOCKED: RwLock<()> = RwLock::new(());
            let (mutex, rwlock) = (&MUTEXED, &RWLOCKED);
            let guards = Rc::new(RefCell::new(None));
            let its = guards.clone();
            let take = || {
                thread::spawn_local(move || {
                    let locked = (mutex.lock().unwrap(), rwlock.read().unwrap());
                    *its.borrow_mut() = Some(locked);
                    thread::park();
                })
            };
            let taker = take();
            when(|| guards.borrow().is_some());
            expect([("nameless", &[MUTEX, READ])]);
            drop(guards.take());
            expect([]);
            taker.thread().unpark();
            taker.join().unwrap();
            // Beside a reader that stays, and when the taker has ended.
            let reads = rwlock.read().unwrap();
            let its = guards.clone();
            let taker = thread::spawn_local(move || {
                *its.borrow_mut() = Some((mutex.lock().unwrap(), rwlock.read().unwrap()));
            });
            taker.join().unwrap();
            expect([("ended", &[MUTEX, READ]), ("me", &[READ])]);
            // This fiber reads itself, so the entry that goes is its own; as long as it holds one.
            drop(guards.take());
            drop(reads);
            expect([]);
            drop(rwlock.write().unwrap());
        });
    });
}

#[test]
fn a_guard_that_is_forgotten_holds_its_lock() {
    tracked(|| {
        by_me(|| {
            let (mut mutex, mut rwlock) = (Mutex::new(1), RwLock::new(1));
            mem::forget(mutex.lock().unwrap());
            mem::forget(rwlock.read().unwrap());
            expect([("me", &[MUTEX, READ])]);
            *mutex.get_mut().unwrap() += 1;
            *rwlock.get_mut().unwrap() += 1;
            expect([("me", &[MUTEX, READ])]);
            // Others, at the same addresses.
            (mutex, rwlock) = (Mutex::new(2), RwLock::new(2));
            let guards = (mutex.lock().unwrap(), rwlock.read().unwrap());
            expect([("me", &[MUTEX, READ])]);
            drop(guards);
            expect([]);
            assert_eq!((mutex.into_inner().unwrap(), rwlock.into_inner().unwrap()), (2, 2));
        });
    });
}

#[test]
fn what_was_locked_before_is_not_listed_and_what_is_listed_stays() {
    tracked(|| {
        by_me(|| {
            let (before, after) = (Mutex::new(()), Mutex::new(()));
            let (read_before, read_after) = (RwLock::new(()), RwLock::new(()));
            track_locks(false);
            let old = (before.lock().unwrap(), read_before.read().unwrap());
            track_locks(true);
            let new = (after.lock().unwrap(), read_after.read().unwrap());
            let beside = named("beside");
            strands::scope(|scope| {
                let read = || {
                    let _beside = read_before.read().unwrap();
                    expect([("me", &[MUTEX, READ]), ("beside", &[READ])]);
                };
                beside.spawn_scoped(scope, read).unwrap().join().unwrap();
            });
            drop(old);
            expect([("me", &[MUTEX, READ])]);
            track_locks(false);
            let unlisted = read_after.read().unwrap();
            expect([("me", &[MUTEX, READ])]);
            drop(new);
            expect([]);
            drop(unlisted);
            for lock in [read_before, read_after] {
                drop(lock.try_write().unwrap());
            }
            track_locks(true);
        });
    });
}

/// Fibers of two workers and plain threads lock as they can, while the switch is turned on and off.
#[test]
fn the_books_are_right_whatever_races() {
    const PARTIES: usize = 4;
    let rounds = 4_000 * stress();
    tracked(|| {
        let mutexes = Arc::new([const { Mutex::new(0_usize) }; 2]);
        let rwlocks = Arc::new([const { RwLock::new(0_usize) }; 2]);
        let (adds, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let act = |party: usize| {
            let (mutexes, rwlocks, adds) = (mutexes.clone(), rwlocks.clone(), adds.clone());
            move || {
                let mut random = party as u64 + 1;
                for _ in 0..rounds {
                    random =
                        random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let (which, index) = ((random >> 33) as usize, (random >> 40) as usize % 2);
                    let add = |count: &mut usize| {
                        adds.fetch_add(1, SeqCst);
                        *count += 1;
                        if random >> 45 & 7 == 0 {
                            thread::yield_now(); // With the lock in hand.
                        }
                    };
                    match which % 8 {
                        0 | 1 => add(&mut mutexes[index].lock().unwrap()),
                        2 => drop(mutexes[index].try_lock().map(|mut count| add(&mut count))),
                        3 => add(&mut rwlocks[index].write().unwrap()),
                        4 => drop(rwlocks[index].try_read()),
                        5 => {
                            let mut writes = rwlocks[index].write().unwrap();
                            add(&mut writes);
                            drop(RwLockWriteGuard::downgrade(writes));
                        }
                        _ => {
                            let reads = rwlocks[index].read().unwrap();
                            let before = *reads;
                            thread::yield_now();
                            assert_eq!(*reads, before, "somebody writes beside a reader");
                        }
                    }
                }
            }
        };
        let toggles = {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                while !is_over.load(SeqCst) {
                    for on in [false, true] {
                        track_locks(on);
                        (0..20).for_each(|_| std::thread::yield_now());
                    }
                    drop(dump().to_json());
                }
            })
        };
        let threads: Vec<_> = (0..2).map(|party| std::thread::spawn(act(party))).collect();
        runtime(2).run(|| {
            let fibers: Vec<_> = (2..2 + PARTIES).map(|party| strands::spawn(act(party))).collect();
            fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        is_over.store(true, SeqCst);
        toggles.join().unwrap();
        expect([]);
        let counts = mutexes.iter().map(|mutex| *mutex.lock().unwrap());
        let counts = counts.chain(rwlocks.iter().map(|lock| *lock.write().unwrap()));
        assert_eq!(counts.sum::<usize>(), adds.load(SeqCst));
        expect([]);
    });
}

/// While the switch stays on each sees itself with exactly what it holds.
#[test]
fn the_books_are_exact_while_others_lock() {
    let rounds = 30 * stress();
    tracked(|| {
        let locks = Arc::new((Mutex::new(()), RwLock::new(())));
        let is_over = Arc::new(AtomicBool::new(false));
        let crowd: Vec<_> = (0..2)
            .map(|_| {
                let (locks, is_over) = (locks.clone(), is_over.clone());
                std::thread::spawn(move || {
                    while !is_over.load(SeqCst) {
                        drop(locks.0.lock().unwrap());
                        drop(locks.1.read().unwrap());
                        drop(locks.1.write().unwrap());
                    }
                })
            })
            .collect();
        by_me(move || {
            for _ in 0..rounds {
                let mine = || holds().remove("me").unwrap_or_default();
                let guard = locks.0.lock().unwrap();
                let reads = locks.1.read().unwrap();
                assert_eq!(mine(), [MUTEX, READ]);
                drop(reads);
                assert_eq!(mine(), [MUTEX]);
                let writes = locks.1.write().unwrap();
                assert_eq!(mine(), [MUTEX, WRITE]);
                drop(guard);
                let reads = RwLockWriteGuard::downgrade(writes);
                assert_eq!(mine(), [READ]);
                drop(reads);
                assert!(mine().is_empty());
            }
            is_over.store(true, SeqCst);
        });
        crowd.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
