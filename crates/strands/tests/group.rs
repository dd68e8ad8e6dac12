//! `strands::FiberGroup` and `strands::map`: each result comes once, and nothing runs on afterwards.

mod thread_common;

use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use strands::cancel::{Cancelled, uncancellable, was_cancelled};
use strands::select::Select;
use strands::sync::{Semaphore, channel};
use strands::thread::{self, Builder, sleep, yield_now};
use strands::time::{Duration, Elapsed, Instant, timeout};
use strands::{FiberGroup, map, try_map};
use thread_common::{Counted, from_everywhere, runtime, stress, text};

const FOR_EVER: Duration = Duration::from_secs(1_000_000);

fn for_ever() {
    sleep(FOR_EVER);
}

fn panic_text(f: impl FnOnce()) -> String {
    text(&*catch_unwind(AssertUnwindSafe(f)).unwrap_err()).to_owned()
}

// Groups.

#[test]
fn results_come_in_the_order_of_the_ends() {
    from_everywhere(|| {
        let group = FiberGroup::new();
        assert!(group.is_empty() && group.join_next().is_none() && group.try_join_next().is_none());
        let gates: Vec<_> = (0..5).map(|_| Arc::new(Semaphore::new(0))).collect();
        for (i, gate) in gates.iter().enumerate() {
            let gate = gate.clone();
            group.spawn(move || gate.acquire().map(|_| i).unwrap());
        }
        assert!(group.try_join_next().is_none());
        assert_eq!(group.len(), 5);
        for i in [3, 0, 4, 1, 2] {
            gates[i].add_permits(1);
            // Once it has ended, all of it has.
            assert_eq!(group.join_next().unwrap().unwrap(), i);
        }
        assert!(group.is_empty() && group.join_next().is_none());
        // Those that have ended wait in the order in which they did.
        let last = Arc::new(AtomicUsize::new(0));
        for i in 0..3 {
            let last = last.clone();
            group.spawn(move || {
                while last.load(SeqCst) < i {
                    yield_now();
                }
                i
            });
        }
        for i in 0..3 {
            last.store(i, SeqCst);
            assert_eq!(group.join_next().unwrap().unwrap(), i);
        }
    });
}

