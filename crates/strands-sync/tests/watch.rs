//! Watched values, by fibers and threads in any mix.

mod common;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{
    Kind, Local, PAIRS, at, everywhere, let_others_run, on_one_worker, runtime, start, stress,
};
use proptest::prelude::*;
use strands_sched::{Cancelled, SpawnOptions, spawn_local, spawn_on};
use strands_sync::watch::{RecvError, RecvTimeoutError, SendError, channel};

#[test]
fn does_what_its_face_says() {
    everywhere(|| {
        let (sender, mut receiver) = channel(1);
        assert_eq!((*sender.borrow(), *receiver.borrow()), (1, 1));
        assert_eq!(receiver.has_changed(), Ok(false));
        let soon = Duration::from_micros(10);
        assert_eq!(receiver.changed_timeout(soon), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.changed_deadline(Instant::now()), Err(RecvTimeoutError::Timeout));
        sender.send(2).unwrap();
        assert_eq!(sender.send_replace(3), 2);
        assert!(receiver.borrow().has_changed() && *receiver.borrow() == 3);
        let mut clone = receiver.clone();
        assert_eq!(receiver.changed(), Ok(()));
        assert_eq!(receiver.changed_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        assert_eq!(clone.changed_timeout(Duration::MAX), Ok(()), "it has seen what the first had");
        assert!(!sender.subscribe().has_changed().unwrap());
        assert!(!sender.send_if_modified(|value| {
            *value = 4;
            false
        }));
        assert_eq!((*receiver.borrow(), receiver.has_changed()), (4, Ok(false)));
        sender.send_modify(|value| *value += 1);
        assert_eq!(*receiver.borrow_and_update(), 5);
        assert_eq!(receiver.has_changed(), Ok(false));
        assert_eq!(*receiver.wait_for(|&value| value == 5).unwrap(), 5);
        assert_eq!(
            format!("{sender:?} {receiver:?} {:?}", receiver.borrow()),
            "Sender { .. } Receiver { .. } 5"
        );

        let second = sender.clone();
        assert!(second.same_channel(&sender) && clone.same_channel(&receiver));
        assert_eq!((sender.sender_count(), sender.receiver_count()), (2, 2));
        drop(sender);
        assert_eq!(receiver.has_changed(), Ok(false));
        second.send(6).unwrap();
        drop(second);
        assert_eq!(receiver.has_changed(), Ok(true), "the last value is seen");
        assert_eq!(receiver.changed(), Ok(()));
        assert_eq!(receiver.has_changed(), Err(RecvError));
        assert_eq!(receiver.changed_timeout(Duration::MAX), Err(RecvTimeoutError::Disconnected));
        assert!(receiver.wait_for(|&value| value == 7).is_err());
        assert_eq!(*receiver.wait_for(|&value| value == 6).unwrap(), 6);

        let (sender, receiver) = channel(1);
        assert!(!sender.is_closed() && !sender.closed_timeout(soon));
        drop(receiver);
        assert!(sender.is_closed() && sender.closed_deadline(None));
        assert_eq!(sender.send(2), Err(SendError(2)));
        assert_eq!(*sender.borrow(), 1);
        let receiver = sender.subscribe();
        assert!(!sender.is_closed() && *receiver.borrow() == 1);
    });
}

#[test]
fn every_kind_follows_every_kind() {
    let changes = 500 * stress();
    for (changes_it, follows) in PAIRS {
        let runtime = runtime(2);
        let (sender, receiver) = channel(0);
        let followers: Vec<_> = [follows, follows, Kind::Thread]
            .into_iter()
            .map(|kind| {
                let mut receiver = receiver.clone();
                start(runtime.shared(), kind, move || {
                    let mut last = 0;
                    while receiver.changed().is_ok() {
                        let now = *receiver.borrow_and_update();
                        // It may have been changed once more between the two; then it is seen already.
                        assert!(now >= last, "{now} after {last}");
                        last = now;
                    }
                    last
                })
            })
            .collect();
        start(runtime.shared(), changes_it, move || {
            for i in 1..=changes {
                sender.send(i).unwrap();
                if i % 16 == 0 {
                    strands_sched::yield_now();
                }
            }
        })()
        .unwrap();
        for follower in followers {
            assert_eq!(follower().unwrap(), changes, "the last change is seen by all");
        }
    }
}

#[test]
fn many_change_it_and_no_change_is_lost() {
    let changes = 300 * stress();
    let runtime = runtime(2);
    let (sender, mut receiver) = channel(0);
    let kinds = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1), Kind::Thread];
    let parties = kinds.map(|kind| {
        let sender = sender.clone();
        start(runtime.shared(), kind, move || {
            (0..changes).for_each(|_| sender.send_modify(|value| *value += 1));
        })
    });
    assert_eq!(*receiver.wait_for(|&value| value == 4 * changes).unwrap(), 4 * changes);
    parties.into_iter().for_each(|join| join().unwrap());
}

