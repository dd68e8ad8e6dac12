//! Select: exactly one of several operations, by fibers and threads in any mix.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::{
    Kind, Local, PAIRS, Random, at, everywhere, let_others_run, on_one_worker, runtime, start,
    stress,
};
use strands_sched::{
    Cancelled, Operation, Order, SpawnOptions, Timer, select, spawn_local, spawn_on, try_select,
};
use strands_sync::channel::{Receiver, Sender, bounded, rendezvous, unbounded};
use strands_sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};

/// The one that is performed beside one that never is.
fn only(operation: &dyn Operation) {
    let never = Timer::at(None);
    assert_eq!(select(&[&never, operation, &never], Order::Fair, None), Some(1));
}

/// The same, and then `take`.
fn outcome<O: Operation, T>(operation: O, take: impl FnOnce(&O) -> T) -> T {
    only(&operation);
    take(&operation)
}

#[test]
fn performs_what_is_possible() {
    everywhere(|| {
        let soon = Some(Instant::now() + Duration::from_micros(10));
        let (sender, receiver) = bounded(1);
        let (send, recv) = (sender.select_send(1), receiver.select_recv());
        assert_eq!(select(&[&recv], Order::Fair, soon), None);
        only(&send);
        assert_eq!((send.take(), send.take(), recv.take()), (Some(Ok(())), None, None));
        assert_eq!(try_select(&[&send], Order::Fair), None, "there is no message to send");
        send.replace(Some(2));
        assert_eq!(select(&[&send], Order::Fair, soon), None, "there is no room");
        only(&recv);
        assert_eq!(recv.take(), Some(Ok(1)));
        assert_eq!(send.replace(None), Some(2));
        sender.close();
        only(&recv);
        assert!(recv.take().unwrap().is_err());
        send.replace(Some(3));
        only(&send);
        assert_eq!(send.take().unwrap().unwrap_err().0, 3);

        let (sender, receiver) = mpsc::sync_channel(1);
        let (send, recv) = (sender.select_send("a"), receiver.select_recv());
        only(&send);
        only(&recv);
        assert_eq!((send.take(), recv.take()), (Some(Ok(())), Some(Ok("a"))));
        let (sender, receiver) = mpsc::channel();
        (0..3).for_each(|number| sender.send(number).unwrap());
        drop(sender);
        let recv = receiver.select_recv();
        for number in 0..3 {
            only(&recv);
            assert_eq!(recv.take(), Some(Ok(number)));
        }
        only(&recv);
        assert!(recv.take().unwrap().is_err());

        let (sender, mut receiver) = oneshot::channel();
        assert_eq!(try_select(&[&receiver.select_recv()], Order::Fair), None);
        sender.send(4).unwrap();
        let recv = receiver.select_recv();
        only(&recv);
        assert_eq!(recv.take(), Some(Ok(4)));

        let (sender, mut receiver) = oneshot::channel::<u32>();
        let recv = receiver.select_recv();
        assert_eq!(recv.take(), None);
        drop(sender);
        only(&recv);
        assert!(recv.take().unwrap().is_err());

        let (sender, mut receiver) = broadcast::channel(2);
        (0..3).for_each(|number| assert_eq!(sender.send(number), Ok(1)));
        let recv = receiver.select_recv();
        only(&recv);
        assert_eq!(recv.take(), Some(Err(broadcast::RecvError::Lagged(1))));
        only(&recv);
        assert_eq!(recv.take(), Some(Ok(1)));
        only(&recv);
        assert_eq!((recv.take(), recv.take()), (Some(Ok(2)), None));
        drop(sender);
        only(&recv);
        assert_eq!(recv.take(), Some(Err(broadcast::RecvError::Closed)));

        let (sender, mut receiver) = watch::channel(0);
        let changed = receiver.select_changed();
        assert_eq!(select(&[&changed], Order::Fair, soon), None);
        sender.send(1).unwrap();
        only(&changed);
        assert_eq!((changed.take(), changed.take()), (Some(Ok(())), None));
        drop(sender);
        only(&changed);
        assert_eq!(changed.take(), Some(Err(watch::RecvError)));

        let notify = Notify::new();
        let notified = notify.select_notified();
        assert_eq!(select(&[&notified], Order::Fair, soon), None);
        for tell in [Notify::notify_one, Notify::notify_waiters] {
            tell(&notify);
            only(&notified);
            assert_eq!(notified.take(), Some(()));
            assert_eq!(try_select(&[&notified], Order::Fair), None);
        }

        let semaphore = Semaphore::new(3);
        let acquire = semaphore.select_acquire_many(2);
        only(&acquire);
        let permit = acquire.take().unwrap().unwrap();
        assert_eq!(select(&[&acquire], Order::Fair, soon), None);
        assert_eq!(semaphore.available_permits(), 1);
        drop(permit);
        only(&acquire);
        drop(acquire); // Its permits were not fetched.
        assert_eq!(semaphore.available_permits(), 3);
        semaphore.close();
        let acquire = semaphore.select_acquire();
        only(&acquire);
        assert!(acquire.take().unwrap().is_err());
    });
}