#[test]
fn a_panic_and_a_cancel_are_results() {
    from_everywhere(|| {
        let group = FiberGroup::new();
        group.spawn(|| panic!("boom"));
        assert_eq!(text(&*group.join_next().unwrap().unwrap_err()), "boom");
        let sleeper = group.spawn(for_ever);
        assert_eq!(group.join_next_timeout(Duration::from_millis(1)).unwrap_err(), Elapsed);
        assert_eq!(group.join_next_deadline(Instant::now()).unwrap_err(), Elapsed);
        group.cancel_all();
        let (id, result) = group.join_next_with_id().unwrap();
        assert!(id == sleeper.id() && was_cancelled(&result));
        // Later ones are not concerned.
        group.spawn(yield_now);
        group.join_next().unwrap().unwrap();
        let named = Builder::new().name("named".into()).stack_size(128 * 1024);
        assert_eq!(group.spawn_with(named, || ()).unwrap().name(), Some("named"));
        let error = group.spawn_with(Builder::new().stack_size(usize::MAX), || ()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(format!("{group:?}").starts_with("FiberGroup { running: "));
        assert_eq!(group.join_all().len(), 1);
    });
}

#[test]
fn a_limit_is_kept() {
    from_everywhere(|| {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let group = FiberGroup::new().limit(3);
        for i in 0..50 {
            let (running, most) = (running.clone(), most.clone());
            group.spawn(move || {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                yield_now();
                running.fetch_sub(1, SeqCst);
                i
            });
        }
        let results: HashSet<_> = group.join_all().into_iter().map(Result::unwrap).collect();
        assert_eq!(results.len(), 50);
        assert!(most.load(SeqCst) <= 3, "there were {most:?}");
        // A place is free again however its fiber ended, also if it has not started.
        for round in 0..10 {
            let parks = || {
                thread::park();
                0
            };
            let fit = (0..5).filter(|_| group.try_spawn(parks).is_ok()).count();
            assert_eq!(fit, 3, "round {round}");
            group.cancel_all();
            assert_eq!(group.join_all().len(), 3);
            group.spawn(|| panic!("it gives its place back"));
            assert!(group.join_next().unwrap().is_err());
        }
    });
    assert!(panic_text(|| drop(FiberGroup::<()>::new().limit(0))).contains("limit of 0"));
}

#[test]
fn a_spawn_that_waits_for_room_can_be_cancelled() {
    runtime(2).run(|| {
        let group = Arc::new(FiberGroup::new().limit(1));
        group.spawn(for_ever);
        let its = group.clone();
        let waits = strands::spawn(move || drop(its.spawn(|| unreachable!("it had no room"))));
        assert!(was_cancelled(&waits.cancel_and_join()));
        assert_eq!(group.len(), 1);
        assert_eq!(timeout(Duration::from_millis(1), || drop(group.spawn(|| ()))), Err(Elapsed));
        assert_eq!(group.len(), 1);
    });
}

#[test]
fn dropping_a_group_cancels_and_waits() {
    from_everywhere(|| {
        for unwinds in [false, true] {
            let living = Arc::new(AtomicUsize::new(0));
            let result = catch_unwind(AssertUnwindSafe(|| {
                let group = FiberGroup::new();
                let started = Arc::new(Semaphore::new(0));
                for i in 0..20 {
                    let (counted, started) = (Counted::new(&living), started.clone());
                    group.spawn(move || {
                        started.add_permits(1);
                        match i % 4 {
                            0 => return counted, // Nobody takes it.
                            1 => panic::panic_any(counted),
                            2 => drop(catch_unwind(for_ever)), // It swallows the first.
                            _ => {}
                        }
                        for_ever();
                        counted
                    });
                }
                drop(started.acquire_many(10));
                if unwinds {
                    panic!("the owner's");
                }
            }));
            assert_eq!(result.is_err(), unwinds);
            assert_eq!(living.load(SeqCst), 0);
        }
    });
}

#[test]
fn a_group_ends_with_the_fiber_that_has_it() {
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let living = Arc::new(AtomicUsize::new(0));
            let its = living.clone();
            let owner = strands::spawn(move || {
                struct Slow {
                    _counted: Counted,
                }
                impl Drop for Slow {
                    fn drop(&mut self) {
                        sleep(Duration::from_micros(200));
                    }
                }
                let group = FiberGroup::new();
                for _ in 0..5 {
                    let slow = Slow { _counted: Counted::new(&its) };
                    group.spawn(move || {
                        for_ever();
                        drop(slow);
                    });
                }
                group.join_next();
                unreachable!("it is cancelled");
            });
            while living.load(SeqCst) < 5 {
                yield_now();
            }
            assert!(was_cancelled(&owner.cancel_and_join().map(|(): ()| ())));
            assert_eq!(living.load(SeqCst), 0, "its destructors have run before its end is seen");
        });
    }
}

#[test]
fn a_child_that_drops_its_group_does_not_wait_for_itself() {
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let group = Arc::new(FiberGroup::new());
            let (living, (sender, receiver)) = (Arc::new(AtomicUsize::new(0)), channel::bounded(1));
            for _ in 0..5 {
                let counted = Counted::new(&living);
                group.spawn(move || {
                    for_ever();
                    drop(counted);
                });
            }
            let (its, living) = (group.clone(), living.clone());
            group.spawn(move || {
                while Arc::strong_count(&its) > 1 {
                    yield_now();
                }
                drop(its);
                // The others have ended; it is cancelled too.
                uncancellable(|| sender.send(living.load(SeqCst)).unwrap());
                for_ever();
            });
            drop(group);
            assert_eq!(receiver.recv(), Ok(0));
            assert!(receiver.recv().is_err(), "it has unwound");
        });
    }
}

#[test]
fn a_group_goes_wherever_it_is_sent() {
    fn is_send_and_sync<T: Send + Sync>(_: &T) {}
    let group = FiberGroup::new();
    is_send_and_sync(&group);
    let runtime = runtime(2);
    // Spawned here, on the default runtime; joined by fibers of another one, and by a thread.
    (0..30).for_each(|i| drop(group.spawn(move || i)));
    let (group, mut sum) = runtime.run(move || {
        let sum: i32 = (0..10).map(|_| group.join_next().unwrap().unwrap()).sum();
        (group, sum)
    });
    let handle = runtime.spawn(move || {
        (30..40).for_each(|i| drop(group.spawn(move || i)));
        let sum: i32 = (0..10).map(|_| group.join_next().unwrap().unwrap()).sum();
        (group, sum)
    });
    let (group, more) = handle.join().unwrap();
    sum += more;
    let rest =
        std::thread::spawn(move || group.join_all().into_iter().map(Result::unwrap).sum::<i32>());
    sum += rest.join().unwrap();
    assert_eq!(sum, (0..40).sum());
}

