//! Channels of many senders and receivers, by fibers and threads in any mix.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{
    Kind, Local, PAIRS, at, everywhere, let_others_run, on_one_worker, runtime, start, stress,
};
use proptest::prelude::*;
use strands_sched::{Cancelled, SpawnOptions, spawn_local, spawn_on};
use strands_sync::channel::{
    Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError, bounded, rendezvous, unbounded,
};

/// A rendezvous, rings whose slots are and are not a power of two, a queue with a bound, one without.
const CAPACITIES: [usize; 6] = [0, 1, 3, 4, 100_000, usize::MAX];

#[test]
fn does_what_its_face_says() {
    everywhere(|| {
        let (sender, receiver) = bounded(2);
        assert_eq!((sender.capacity(), sender.len()), (Some(2), 0));
        assert!(sender.is_empty() && !sender.is_full());
        sender.send(1).unwrap();
        sender.clone().try_send(2).unwrap();
        assert!(receiver.is_full() && receiver.len() == 2);
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        let soon = Duration::from_micros(10);
        assert_eq!(sender.send_timeout(3, soon), Err(SendTimeoutError::Timeout(3)));
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(sender.send_deadline(3, Instant::now()), Ok(()));
        assert!(receiver.clone().drain().eq([2, 3]));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Timeout));
        sender.send(4).unwrap();
        assert!(!sender.is_closed() && sender.close() && receiver.is_closed());
        assert_eq!(sender.send(5), Err(SendError(5)));
        assert_eq!(sender.try_send(5), Err(TrySendError::Disconnected(5)));
        let forever = Duration::MAX;
        assert_eq!(sender.send_timeout(5, forever), Err(SendTimeoutError::Disconnected(5)));
        assert_eq!(receiver.recv_timeout(forever), Ok(4));
        assert_eq!(receiver.recv(), Err(RecvError));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_deadline(None), Err(RecvTimeoutError::Disconnected));
        assert_eq!(receiver.into_iter().next(), None);

        let (sender, receiver) = unbounded();
        assert_eq!(sender.capacity(), None);
        (0..3_000).for_each(|i| sender.send(i).unwrap());
        assert!(receiver.iter().take(10).eq(0..10));
        assert!(receiver.try_iter().eq(10..3_000));
        assert!(!sender.is_full() && sender.is_empty());

        let (sender, receiver) = rendezvous();
        assert!(sender.is_empty() && sender.is_full() && sender.capacity() == Some(0));
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let (other, _) = rendezvous::<i32>();
        assert!(sender.same_channel(&sender.clone()) && !sender.same_channel(&other));
        let second = receiver.clone();
        assert_eq!((sender.sender_count(), sender.receiver_count()), (1, 2));
        drop((receiver, second));
        assert_eq!(sender.send(1), Err(SendError(1)));

        let (sender, receiver) = bounded::<u8>(1);
        assert_eq!(
            format!("{sender:?} {receiver:?} {:?} {:?}", receiver.iter(), receiver.try_iter(),),
            "Sender { .. } Receiver { .. } Iter { receiver: Receiver { .. } } \
             TryIter { receiver: Receiver { .. } }"
        );
        let errors = [SendTimeoutError::Timeout(1), SendTimeoutError::from(SendError(1))];
        assert_eq!(format!("{errors:?}"), "[Timeout(..), Disconnected(..)]");
        assert_eq!(
            errors.map(|error| error.to_string()),
            ["timed out waiting on send operation", "sending on a closed channel"]
        );
    });
}

#[test]
fn every_kind_sends_to_every_kind_in_order() {
    let messages = 1_000 * stress();
    for (sends, receives) in PAIRS {
        for capacity in CAPACITIES {
            let runtime = runtime(2);
            let (sender, receiver) = bounded(capacity);
            let sends = start(runtime.shared(), sends, move || {
                (0..messages).for_each(|i| sender.send(Box::new(i)).unwrap());
            });
            let receives = start(runtime.shared(), receives, move || {
                assert!(receiver.iter().map(|message| *message).eq(0..messages));
            });
            sends().unwrap();
            receives().unwrap();
        }
    }
}