/// Each kind of operation is waited for, beside one that never comes, and somebody makes it possible.
#[test]
fn waits_for_each_kind() {
    type Act = Box<dyn FnOnce() + Send>;
    type Setup = fn() -> (Act, Act);
    fn setup(
        wait: impl FnOnce() + Send + 'static,
        make: impl FnOnce() + Send + 'static,
    ) -> (Act, Act) {
        (Box::new(wait), Box::new(make))
    }
    let setups: [Setup; 9] = [
        || {
            let (sender, receiver) = rendezvous();
            let wait = move || {
                assert_eq!(outcome(receiver.select_recv(), |recv| recv.take()), Some(Ok(1)));
            };
            setup(wait, move || sender.send(1).unwrap())
        },
        || {
            let (sender, receiver) = bounded(1);
            sender.send(1).unwrap();
            let second = receiver.clone();
            let wait = move || {
                assert_eq!(outcome(sender.select_send(2), |send| send.take()), Some(Ok(())));
                assert_eq!(second.recv(), Ok(2));
            };
            setup(wait, move || assert_eq!(receiver.recv(), Ok(1)))
        },
        || {
            let (sender, receiver) = mpsc::channel();
            let wait = move || {
                assert_eq!(outcome(receiver.select_recv(), |recv| recv.take()), Some(Ok(1)));
            };
            setup(wait, move || sender.send(1).unwrap())
        },
        || {
            let (sender, receiver) = mpsc::sync_channel(0);
            let wait = move || {
                assert_eq!(outcome(sender.select_send(1), |send| send.take()), Some(Ok(())));
            };
            setup(wait, move || assert_eq!(receiver.recv(), Ok(1)))
        },
        || {
            let (sender, mut receiver) = oneshot::channel();
            let wait = move || {
                assert_eq!(outcome(receiver.select_recv(), |recv| recv.take()), Some(Ok(1)));
            };
            setup(wait, move || sender.send(1).unwrap())
        },
        || {
            let (sender, mut receiver) = broadcast::channel(1);
            let wait = move || {
                assert_eq!(outcome(receiver.select_recv(), |recv| recv.take()), Some(Ok(1)));
            };
            setup(wait, move || assert_eq!(sender.send(1), Ok(1)))
        },
        || {
            let (sender, mut receiver) = watch::channel(0);
            let wait = move || {
                assert_eq!(
                    outcome(receiver.select_changed(), |changed| changed.take()),
                    Some(Ok(()))
                );
                assert_eq!(*receiver.borrow(), 1);
            };
            setup(wait, move || sender.send(1).unwrap())
        },
        || {
            let notify = Arc::new(Notify::new());
            let other = notify.clone();
            let wait = move || {
                assert_eq!(outcome(notify.select_notified(), |notified| notified.take()), Some(()));
            };
            setup(wait, move || other.notify_one())
        },
        || {
            let semaphore = Arc::new(Semaphore::new(1));
            let other = semaphore.clone();
            let wait = move || {
                let permit = outcome(semaphore.select_acquire_many(2), |acquire| acquire.take());
                assert_eq!(permit.unwrap().unwrap().num_permits(), 2);
            };
            setup(wait, move || other.add_permits(1))
        },
    ];
    let runtime = runtime(2);
    for _ in 0..20 * stress() {
        for make in setups {
            for (waits, makes) in PAIRS {
                let (wait, make) = make();
                let waits = start(runtime.shared(), waits, wait);
                start(runtime.shared(), makes, make)().unwrap();
                waits().unwrap();
            }
        }
    }
    runtime.shutdown(None).unwrap();
}