#[test]
fn all_who_wait_learn_that_there_is_no_more() {
    from_everywhere(|| {
        let group = FiberGroup::new();
        let gate = Arc::new(Semaphore::new(0));
        let its = gate.clone();
        group.spawn(move || drop(its.acquire()));
        strands::scope(|scope| {
            let waits = [(); 5].map(|()| scope.spawn(|| group.join_next().is_some()));
            gate.add_permits(1);
            let got = waits.map(|wait| wait.join().unwrap()).iter().filter(|got| **got).count();
            assert_eq!(got, 1);
        });
    });
}

#[test]
fn no_result_is_lost_to_who_is_cancelled() {
    // Joiners are cancelled, or run out of time, while children end: each result is taken once, or is there still.
    for seed in 0..60 * stress() {
        let runtime = runtime(1 + seed % 3);
        let taken = Arc::new(AtomicUsize::new(0));
        let group = Arc::new(FiberGroup::new());
        let (its, takes) = (group.clone(), taken.clone());
        let left = runtime.run(move || {
            let children = 40;
            for i in 0..children {
                its.spawn(move || {
                    match (seed + i) % 5 {
                        0 => sleep(Duration::from_micros(i as u64 * 7 % 50)),
                        1 => for_ever(),
                        2 => yield_now(),
                        3 => panic::panic_any(i),
                        _ => {}
                    }
                    i
                });
            }
            let joiners: Vec<_> = (0..4)
                .map(|i| {
                    let (group, taken) = (its.clone(), takes.clone());
                    strands::spawn(move || {
                        loop {
                            let next = match i {
                                0 => {
                                    group.join_next_timeout(Duration::from_micros(5)).ok().flatten()
                                }
                                1 => group.try_join_next(),
                                _ => group.join_next(),
                            };
                            // It has taken it: no wait is between.
                            taken.fetch_add(next.is_some() as usize, SeqCst);
                            yield_now();
                        }
                    })
                })
                .collect();
            for (i, joiner) in joiners.iter().enumerate() {
                for _ in 0..(seed * 7 + i * 3) % 20 {
                    yield_now();
                }
                joiner.cancel();
            }
            its.cancel_all();
            joiners.into_iter().for_each(|joiner| drop(joiner.join()));
            let left = its.join_all().len();
            assert_eq!(left + takes.load(SeqCst), children, "seed {seed}");
            left
        });
        assert!(left <= 40 && group.is_empty());
    }
}

#[test]
fn a_select_takes_a_result_or_none() {
    from_everywhere(|| {
        let group = FiberGroup::new();
        let none = strands::select! { next = join_next(group) => next.is_none() };
        assert!(none, "there is no fiber");
        let (sender, receiver) = channel::bounded(1);
        let total = 100;
        for i in 0..total {
            group.spawn(move || {
                if i % 3 == 0 {
                    yield_now()
                }
            });
        }
        let (mut taken, mut messages) = (0, 0);
        strands::scope(|scope| {
            scope.spawn(|| (0..50).for_each(|_| sender.send(()).unwrap()));
            // Beside it somebody else takes some.
            let others = scope.spawn(|| (0..40).filter(|_| group.join_next().is_some()).count());
            while messages < 50 || taken < total - 40 {
                strands::select! {
                    next = join_next(group) if taken < total - 40 => {
                        next.unwrap().unwrap();
                        taken += 1;
                    }
                    message = recv(receiver) if messages < 50 => {
                        message.unwrap();
                        messages += 1;
                    }
                }
            }
            assert_eq!(others.join().unwrap(), 40);
        });
        assert!(group.is_empty());
        // One that was chosen and is not fetched is gone, with its destructor run here.
        let living = Arc::new(AtomicUsize::new(0));
        let (group, counted) = (FiberGroup::new(), Counted::new(&living));
        group.spawn(move || counted);
        let next = group.select_join_next();
        let mut select = Select::new();
        select.add(&next);
        select.select();
        drop(select);
        drop(next);
        assert_eq!((living.load(SeqCst), group.len()), (0, 0));
    });
}