#[test]
fn a_change_wakes_all_in_the_order_in_which_they_came() {
    on_one_worker(|| {
        let (sender, receiver) = channel(0);
        let woken = Rc::new(RefCell::new(Vec::new()));
        let waiting: Vec<_> = (0..8)
            .map(|me| {
                let (mut receiver, woken) = (receiver.clone(), woken.clone());
                Local::until_it_waits(move |about_to_wait| {
                    about_to_wait();
                    receiver.changed().unwrap();
                    woken.borrow_mut().push((me, *receiver.borrow()));
                })
            })
            .collect();
        sender.send(1).unwrap();
        waiting.into_iter().for_each(|fiber| fiber.join().unwrap());
        assert!(woken.borrow().iter().copied().eq((0..8).map(|me| (me, 1))));
    });
}

#[test]
fn the_end_of_either_side_wakes_the_other() {
    for (one, other) in PAIRS {
        let runtime = runtime(2);
        let (sender, mut receiver) = channel(0);
        let second = sender.clone();
        let waits = start(runtime.shared(), one, move || receiver.changed());
        start(runtime.shared(), other, move || drop((sender, second)))().unwrap();
        assert_eq!(waits().unwrap(), Err(RecvError));

        let (sender, receiver) = channel(0);
        let second = receiver.clone();
        let waits = start(runtime.shared(), one, move || sender.closed());
        start(runtime.shared(), other, move || drop((receiver, second)))().unwrap();
        waits().unwrap();
    }
}

#[test]
fn a_borrow_may_be_held_across_a_suspension() {
    on_one_worker(|| {
        let (sender, receiver) = channel(vec![1]);
        let borrowed = receiver.borrow();
        let second = receiver.clone();
        let reads = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            second.borrow()[0]
        });
        assert_eq!(reads.join().unwrap(), 1, "borrows do not exclude each other");
        let changes = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            sender.send_modify(|value| value.push(2));
        });
        let_others_run();
        assert!(!changes.is_finished() && *borrowed == [1]);
        drop(borrowed);
        changes.join().unwrap();
        assert_eq!(*receiver.borrow(), [1, 2]);
    });
}

#[test]
fn a_panic_in_a_change_tells_nobody_and_leaves_it_usable() {
    everywhere(|| {
        let (sender, mut receiver) = channel(1);
        let panics = || sender.send_modify(|_| resume_unwind(Box::new(())));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_eq!(receiver.has_changed(), Ok(false));
        let suits = catch_unwind(AssertUnwindSafe(|| {
            drop(receiver.wait_for(|_| resume_unwind(Box::new(()))));
        }));
        assert!(suits.is_err());
        sender.send(2).unwrap();
        assert_eq!(*receiver.borrow_and_update(), 2);
    });
}

#[test]
fn an_old_value_may_use_the_channel_when_it_is_dropped() {
    everywhere(|| {
        struct Asks(Option<strands_sync::watch::Sender<Arc<Asks>>>);
        impl Drop for Asks {
            fn drop(&mut self) {
                if let Some(sender) = &self.0 {
                    assert!(sender.borrow().0.is_none());
                }
            }
        }
        let (sender, _receiver) = channel(Arc::new(Asks(None)));
        sender.send(Arc::new(Asks(Some(sender.clone())))).unwrap();
        sender.send(Arc::new(Asks(None))).unwrap();
    });
}