#[test]
fn many_senders_and_receivers_and_each_message_once() {
    const KINDS: [Kind; 4] = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1), Kind::Fiber(1)];
    let messages = 500 * stress();
    for capacity in CAPACITIES {
        let runtime = runtime(2);
        let (sender, receiver) = bounded(capacity);
        let receives = KINDS.map(|kind| {
            let receiver = receiver.clone();
            start(runtime.shared(), kind, move || receiver.iter().collect::<Vec<_>>())
        });
        let sends: Vec<_> = (0..KINDS.len())
            .map(|me| {
                let sender = sender.clone();
                start(runtime.shared(), KINDS[me], move || {
                    (0..messages).for_each(|i| sender.send((me, i)).unwrap());
                })
            })
            .collect();
        drop((sender, receiver));
        sends.into_iter().for_each(|join| join().unwrap());
        let received = receives.map(|join| join().unwrap());
        for each in &received {
            for me in 0..KINDS.len() {
                let of_one = each.iter().filter(|message| message.0 == me);
                assert!(of_one.map(|message| message.1).is_sorted(), "out of order");
            }
        }
        let mut all = received.concat();
        all.sort_unstable();
        let sent = (0..KINDS.len()).flat_map(|me| (0..messages).map(move |i| (me, i)));
        assert!(all.into_iter().eq(sent));
    }
}

#[test]
fn messages_of_no_size() {
    everywhere(|| {
        for capacity in [1, 3, usize::MAX] {
            let (sender, receiver) = bounded(capacity);
            for _ in 0..10 {
                sender.send(()).unwrap();
                assert_eq!(receiver.len(), 1);
                assert_eq!(receiver.recv(), Ok(()));
            }
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        }
    });
}

#[test]
fn receivers_are_served_first_come_first_served() {
    for capacity in CAPACITIES {
        on_one_worker(move || {
            let (sender, receiver) = bounded(capacity);
            let served = Rc::new(RefCell::new(Vec::new()));
            let waiting: Vec<_> = (0..8)
                .map(|me| {
                    let (receiver, served) = (receiver.clone(), served.clone());
                    Local::until_it_waits(move |about_to_wait| {
                        about_to_wait();
                        let message = receiver.recv().unwrap();
                        served.borrow_mut().push((me, message));
                    })
                })
                .collect();
            let_others_run();
            // They are in line. Who comes by now gets nothing that is theirs.
            for message in 0..8 {
                sender.try_send(message).unwrap();
                assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
            }
            waiting.into_iter().for_each(|fiber| fiber.join().unwrap());
            assert!(served.borrow().iter().copied().eq((0..8).map(|i| (i, i))));
            // The line is gone, and the fast way is open.
            assert_eq!(sender.try_send(8).is_ok(), capacity > 0);
            assert_eq!(receiver.try_recv().is_ok(), capacity > 0);
        });
    }
}

#[test]
fn senders_are_let_in_first_come_first_served() {
    for capacity in [0, 1, 3, 4, 70_000] {
        on_one_worker(move || {
            let (sender, receiver) = bounded(capacity);
            (0..capacity).for_each(|i| sender.try_send(i).unwrap());
            let waiting: Vec<_> = (capacity..capacity + 8)
                .map(|i| {
                    let sender = sender.clone();
                    Local::until_it_waits(move |about_to_wait| {
                        about_to_wait();
                        sender.send(i).unwrap();
                    })
                })
                .collect();
            let_others_run();
            assert!(waiting.iter().all(|fiber| !fiber.is_finished()));
            assert_eq!(receiver.recv(), Ok(0));
            assert_eq!(sender.try_send(99), Err(TrySendError::Full(99)), "the room is taken");
            let_others_run();
            assert_eq!(waiting.iter().filter(|fiber| fiber.is_finished()).count(), 1);
            assert!(receiver.try_iter().eq(1..capacity + 8));
            waiting.into_iter().for_each(|fiber| fiber.join().unwrap());
            assert_eq!(sender.try_send(0).is_ok(), capacity > 0);
        });
    }
}