/// In one select, two wait for a fiber each.
#[test]
fn joins_the_first_that_ends() {
    let runtime = runtime(2);
    for (other, here) in [(0, 0), (1, 0)] {
        let shared = runtime.shared().clone();
        let check = move || {
            let (sender, receiver) = rendezvous::<u32>();
            let mut patient = spawn_on(&shared, at(other), move || receiver.recv()).unwrap();
            let mut quick = spawn_on(&shared, at(other), || 7).unwrap();
            {
                let (first, second) = (patient.select_join(), quick.select_join());
                assert_eq!(select(&[&first, &second], Order::Fair, None), Some(1));
                assert_eq!(second.take().unwrap().unwrap(), 7);
                assert!(first.take().is_none() && second.take().is_none());
                assert_eq!(try_select(&[&first, &second], Order::Fair), None);
                let soon = Some(Instant::now() + Duration::from_millis(1));
                assert_eq!(select(&[&first, &second], Order::Fair, soon), None);
            }
            sender.send(8).unwrap();
            assert_eq!(patient.join().unwrap(), Ok(8), "it was left as it was");
            drop(quick);
        };
        runtime.run(at(here), check).unwrap();
    }
    let mut fiber = spawn_on(runtime.shared(), at(0), || 1).unwrap();
    only(&fiber.select_join()); // On a plain thread; the result is not taken.
    assert_eq!(fiber.join().unwrap(), 1);
    runtime.shutdown(None).unwrap();
}

#[test]
fn a_zero_timeout_takes_what_is_there_and_a_huge_one_waits() {
    everywhere(|| {
        let (sender, receiver) = unbounded();
        let recv = receiver.select_recv();
        let now = Instant::now();
        assert_eq!(select(&[&recv], Order::Fair, Some(now)), None);
        assert_eq!(select(&[], Order::Fair, Some(now)), None);
        sender.send(1).unwrap();
        assert_eq!(select(&[&recv], Order::Fair, Some(now)), Some(0));
        assert_eq!(recv.take(), Some(Ok(1)));
        let far = now + Duration::from_secs(1 << 32);
        sender.send(2).unwrap();
        assert_eq!(select(&[&Timer::at(far), &recv], Order::Fair, Some(far)), Some(1));
    });
}

/// With the outcome not fetched, the operation is ready, and nothing is lost.
#[test]
fn an_outcome_that_was_not_fetched_stays() {
    everywhere(|| {
        let (sender, receiver) = unbounded();
        let recv = receiver.select_recv();
        (0..2).for_each(|number| sender.send(number).unwrap());
        only(&recv);
        only(&recv);
        assert_eq!((recv.take(), recv.take()), (Some(Ok(0)), None));
        assert_eq!(receiver.recv(), Ok(1));
        let send = sender.select_send(2);
        only(&send);
        only(&send);
        assert_eq!((send.take(), send.take()), (Some(Ok(())), None));
        assert!(receiver.try_iter().eq([2]), "sent once");
    });
}

#[test]
fn a_closed_semaphore_gives_no_permits() {
    let semaphore = Semaphore::new(0);
    semaphore.close();
    let acquire = semaphore.select_acquire_many(3);
    only(&acquire);
    assert!(acquire.take().unwrap().is_err());
    drop(acquire);
    assert_eq!(semaphore.available_permits(), 0);
}

#[test]
fn an_operation_may_stand_in_a_select_twice() {
    for round in 0..200 * stress() {
        let (sender, receiver) = rendezvous();
        let semaphore = Semaphore::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let send = sender.select_send(Box::new(round));
                assert!(select(&[&send, &send, &send], Order::Fair, None).is_some());
                assert!(send.take().unwrap().is_ok(), "it is open");
            });
            scope.spawn(|| {
                let acquire = semaphore.select_acquire_many(2);
                assert!(select(&[&acquire, &acquire], Order::Fair, None).is_some());
                acquire.take().unwrap().unwrap().forget();
            });
            assert_eq!(receiver.recv(), Ok(Box::new(round)));
            semaphore.add_permits(3);
        });
        semaphore.try_acquire().expect("one is left, and nobody in line").forget();
    }
}