#[test]
fn a_shutdown_ends_groups_and_maps() {
    for workers in [1, 2] {
        let runtime = runtime(workers);
        let living = Arc::new(AtomicUsize::new(0));
        let reached = Arc::new(Semaphore::new(0));
        let (its, tells) = (living.clone(), reached.clone());
        let owner = runtime.spawn(move || {
            let group = FiberGroup::new();
            for _ in 0..5 {
                let (counted, tells) = (Counted::new(&its), tells.clone());
                group.spawn(move || {
                    tells.add_permits(1);
                    for_ever();
                    drop(counted);
                });
            }
            let group = Arc::new(group);
            let mapped = group.clone();
            strands::spawn(move || {
                let _keeps = mapped;
                map(3, 0.., |_| {
                    let _counted = Counted::new(&its);
                    tells.add_permits(1);
                    for_ever();
                })
            });
            loop {
                group.join_next().unwrap().unwrap();
            }
        });
        drop(reached.acquire_many(8));
        runtime.shutdown_timeout(Duration::MAX).unwrap();
        let end: thread::Result<()> = owner.join();
        assert!(end.unwrap_err().is::<Cancelled>(), "it did not panic");
        assert_eq!(living.load(SeqCst), 0);
    }
}

#[test]
fn a_hundred_thousand_in_a_group() {
    runtime(2).run(|| {
        let group = FiberGroup::new();
        (0..100_000usize).for_each(|i| drop(group.spawn(move || i)));
        let mut seen = vec![false; 100_000];
        while let Some(result) = group.join_next() {
            assert!(!std::mem::replace(&mut seen[result.unwrap()], true));
        }
        assert!(seen.into_iter().all(|seen| seen));
        // As many that wait, cancelled at once.
        (0..10_000).for_each(|_| {
            drop(group.spawn(|| {
                for_ever();
                0
            }))
        });
        yield_now();
        drop(group);
    });
}

#[test]
fn a_value_that_panics_when_dropped_is_no_matter() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    from_everywhere(|| {
        let group = FiberGroup::new();
        for _ in 0..3 {
            group.spawn(|| Bomb);
        }
        let taken = group.join_next().unwrap();
        assert_eq!(panic_text(|| drop(taken)), "dropped", "who takes it has it");
        drop(group);
    });
}

// Maps.

#[test]
fn results_are_in_the_order_of_the_input() {
    from_everywhere(|| {
        let words = ["some", "words", "that", "are", "borrowed"];
        assert_eq!(map(2, &words, |word| word.len()), [4, 5, 4, 3, 8]);
        assert_eq!(map(9, 0..0, |n: i32| n), []);
        for limit in [1, 2, 7, 1000] {
            let results = map(limit, 0..100u64, |n| {
                sleep(Duration::from_micros(n * 37 % 50));
                n * n
            });
            assert!(results.into_iter().eq((0..100).map(|n| n * n)));
        }
        // An iterator that stays with its caller.
        let shared = Rc::new(Cell::new(0));
        let counts = shared.clone();
        let items = (0..10).inspect(move |_| counts.set(counts.get() + 1));
        assert_eq!(map(3, items, |n| n).len(), shared.get());
    });
    assert!(panic_text(|| drop(map(0, [1], |n| n))).contains("limit of 0"));
}