/// The line keeps its order across threads too.
#[test]
fn threads_in_line_are_served_in_order() {
    for capacity in [0, 1, usize::MAX] {
        let (sender, receiver) = bounded(capacity);
        let in_line = Arc::new(AtomicUsize::new(0));
        let served = Arc::new(std::sync::Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..4)
            .map(|me| {
                let (receiver, served) = (receiver.clone(), served.clone());
                // One worker each: that its other fiber runs tells that the first waits.
                let runtime = runtime(1);
                let counted = in_line.clone();
                let about_to_wait = Arc::new(AtomicUsize::new(0));
                let mark = about_to_wait.clone();
                let waits = spawn_on(runtime.shared(), at(0), move || {
                    mark.store(1, SeqCst);
                    let message = receiver.recv().unwrap();
                    served.lock().unwrap().push((me, message));
                })
                .unwrap();
                runtime
                    .run(at(0), || {
                        while about_to_wait.load(SeqCst) == 0 {
                            strands_sched::yield_now();
                        }
                        let_others_run();
                        counted.fetch_add(1, SeqCst);
                    })
                    .unwrap();
                assert_eq!(in_line.load(SeqCst), me + 1);
                (runtime, waits)
            })
            .collect();
        for message in 0..4 {
            sender.try_send(message).unwrap();
        }
        for (_runtime, waits) in threads {
            waits.join().unwrap();
        }
        let mut served = served.lock().unwrap().clone();
        served.sort_unstable();
        assert_eq!(served, [(0, 0), (1, 1), (2, 2), (3, 3)]);
    }
}

#[test]
fn a_loop_that_never_waits_starves_nobody() {
    for capacity in [1, 64, usize::MAX] {
        on_one_worker(move || {
            let (sender, receiver) = bounded(capacity);
            let stop = Rc::new(Cell::new(false));
            let (stopped, busy_sender, busy_receiver) =
                (stop.clone(), sender.clone(), receiver.clone());
            let busy = Local::until_it_waits(move |about_to_wait| {
                about_to_wait();
                let mut received = 0;
                while !stopped.get() {
                    let _ = busy_sender.try_send(0);
                    received += busy_receiver.try_recv().unwrap_or(0);
                }
                received
            });
            // We run though it never waits, and what we send gets in and through.
            let received: usize = (0..100)
                .map(|_| {
                    sender.send(1).unwrap();
                    receiver.try_recv().unwrap_or(0)
                })
                .sum();
            stop.set(true);
            let rest: usize = receiver.try_iter().sum();
            assert_eq!(received + rest + busy.join().unwrap(), 100);
        });
    }
}

#[test]
fn a_close_ends_all_waits() {
    for (one, other) in PAIRS {
        for capacity in [0, 1, 3, usize::MAX] {
            for by_sender in [true, false] {
                let runtime = runtime(2);
                let (sender, receiver) = bounded::<Box<usize>>(capacity);
                let receives: Vec<_> = (0..3)
                    .map(|_| {
                        let receiver = receiver.clone();
                        start(runtime.shared(), one, move || {
                            (receiver.recv(), receiver.recv_timeout(Duration::MAX))
                        })
                    })
                    .collect();
                let (closing, closed) = (sender.clone(), receiver.clone());
                start(runtime.shared(), other, move || match by_sender {
                    true => assert!(closing.close()),
                    false => assert!(closed.close()),
                })()
                .unwrap();
                for join in receives {
                    let ends = (Err(RecvError), Err(RecvTimeoutError::Disconnected));
                    assert_eq!(join().unwrap(), ends);
                }
            }
        }
    }
}

#[test]
fn a_close_gives_waiting_senders_their_messages_back() {
    for (one, other) in PAIRS {
        for capacity in [0, 1, 3] {
            for drops in [true, false] {
                let runtime = runtime(2);
                let (sender, receiver) = bounded(capacity);
                (0..capacity).for_each(|i| sender.try_send(Box::new(i)).unwrap());
                let waiting: Vec<_> = (0..3)
                    .map(|i| {
                        let sender = sender.clone();
                        start(runtime.shared(), one, move || sender.send(Box::new(100 + i)))
                    })
                    .collect();
                let receiver = start(runtime.shared(), other, move || {
                    if drops {
                        drop(receiver);
                        return None;
                    }
                    receiver.close();
                    Some(receiver)
                })()
                .unwrap();
                for (i, join) in waiting.into_iter().enumerate() {
                    assert_eq!(join().unwrap(), Err(SendError(Box::new(100 + i))));
                }
                if let Some(receiver) = receiver {
                    assert!(receiver.iter().map(|message| *message).eq(0..capacity));
                }
            }
        }
    }
}