#[test]
fn a_change_is_news_once() {
    let (sender, mut receiver) = watch::channel(0);
    let last = 2_000 * stress();
    std::thread::scope(|scope| {
        // Whoever receives the last is done; the sender lives until then.
        scope.spawn(|| {
            for number in 1..=last {
                sender.send_replace(number);
            }
        });
        while *receiver.borrow_and_update() < last {
            let changed = receiver.select_changed();
            only(&changed);
            assert_eq!(changed.take(), Some(Ok(())), "it was performed");
        }
    });
}

#[test]
fn a_sender_that_waits_for_the_end_lets_the_receiver_go() {
    for spent in 0..4 {
        on_one_worker(move || {
            let (sender, receiver) = broadcast::channel::<()>(1);
            let ends = move || drop(receiver);
            let receiver = spawn_local(SpawnOptions::default(), ends).unwrap();
            // So that the budget is spent at each of the places where that is looked at.
            for _ in 0..spent {
                let _ = sender.len();
            }
            while !sender.closed_timeout(Duration::ZERO) {}
            receiver.join().unwrap();
        });
    }
}

/// Of two that are always possible each is chosen half of the time, wherever they stand; biased, the first.
#[test]
fn a_choice_by_lot_is_fair() {
    everywhere(|| {
        let (now, never) = (Timer::at(Instant::now()), Timer::at(None));
        let rounds = 20_000;
        let mut counts = [0u32; 4];
        for _ in 0..rounds {
            let operations: [&dyn Operation; 4] = [&now, &now, &never, &never];
            counts[select(&operations, Order::Fair, None).unwrap()] += 1;
        }
        // Half of the rounds, give or take ten standard deviations.
        assert!(counts[0].abs_diff(rounds / 2) < 700, "{counts:?}");
        let mut counts = [0u32; 5];
        for _ in 0..rounds {
            counts[select(&[&now; 5].map(|now| now as &dyn Operation), Order::Fair, None)
                .unwrap()] += 1;
        }
        assert!(counts.iter().all(|&count| count.abs_diff(rounds / 5) < 600), "{counts:?}");
        assert_eq!(select(&[&never, &now, &now], Order::Biased, None), Some(1));
    });
}

/// First come, first served: a select stands in line like anybody else.
#[test]
fn a_select_keeps_its_place_in_line() {
    on_one_worker(|| {
        let (sender, receiver) = rendezvous();
        let receiver = Rc::new(receiver);
        let waits = |by_select: bool| {
            let receiver = receiver.clone();
            Local::until_it_waits(move |about_to_wait| {
                about_to_wait();
                if !by_select {
                    return receiver.recv().unwrap();
                }
                let recv = receiver.select_recv();
                only(&recv);
                recv.take().unwrap().unwrap()
            })
        };
        let waiters = [false, true, false, true].map(waits);
        (0..4).for_each(|number| sender.send(number).unwrap());
        assert_eq!(waiters.map(|waiter| waiter.join().unwrap()), [0, 1, 2, 3]);
    });
}

#[test]
fn a_cancelled_select_leaves_nothing_behind() {
    on_one_worker(|| {
        let (sender, receiver) = rendezvous::<u32>();
        let semaphore = Rc::new(Semaphore::new(0));
        let fiber = {
            let (sender, receiver) = (sender.clone(), receiver.clone());
            let semaphore = semaphore.clone();
            let waits = move || {
                let (recv, send) = (receiver.select_recv(), sender.select_send(1));
                let acquire = semaphore.select_acquire();
                select(&[&recv, &send, &acquire], Order::Fair, None)
            };
            spawn_local(SpawnOptions::default(), waits).unwrap()
        };
        let_others_run(); // It waits now, as nobody else does anything.
        fiber.task().cancel();
        // Here it is cancelled and still in all lines: who comes by must not count on it, nor lose anything.
        semaphore.add_permits(1);
        let chosen = fiber.join();
        match chosen {
            Err(payload) => assert!(payload.is::<Cancelled>()),
            Ok(index) => assert_eq!(index, Some(2), "it had the permit first"),
        }
        assert!(sender.try_send(2).is_err(), "nobody receives");
        assert!(receiver.try_recv().is_err(), "nobody sends");
        assert_eq!(semaphore.available_permits(), 1);
    });
}