#[test]
fn a_cancelled_waiter_has_seen_nothing() {
    let (sender, receiver) = channel(0);
    let receiver = Arc::new(std::sync::Mutex::new(receiver));
    let theirs = receiver.clone();
    let doomed = runtime(1);
    let fiber = spawn_on(doomed.shared(), at(0), move || {
        let mut receiver = theirs.lock().unwrap();
        catch_unwind(AssertUnwindSafe(|| receiver.changed())).is_err()
    })
    .unwrap();
    doomed.run(at(0), let_others_run).unwrap();
    doomed.shutdown(None).unwrap();
    assert!(fiber.join().unwrap(), "cancelled in changed");
    sender.send(1).unwrap();
    assert_eq!(receiver.lock().unwrap().changed(), Ok(()));
}

#[test]
fn a_sender_that_waits_for_the_end_is_cancelled() {
    on_one_worker(|| {
        let (sender, receiver) = channel(0);
        let theirs = Rc::new(sender);
        let sender = theirs.clone();
        let waits = spawn_local(SpawnOptions::default(), move || theirs.closed()).unwrap();
        let_others_run();
        waits.task().cancel();
        assert!(waits.join().unwrap_err().is::<Cancelled>());
        drop(receiver);
        sender.closed();
    });
}

#[test]
fn changes_race_timeouts_and_the_last_is_seen() {
    for (changes, follows) in PAIRS {
        let runtime = runtime(2);
        let (sender, mut receiver) = channel(0);
        let last = 300 * stress();
        let follows = start(runtime.shared(), follows, move || {
            for round in 0.. {
                match receiver.changed_timeout(Duration::from_micros(round % 4 * 5)) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return *receiver.borrow(),
                }
            }
            unreachable!()
        });
        start(runtime.shared(), changes, move || (1..=last).for_each(|i| sender.send(i).unwrap()))(
        )
        .unwrap();
        assert_eq!(follows().unwrap(), last);
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Send,
    Modify(bool),
    Changed(usize),
    BorrowAndUpdate(usize),
    Subscribe,
    CloneReceiver(usize),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Receivers each know a version, and there is one value.
    #[test]
    fn one_party_alone_sees_versions(steps in prop::collection::vec(prop_oneof![
        4 => Just(Step::Send),
        2 => any::<bool>().prop_map(Step::Modify),
        4 => (0..4usize).prop_map(Step::Changed),
        4 => (0..4usize).prop_map(Step::BorrowAndUpdate),
        1 => Just(Step::Subscribe),
        1 => (0..4usize).prop_map(Step::CloneReceiver),
    ], 0..100)) {
        let (sender, receiver) = channel(0);
        let (mut value, mut version) = (0, 0);
        let mut receivers = vec![(receiver, 0)];
        for (i, step) in steps.into_iter().enumerate() {
            let count = receivers.len();
            match step {
                Step::Send => {
                    prop_assert_eq!(sender.send_replace(i), value);
                    (value, version) = (i, version + 1);
                }
                Step::Modify(is_news) => {
                    sender.send_if_modified(|value| { *value = i; is_news });
                    (value, version) = (i, version + usize::from(is_news));
                }
                Step::Changed(which) => {
                    let (receiver, seen) = &mut receivers[which % count];
                    let changed = receiver.changed_timeout(Duration::ZERO);
                    prop_assert_eq!(changed.is_ok(), *seen != version);
                    *seen = version;
                }
                Step::BorrowAndUpdate(which) => {
                    let (receiver, seen) = &mut receivers[which % count];
                    let borrowed = receiver.borrow_and_update();
                    prop_assert_eq!((*borrowed, borrowed.has_changed()), (value, *seen != version));
                    *seen = version;
                }
                Step::Subscribe => receivers.push((sender.subscribe(), version)),
                Step::CloneReceiver(which) => {
                    let (receiver, seen) = &receivers[which % count];
                    receivers.push((receiver.clone(), *seen));
                }
            }
            prop_assert_eq!(sender.receiver_count(), receivers.len());
            for (receiver, seen) in &receivers {
                prop_assert_eq!(receiver.has_changed(), Ok(*seen != version));
            }
        }
    }
}