#[test]
fn a_drain_takes_what_waits_too() {
    for capacity in [0, 1, 3, 70_000] {
        on_one_worker(move || {
            let (sender, receiver) = bounded(capacity);
            (0..capacity).for_each(|i| sender.try_send(i).unwrap());
            let waiting: Vec<_> = (capacity..capacity + 4)
                .map(|i| {
                    let sender = sender.clone();
                    Local::until_it_waits(move |about_to_wait| {
                        about_to_wait();
                        sender.send(i).unwrap();
                    })
                })
                .collect();
            let_others_run();
            let drained = receiver.drain();
            assert_eq!(drained.len(), capacity + 4);
            assert!(drained.eq(0..capacity + 4));
            waiting.into_iter().for_each(|fiber| fiber.join().unwrap());
            assert_eq!(receiver.drain().len(), 0);
            assert_eq!(sender.try_send(7).is_ok(), capacity > 0);
        });
    }
}

/// Counts how often it is dropped, and may do something meanwhile.
struct Message<F: FnMut() = fn()> {
    dropped: Arc<AtomicUsize>,
    then: F,
}

impl<F: FnMut()> Drop for Message<F> {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
        (self.then)();
    }
}

fn message(dropped: &Arc<AtomicUsize>) -> Message {
    Message { dropped: dropped.clone(), then: || () }
}

#[test]
fn the_last_receiver_drops_what_nobody_received() {
    everywhere(|| {
        for capacity in [8, 10, 100_000, usize::MAX] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let (sender, receiver) = bounded(capacity);
            (0..5).for_each(|_| sender.send(message(&dropped)).unwrap());
            receiver.iter().take(3).for_each(drop);
            (0..6).for_each(|_| sender.send(message(&dropped)).unwrap());
            drop(receiver.clone());
            assert_eq!(dropped.load(SeqCst), 3);
            drop(receiver);
            assert_eq!(dropped.load(SeqCst), 11);
            assert!(sender.send(message(&dropped)).is_err());
            assert_eq!(dropped.load(SeqCst), 12);
        }
    });
}

#[test]
fn a_destructor_may_use_the_channel_it_was_sent_on() {
    everywhere(|| {
        for capacity in [4, usize::MAX] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let (sender, receiver) = bounded::<Box<dyn Send>>(capacity);
            for _ in 0..3 {
                let (theirs, count) = (sender.clone(), dropped.clone());
                let then = move || {
                    assert!(theirs.clone().send(Box::new(())).is_err(), "the receiver is gone");
                    count.fetch_add(100, SeqCst);
                };
                sender.send(Box::new(Message { dropped: dropped.clone(), then })).unwrap();
            }
            drop(sender);
            drop(receiver);
            assert_eq!(dropped.load(SeqCst), 303);
        }
    });
}

#[test]
fn a_destructor_that_panics_drops_the_rest_all_the_same() {
    everywhere(|| {
        for capacity in [10, usize::MAX] {
            let dropped = Arc::new(AtomicUsize::new(0));
            let (sender, receiver) = bounded(capacity);
            for i in 0..10 {
                let then = move || {
                    if i == 3 {
                        resume_unwind(Box::new(()));
                    }
                };
                sender.send(Message { dropped: dropped.clone(), then }).unwrap();
            }
            assert!(catch_unwind(AssertUnwindSafe(|| drop(receiver))).is_err());
            assert_eq!(dropped.load(SeqCst), 10);
            assert!(sender.is_closed());
        }
    });
}

#[test]
fn times_out() {
    everywhere(|| {
        for capacity in [1, usize::MAX] {
            let (sender, receiver) = bounded(capacity);
            for timeout in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(100)] {
                let start = Instant::now();
                assert_eq!(receiver.recv_timeout(timeout), Err(RecvTimeoutError::Timeout));
                assert!(start.elapsed() >= timeout);
                sender.send(1).unwrap();
                if capacity == 1 {
                    let start = Instant::now();
                    let full = sender.send_timeout(2, timeout);
                    assert_eq!(full, Err(SendTimeoutError::Timeout(2)));
                    assert!(start.elapsed() >= timeout);
                }
                assert_eq!(receiver.recv_timeout(timeout), Ok(1));
                sender.send_timeout(3, timeout).unwrap();
                assert_eq!(receiver.recv_deadline(Instant::now()), Ok(3));
            }
            sender.send_timeout(2, Duration::MAX).unwrap();
            assert_eq!(receiver.recv_timeout(Duration::MAX), Ok(2));
        }
    });
    for (sends, receives) in PAIRS {
        let runtime = runtime(2);
        let (sender, receiver) = rendezvous();
        let receives =
            start(runtime.shared(), receives, move || receiver.recv_timeout(Duration::MAX));
        let send = move || sender.send_timeout(1, Duration::MAX).unwrap();
        start(runtime.shared(), sends, send)().unwrap();
        assert_eq!(receives().unwrap(), Ok(1));
    }
}