/// Who stands in a select twice is performed once.
#[test]
fn permits_are_acquired_once_by_who_stands_there_twice() {
    on_one_worker(|| {
        let semaphore = Rc::new(Semaphore::new(0));
        let theirs = semaphore.clone();
        let waits = Local::until_it_waits(move |about_to_wait| {
            let acquire = theirs.select_acquire();
            about_to_wait();
            assert!(select(&[&acquire, &acquire], Order::Fair, None).is_some());
            acquire.take().unwrap().unwrap().forget();
            acquire.take().is_none()
        });
        semaphore.add_permits(2);
        assert!(waits.join().unwrap());
        assert_eq!(semaphore.available_permits(), 1);
        assert!(semaphore.try_acquire().is_ok(), "nobody is in line");
    });
}

/// Chosen, and not run since, it is in line still with what it would have sent.
#[test]
fn a_select_that_was_chosen_elsewhere_sends_nothing() {
    on_one_worker(|| {
        let ((to_us, from_it), (to_it, its)) = (rendezvous(), rendezvous::<u32>());
        let it = Local::until_it_waits(move |about_to_wait| {
            let (send, recv) = (to_us.select_send(1), its.select_recv());
            about_to_wait();
            assert_eq!(select(&[&send, &recv], Order::Fair, None), Some(1));
            (send.take(), recv.take())
        });
        to_it.try_send(2).unwrap();
        assert_eq!(from_it.drain().count(), 0);
        assert_eq!(it.join().unwrap(), (None, Some(Ok(2))));
    });
}

#[test]
fn an_operation_is_of_one_select_at_a_time() {
    static RECEIVER: OnceLock<Receiver<u32>> = OnceLock::new();
    on_one_worker(|| {
        let (sender, receiver) = rendezvous();
        let recv = Rc::new(RECEIVER.get_or_init(|| receiver).select_recv());
        let its = recv.clone();
        let waits = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            only(&*its);
        });
        let tries = || try_select(&[&*recv], Order::Fair);
        let payload = catch_unwind(AssertUnwindSafe(tries)).unwrap_err();
        let text = payload.downcast_ref::<&str>().unwrap();
        assert_eq!(*text, "an operation is used by a select that waits");
        sender.send(1).unwrap();
        waits.join().unwrap();
        assert_eq!(recv.take(), Some(Ok(1)));
    });
}

/// What was sent and received, by number and sum.
#[derive(Default)]
struct Books {
    sent: AtomicUsize,
    sum_sent: AtomicU64,
    received: AtomicUsize,
    sum_received: AtomicU64,
    timed_out: AtomicUsize,
}

impl Books {
    fn send(&self, message: u64) {
        self.sent.fetch_add(1, SeqCst);
        self.sum_sent.fetch_add(message, SeqCst);
    }

    fn receive(&self, message: u64) {
        self.received.fetch_add(1, SeqCst);
        self.sum_received.fetch_add(message, SeqCst);
    }
}

/// One party: each round it selects among receives of some channels and sends to others, mostly with a timeout.
fn party(channels: &[(Sender<u64>, Receiver<u64>)], books: &Books, seed: u64, rounds: usize) {
    let mut random = Random(seed);
    let receives: Vec<_> = channels.iter().map(|ends| ends.1.select_recv()).collect();
    let sends: Vec<_> = channels.iter().map(|ends| ends.0.select_send(0)).collect();
    sends.iter().for_each(|send| assert_eq!(send.replace(None), Some(0)));
    let book = |chosen: &dyn Operation, message: u64| {
        let address = |operation: &dyn Operation| std::ptr::from_ref(operation).cast::<()>().addr();
        match receives.iter().find(|recv| address(*recv) == address(chosen)) {
            Some(recv) => books.receive(recv.take().unwrap().unwrap()),
            None => {
                let send = sends.iter().find(|send| address(*send) == address(chosen)).unwrap();
                assert_eq!(send.take(), Some(Ok(())));
                books.send(message);
            }
        }
    };
    for round in 0..rounds {
        let message = seed << 32 | round as u64;
        let mut operations: Vec<&dyn Operation> = Vec::new();
        let mut with_message = Vec::new();
        for _ in 0..1 + random.below(6) {
            let channel = random.below(channels.len());
            if random.below(2) == 0 {
                operations.push(&receives[channel]);
            } else {
                sends[channel].replace(Some(message));
                with_message.push(channel);
                operations.push(&sends[channel]);
            }
        }
        let order = if random.below(4) == 0 { Order::Biased } else { Order::Fair };
        let time = Duration::from_micros(random.below(200) as u64);
        let chosen = match random.below(8) {
            0 => try_select(&operations, order),
            1 => select(&operations, order, Some(Instant::now())),
            _ => select(&operations, order, Some(Instant::now() + time)),
        };
        match chosen {
            Some(index) => book(operations[index], message),
            None => drop(books.timed_out.fetch_add(1, SeqCst)),
        }
        // Exactly one was performed: no other has an outcome, and each other message is there still.
        assert!(receives.iter().all(|recv| recv.take().is_none()));
        assert!(sends.iter().all(|send| send.take().is_none()));
        let left: Vec<_> = with_message.iter().filter_map(|&i| sends[i].replace(None)).collect();
        with_message.sort_unstable();
        with_message.dedup();
        let sent = chosen.is_some_and(|index| {
            let address = std::ptr::from_ref(operations[index]).cast::<()>().addr();
            sends.iter().any(|send| std::ptr::from_ref(send).addr() == address)
        });
        assert_eq!(left.len(), with_message.len() - usize::from(sent));
    }
}