#[test]
fn no_more_items_are_taken_than_can_be_begun() {
    from_everywhere(|| {
        let (taken, ended, most) = (Cell::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let running = AtomicUsize::new(0);
        let items = (0..50).inspect(|_| {
            // Before this one: those that have been taken and have not ended.
            assert!(taken.get() - ended.load(SeqCst) < 4);
            taken.set(taken.get() + 1);
        });
        map(4, items, |_| {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            yield_now();
            running.fetch_sub(1, SeqCst);
            ended.fetch_add(1, SeqCst);
        });
        assert_eq!(taken.get(), 50);
        assert!(most.into_inner() <= 4);
    });
}

#[test]
fn the_first_error_ends_a_map() {
    from_everywhere(|| {
        let living = Arc::new(AtomicUsize::new(0));
        // An endless input.
        let result = try_map(8, 0.., |n| {
            let _counted = Counted::new(&living);
            match n {
                20 => return Err("the twentieth"),
                _ if n % 3 == 0 && n > 15 => for_ever(),
                _ => yield_now(),
            }
            Ok(())
        });
        assert_eq!((result, living.load(SeqCst)), (Err("the twentieth"), 0));
        // An input that waits for ever.
        let (sender, receiver) = channel::bounded(2);
        sender.send(1).unwrap();
        let result = try_map(8, &receiver, Err::<(), _>);
        assert_eq!(result, Err(1));
        // Panics, of the closure and of the input.
        let text = panic_text(|| {
            drop(map(8, 0.., |n| if n == 20 { panic!("boom") } else { yield_now() }))
        });
        assert_eq!(text, "boom");
        let items = (0..).inspect(|n| assert!(*n < 20, "the input's"));
        let text = panic_text(|| drop(map(8, items, |_| wait_a_little(&living))));
        assert!(text == "the input's" && living.load(SeqCst) == 0, "{text}");
        // From outside.
        let late = timeout(Duration::from_millis(1), || map(2, 0.., |_| wait_a_little(&living)));
        assert_eq!((late.is_err(), living.load(SeqCst)), (true, 0));
    });
}

/// While it is counted.
fn wait_a_little(living: &Arc<AtomicUsize>) {
    let counted = Counted::new(living);
    match counted.0.load(SeqCst) % 2 {
        0 => yield_now(),
        _ => sleep(Duration::from_micros(10)),
    }
}

#[test]
fn maps_nest_and_drop_what_they_have() {
    from_everywhere(|| {
        let sums = map(3, 1..5, |n| map(2, 0..n, |m| m).into_iter().sum::<i32>());
        assert_eq!(sums, [0, 1, 3, 6]);
        let living = Arc::new(AtomicUsize::new(0));
        let result = try_map(3, 0..30, |n| match n {
            25 => Err(Counted::new(&living)),
            _ => Ok(Counted::new(&living)),
        });
        assert!(result.is_err() && living.load(SeqCst) == 1);
        drop(result);
        assert_eq!(living.load(SeqCst), 0);
    });
}

#[test]
fn maps_race() {
    for seed in 0..40 * stress() {
        let (begun, ended, failed) =
            (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
        struct Ends<'a>(&'a AtomicUsize);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let run = || {
            let result = try_map(1 + seed % 9, 0..60, |n| {
                begun.fetch_add(1, SeqCst);
                let _ends = Ends(&ended);
                match (n * 31 + seed * 17) % 53 {
                    0 => {
                        failed.store(true, SeqCst);
                        return Err(n);
                    }
                    1..20 => sleep(Duration::from_micros(n as u64)),
                    _ => yield_now(),
                }
                Ok(n)
            });
            match result {
                Ok(all) => assert!(!failed.load(SeqCst) && all.into_iter().eq(0..60)),
                Err(n) => assert_eq!((n * 31 + seed * 17) % 53, 0, "seed {seed}"),
            }
        };
        runtime(1 + seed % 3).run(run);
        assert_eq!(begun.load(SeqCst), ended.load(SeqCst), "seed {seed}");
    }
}

#[test]
fn a_group_without_a_limit_is_never_full() {
    let group = FiberGroup::default();
    for n in 0..100 {
        assert!(group.try_spawn(move || n).is_ok());
    }
    let later = Instant::now() + FOR_EVER;
    let next = || group.join_next_deadline(later).unwrap();
    assert_eq!(std::iter::from_fn(next).map(Result::unwrap).sum::<u32>(), 4950);
}

#[test]
fn groups_and_what_they_refuse_say_what_they_are() {
    let group = FiberGroup::new().limit(2);
    group.spawn(thread::park);
    assert_eq!(format!("{group:?}"), "FiberGroup { running: 1, ended: 0, room: 1, .. }");
    group.spawn(thread::park);
    let refused = group.try_spawn(thread::park).unwrap_err();
    assert_eq!(format!("{refused:?}"), "Full(..)");
    assert_eq!(refused.to_string(), "as many fibers run as the group's limit allows");
    let core = strands_sched::Group::<()>::default();
    assert_eq!(format!("{core:?}"), "Group { running: 0, ended: 0 }");
}