/// Both sides give up at random; each message is sent and received, or given back and sent again.
#[test]
fn timeouts_on_both_sides_lose_and_double_nothing() {
    let messages = 500 * stress();
    for (sends, receives) in PAIRS {
        for capacity in [0, 1, 3, usize::MAX] {
            let runtime = runtime(2);
            let (sender, receiver) = bounded(capacity);
            let sends = start(runtime.shared(), sends, move || {
                let mut round = 0;
                for i in 0..messages {
                    let mut message = Box::new(i);
                    loop {
                        round += 1;
                        match sender.send_timeout(message, Duration::from_micros(round % 5 * 5)) {
                            Ok(()) => break,
                            Err(SendTimeoutError::Timeout(back)) => message = back,
                            Err(SendTimeoutError::Disconnected(_)) => unreachable!(),
                        }
                    }
                    if i % 16 == 0 {
                        strands_sched::yield_now();
                    }
                }
            });
            let receives = start(runtime.shared(), receives, move || {
                let (mut received, mut round) = (Vec::new(), 0);
                loop {
                    round += 1;
                    match receiver.recv_timeout(Duration::from_micros(round % 4 * 5)) {
                        Ok(message) => received.push(*message),
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => return received,
                    }
                }
            });
            sends().unwrap();
            assert!(receives().unwrap().into_iter().eq(0..messages));
        }
    }
}

/// A fiber of one runtime sends and is cancelled while a thread receives, or the other way round.
/// Every message is received or dropped, once.
fn cancel_races(cancelled_sends: bool, capacity: usize) {
    let dropped = Arc::new(AtomicUsize::new(0));
    let (sent, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (sender, receiver) = bounded(capacity);
    let doomed = runtime(1);
    let sends = {
        let (dropped, sent) = (dropped.clone(), sent.clone());
        move || {
            loop {
                let next = message(&dropped);
                sent.fetch_add(1, SeqCst);
                if sender.send(next).is_err() {
                    return;
                }
            }
        }
    };
    let receives = {
        let received = received.clone();
        move || {
            for message in receiver {
                received.fetch_add(1, SeqCst);
                drop(message);
            }
        }
    };
    let (fiber, thread) = match cancelled_sends {
        true => (spawn_on(doomed.shared(), at(0), sends), std::thread::spawn(receives)),
        false => (spawn_on(doomed.shared(), at(0), receives), std::thread::spawn(sends)),
    };
    while received.load(SeqCst) < 20 {
        std::thread::yield_now();
    }
    doomed.shutdown(None).unwrap();
    assert!(fiber.unwrap().join().unwrap_err().is::<Cancelled>());
    thread.join().unwrap();
    assert_eq!(dropped.load(SeqCst), sent.load(SeqCst));
    assert!(received.load(SeqCst) <= sent.load(SeqCst));
}

#[test]
fn a_cancel_loses_and_doubles_nothing() {
    for _ in 0..3 * stress() {
        for capacity in CAPACITIES {
            cancel_races(false, capacity);
            // A sender that never waits would fill the memory until it is cancelled.
            if capacity < 10 {
                cancel_races(true, capacity);
            }
        }
    }
}

#[test]
fn a_cancelled_waiter_leaves_the_channel_as_it_was() {
    for capacity in [0, 1, 3, usize::MAX] {
        let (sender, receiver) = bounded(capacity);
        let theirs = receiver.clone();
        let doomed = runtime(1);
        let waits = move || catch_unwind(AssertUnwindSafe(|| theirs.recv())).is_err();
        let fiber = spawn_on(doomed.shared(), at(0), waits).unwrap();
        doomed.run(at(0), let_others_run).unwrap();
        doomed.shutdown(None).unwrap();
        assert!(fiber.join().unwrap(), "cancelled in recv");
        assert_eq!(sender.try_send(1).is_ok(), capacity > 0, "nobody is in line");
        assert_eq!(receiver.try_recv().is_ok(), capacity > 0);
        if capacity == usize::MAX {
            continue;
        }
        (0..capacity).for_each(|i| sender.try_send(i).unwrap());
        let theirs = sender.clone();
        let doomed = runtime(1);
        let waits = move || catch_unwind(AssertUnwindSafe(|| theirs.send(99))).is_err();
        let fiber = spawn_on(doomed.shared(), at(0), waits).unwrap();
        doomed.run(at(0), let_others_run).unwrap();
        doomed.shutdown(None).unwrap();
        assert!(fiber.join().unwrap(), "cancelled in send");
        assert!(receiver.try_iter().eq(0..capacity), "nobody is in line");
        assert_eq!(sender.try_send(1).is_ok(), capacity > 0);
    }
}

#[test]
fn a_fiber_that_has_its_message_is_not_cancelled() {
    on_one_worker(|| {
        let (sender, receiver) = bounded(1);
        let receives = spawn_local(SpawnOptions::default(), move || receiver.recv()).unwrap();
        let_others_run();
        sender.send(5).unwrap();
        receives.task().cancel();
        assert_eq!(receives.join().unwrap(), Ok(5));
    });
}

#[test]
fn handles_come_and_go_while_messages_pass() {
    let rounds = 200 * stress();
    let runtime = runtime(2);
    for capacity in CAPACITIES {
        let (sender, receiver) = bounded(capacity);
        let kinds = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1)];
        let sends = kinds.map(|kind| {
            let sender = sender.clone();
            start(runtime.shared(), kind, move || {
                for _ in 0..rounds {
                    let clone = sender.clone();
                    drop(sender.clone());
                    clone.send(1).unwrap();
                }
            })
        });
        let receives = kinds.map(|kind| {
            let receiver = receiver.clone();
            start(runtime.shared(), kind, move || {
                let mut received = 0;
                while let Ok(message) = receiver.clone().recv() {
                    received += message;
                }
                received
            })
        });
        drop((sender, receiver));
        sends.into_iter().for_each(|join| join().unwrap());
        let received: usize = receives.into_iter().map(|join| join().unwrap()).sum();
        assert_eq!(received, 3 * rounds);
    }
}