/// Selects of both directions on 8 channels of all kinds, by fibers of two workers and plain threads; some are
/// cancelled. In the end all that was sent has been received, once.
#[test]
fn nothing_is_lost_or_doubled_on_eight_channels() {
    for seed in 1..=(2 * stress() as u64) {
        let capacities = [0, 0, 0, 0, 1, 2, 7, usize::MAX];
        let channels: Arc<Vec<_>> = Arc::new(capacities.map(bounded::<u64>).into());
        let books = Arc::new(Books::default());
        let runtime = runtime(2);
        let rounds = 1_000;
        let parties: Vec<_> = (0..9u64)
            .map(|i| {
                let (channels, books) = (channels.clone(), books.clone());
                let kind = match i % 3 {
                    2 => Kind::Thread,
                    worker => Kind::Fiber(worker as usize),
                };
                let seed = seed * 100 + i;
                start(runtime.shared(), kind, move || party(&channels, &books, seed, rounds))
            })
            .collect();
        // Plain senders and receivers come by, which are cancelled where they wait.
        let strangers: Vec<_> = (0..6u64)
            .map(|i| {
                let (channels, books) = (channels.clone(), books.clone());
                let stranger = move || {
                    let mut random = Random(seed * 1_000 + i);
                    loop {
                        let (sender, receiver) = &channels[random.below(8)];
                        if random.below(2) == 0 {
                            let message = i << 48;
                            let mut place = Some(message);
                            let send = sender.select_send(&mut place);
                            let recv = receiver.select_recv();
                            match select(&[&send, &recv], Order::Fair, None) {
                                Some(0) => books.send(message),
                                _ => books.receive(recv.take().unwrap().unwrap()),
                            }
                        } else {
                            let time =
                                Instant::now() + Duration::from_micros(random.below(100) as u64);
                            if let Ok(message) = receiver.recv_deadline(time) {
                                books.receive(message);
                            }
                        }
                    }
                };
                spawn_on(runtime.shared(), at(i as usize % 2), stranger).unwrap()
            })
            .collect();
        // Half of them amid all that, the others at the end.
        let mut strangers = strangers.into_iter();
        let cancel = |stranger: strands_sched::Join<()>| {
            stranger.task().cancel();
            assert!(stranger.join().unwrap_err().is::<Cancelled>());
        };
        strangers.by_ref().take(3).for_each(cancel);
        parties.into_iter().for_each(|party| party().unwrap());
        strangers.for_each(cancel);
        runtime.shutdown(None).unwrap();
        for (_, receiver) in &*channels {
            receiver.try_iter().for_each(|message| books.receive(message)); // What is left.
        }
        let timed_out = books.timed_out.load(SeqCst);
        assert!(timed_out > 0, "seed {seed}: nobody's time was up");
        assert_eq!(
            (books.sent.load(SeqCst), books.sum_sent.load(SeqCst)),
            (books.received.load(SeqCst), books.sum_received.load(SeqCst)),
            "seed {seed}: what was sent is not what was received"
        );
    }
}

#[test]
fn local_fibers_meet_by_selects() {
    on_one_worker(|| {
        let (sender, receiver) = rendezvous();
        let rounds = 2_000 * stress();
        let other = {
            let (sender, receiver) = (sender.clone(), receiver.clone());
            spawn_local(SpawnOptions::default(), move || both_ways(&sender, &receiver, rounds))
                .unwrap()
        };
        let here = both_ways(&sender, &receiver, rounds);
        let there = other.join().unwrap();
        assert_eq!((here + there) as usize, rounds, "each message has one who sends it");
    });
}

/// How many of the rounds were sends.
fn both_ways(sender: &Sender<u64>, receiver: &Receiver<u64>, rounds: usize) -> u64 {
    let (send, recv) = (sender.select_send(0), receiver.select_recv());
    let mut sent = 0;
    for _ in 0..rounds {
        if select(&[&send, &recv], Order::Fair, None) == Some(0) {
            assert_eq!(send.take(), Some(Ok(())));
            send.replace(Some(0));
            sent += 1;
        } else {
            assert_eq!(recv.take(), Some(Ok(0)));
        }
    }
    sent
}

/// First come, first served, by party: what a select asks for first holds up others, but not what it asks for second.
#[test]
fn two_requests_of_one_select() {
    on_one_worker(|| {
        for (given, expected) in [(1, 1), (2, 0)] {
            let semaphore = Rc::new(Semaphore::new(0));
            let theirs = semaphore.clone();
            let both = Local::until_it_waits(move |about_to_wait| {
                let (two, one) = (theirs.select_acquire_many(2), theirs.select_acquire());
                let notify = Notify::new();
                about_to_wait();
                let operations: [&dyn Operation; 3] = [&two, &notify.select_notified(), &one];
                let chosen = select(&operations, Order::Biased, None).unwrap();
                assert_eq!([two.take(), one.take()].iter().flatten().count(), 1);
                chosen / 2
            });
            let theirs = semaphore.clone();
            let other = Local::until_it_waits(move |about_to_wait| {
                about_to_wait();
                drop(theirs.acquire().unwrap());
            });
            semaphore.add_permits(given);
            assert_eq!(both.join().unwrap(), expected);
            other.join().unwrap();
            assert_eq!(semaphore.available_permits(), given);
        }
    });
}

#[test]
fn a_request_for_many_permits_waits_until_there_are_as_many() {
    on_one_worker(|| {
        let semaphore = Rc::new(Semaphore::new(0));
        let theirs = semaphore.clone();
        let fiber = Local::until_it_waits(move |about_to_wait| {
            let two = theirs.select_acquire_many(2);
            about_to_wait();
            only(&two);
            two.take().unwrap().unwrap().forget();
        });
        semaphore.add_permits(1);
        let_others_run();
        assert_eq!(semaphore.available_permits(), 1, "it has been taken for too few");
        semaphore.add_permits(1);
        fiber.join().unwrap();
        assert_eq!(semaphore.available_permits(), 0);
    });
}

/// The same beside others who come and go: no permit is lost, and nobody is left behind.
#[test]
fn two_requests_of_each_select_race() {
    const PERMITS: usize = 3;
    const ROUNDS: usize = 200;
    let (rounds, runtime) = (ROUNDS * stress(), runtime(2));
    let semaphore = Arc::new(Semaphore::new(PERMITS));
    let kinds = [Kind::Thread, Kind::Fiber(0), Kind::Fiber(0), Kind::Fiber(1), Kind::Thread];
    let parties: Vec<_> = (0..)
        .zip(kinds)
        .map(|(number, kind)| {
            let semaphore = semaphore.clone();
            start(runtime.shared(), kind, move || {
                for round in 0..rounds {
                    if number == 0 && round % 3 == 0 {
                        drop(semaphore.acquire_many(2).unwrap());
                        continue;
                    }
                    let many = semaphore.select_acquire_many(PERMITS as u32);
                    let (one, two) = (semaphore.select_acquire(), semaphore.select_acquire_many(2));
                    let chosen = select(&[&many, &one, &two], Order::Fair, None).unwrap();
                    let permits = [many.take(), one.take(), two.take()]
                        .map(|got| got.map_or(0, |permit| permit.unwrap().num_permits()));
                    let mut expected = [0; 3];
                    expected[chosen] = [PERMITS, 1, 2][chosen];
                    assert_eq!(permits, expected);
                }
            })
        })
        .collect();
    parties.into_iter().for_each(|party| party().unwrap());
    assert_eq!(semaphore.available_permits(), PERMITS);
    drop(semaphore.try_acquire_many(PERMITS as u32).expect("somebody is left in line"));
    runtime.shutdown(None).unwrap();
}