/// What one party may do without waiting, in any order, is what a plain queue does.
#[derive(Debug, Clone, Copy)]
enum Step {
    TrySend,
    SendTimeout,
    TryRecv,
    RecvTimeout,
    Drain,
    Close,
    CloneAndDrop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::TrySend),
        2 => Just(Step::SendTimeout),
        6 => Just(Step::TryRecv),
        2 => Just(Step::RecvTimeout),
        1 => Just(Step::Drain),
        1 => Just(Step::CloneAndDrop),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_party_alone_sees_a_queue(
        capacity in prop_oneof![Just(0), 1..6usize, Just(70_000), Just(usize::MAX)],
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let (sender, receiver): (Sender<usize>, Receiver<usize>) = bounded(capacity);
        let (mut queue, mut closed) = (VecDeque::new(), false);
        for (i, step) in steps.into_iter().enumerate() {
            match step {
                Step::TrySend | Step::SendTimeout => {
                    let expected = if closed {
                        Err(TrySendError::Disconnected(i))
                    } else if queue.len() == capacity {
                        Err(TrySendError::Full(i))
                    } else {
                        queue.push_back(i);
                        Ok(())
                    };
                    let sent = match step {
                        Step::TrySend => sender.try_send(i),
                        _ => sender.send_timeout(i, Duration::ZERO).map_err(|error| match error {
                            SendTimeoutError::Timeout(i) => TrySendError::Full(i),
                            SendTimeoutError::Disconnected(i) => TrySendError::Disconnected(i),
                        }),
                    };
                    prop_assert_eq!(sent, expected);
                }
                Step::TryRecv | Step::RecvTimeout => {
                    let nothing = if closed { TryRecvError::Disconnected } else { TryRecvError::Empty };
                    let received = match step {
                        Step::TryRecv => receiver.try_recv(),
                        _ => receiver.recv_timeout(Duration::ZERO).map_err(|error| match error {
                            RecvTimeoutError::Timeout => TryRecvError::Empty,
                            RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                        }),
                    };
                    prop_assert_eq!(received, queue.pop_front().ok_or(nothing));
                }
                Step::Drain => prop_assert!(receiver.drain().eq(queue.drain(..))),
                Step::Close => {
                    prop_assert_eq!(sender.close(), !closed);
                    closed = true;
                }
                Step::CloneAndDrop => drop((sender.clone(), receiver.clone())),
            }
            prop_assert_eq!(receiver.len(), queue.len());
            prop_assert_eq!(sender.is_full(), queue.len() == capacity);
            prop_assert_eq!(sender.is_closed(), closed);
        }
    }
}
