//! Each primitive, used by fibers of two workers and four plain threads at once, with random timeouts;
//! the counts must be exact.
//!
//! 20,000 operations a primitive; `STRANDS_STRESS` multiplies them: 50 makes it a million.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use common::{Kind, Random, runtime, start, stress};
use strands_sched::yield_now;
use strands_sync::mpsc::{self, RecvTimeoutError, TryRecvError, channel, sync_channel};
use strands_sync::{
    AcquireTimeoutError, Barrier, Condvar, LazyLock, Mutex, Notify, Once, OnceLock, RwLock,
    Semaphore, WaitGroup, broadcast, channel as mpmc, oneshot, watch,
};

/// Four plain threads, and two fibers on each of two workers.
const PARTIES: usize = 8;

fn kind(party: usize) -> Kind {
    [Kind::Thread, Kind::Fiber(0), Kind::Fiber(1), Kind::Thread][party % 4]
}

fn operations() -> usize {
    20_000 * stress()
}

/// Runs `party` as each of the parties, by a seed of its own; what they return, in order.
fn run<T, F>(mut party: impl FnMut(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: FnOnce(Random) -> T + Send + 'static,
{
    let runtime = runtime(2);
    let to_come = Arc::new(AtomicUsize::new(PARTIES));
    let started: Vec<_> = (0..PARTIES)
        .map(|me| {
            let (party, to_come) = (party(me), to_come.clone());
            start(runtime.shared(), kind(me), move || {
                to_come.fetch_sub(1, Relaxed);
                while to_come.load(Relaxed) > 0 {
                    yield_now(); // Else the first are done before the last begin.
                }
                party(Random(me as u64))
            })
        })
        .collect();
    started.into_iter().map(|join| join().unwrap()).collect()
}

/// As [`run`], with something that all share.
fn share<S, T>(shared: S, party: fn(usize, &S, Random) -> T) -> (Vec<T>, S)
where
    S: Send + Sync + 'static,
    T: Send + 'static,
{
    let shared = Arc::new(shared);
    let results = run(|me| {
        let shared = shared.clone();
        move |random| party(me, &shared, random)
    });
    (results, Arc::into_inner(shared).expect("all have ended"))
}

#[test]
fn mutex() {
    let (_, total) = share(Mutex::new(0), |_, total, mut random| {
        for _ in 0..operations() / PARTIES {
            let mut guard = match random.below(4) {
                0 => total.try_lock().unwrap_or_else(|_| total.lock().unwrap()),
                _ => total.lock().unwrap(),
            };
            *guard += 1;
            if random.below(64) == 0 {
                yield_now(); // With the lock in hand.
            }
        }
    });
    assert_eq!(total.into_inner().unwrap(), operations());
}

#[test]
fn rwlock() {
    let (writes, lock) = share(RwLock::new((0, 0)), |_, lock, mut random| {
        let mut writes = 0;
        for _ in 0..operations() / PARTIES {
            if random.below(4) == 0 {
                let mut guard = match random.below(2) {
                    0 => lock.try_write().unwrap_or_else(|_| lock.write().unwrap()),
                    _ => lock.write().unwrap(),
                };
                guard.0 += 1;
                if random.below(16) == 0 {
                    yield_now();
                }
                guard.1 += 1;
                writes += 1;
            } else {
                let guard = match random.below(2) {
                    0 => lock.try_read().unwrap_or_else(|_| lock.read().unwrap()),
                    _ => lock.read().unwrap(),
                };
                assert_eq!(guard.0, guard.1, "read amid a write");
                if random.below(64) == 0 {
                    yield_now();
                }
            }
        }
        writes
    });
    let writes = writes.iter().sum::<usize>();
    assert_eq!(lock.into_inner().unwrap(), (writes, writes));
}

/// Half of the parties put tickets into a bowl, the others take them out.
#[test]
fn condvar() {
    let (_, (bowl, _)) = share((Mutex::new(0usize), Condvar::new()), |me, shared, mut random| {
        let (bowl, put) = shared;
        for _ in 0..operations() / PARTIES {
            if me < PARTIES / 2 {
                *bowl.lock().unwrap() += 1;
                if random.below(8) == 0 {
                    put.notify_all()
                } else {
                    put.notify_one()
                }
                continue;
            }
            let mut tickets = bowl.lock().unwrap();
            while *tickets == 0 {
                tickets = match random.below(2) {
                    0 => put.wait(tickets).unwrap(),
                    _ => put.wait_timeout(tickets, random.timeout()).unwrap().0,
                };
            }
            *tickets -= 1;
        }
    });
    assert_eq!(bowl.into_inner().unwrap(), 0);
}

#[test]
fn barrier() {
    let rounds = operations() / PARTIES;
    let shared = (Barrier::new(PARTIES), AtomicUsize::new(0));
    let (leads, (_, arrived)) = share(shared, |_, (barrier, arrived), _| {
        let mut leads = 0;
        for round in 1..=operations() / PARTIES {
            arrived.fetch_add(1, Relaxed);
            leads += usize::from(barrier.wait().is_leader());
            // All of this round have come, and those of the next may have.
            let seen = arrived.load(Relaxed);
            assert!((PARTIES * round..PARTIES * (round + 1)).contains(&seen));
        }
        leads
    });
    assert_eq!(leads.iter().sum::<usize>(), rounds);
    assert_eq!(arrived.into_inner(), PARTIES * rounds);
}

/// Each is done by one of the parties, and all have it done.
#[test]
fn once() {
    struct Cells {
        onces: Vec<(Once, AtomicUsize)>,
        locks: Vec<OnceLock<usize>>,
        lazies: Vec<LazyLock<usize>>,
    }
    static MADE: AtomicUsize = AtomicUsize::new(0);
    fn make() -> usize {
        MADE.fetch_add(1, Relaxed)
    }
    // Three operations a cell and party.
    let n = operations() / PARTIES / 3;
    let cells = Cells {
        onces: (0..n).map(|_| (Once::new(), AtomicUsize::new(0))).collect(),
        locks: (0..n).map(|_| OnceLock::new()).collect(),
        lazies: (0..n).map(|_| LazyLock::new(make as fn() -> usize)).collect(),
    };
    let (firsts, cells) = share(cells, |_, cells, mut random| {
        let mut firsts = 0;
        for i in 0..cells.onces.len() {
            let slow = random.below(16) == 0;
            let (once, done) = &cells.onces[i];
            once.call_once(|| {
                if slow {
                    yield_now(); // The others wait.
                }
                done.fetch_add(1, Relaxed);
            });
            assert_eq!(done.load(Relaxed), 1);
            match random.below(4) {
                0 => firsts += usize::from(cells.locks[i].set(i).is_ok()),
                _ => {
                    let get = || {
                        firsts += 1;
                        if slow {
                            yield_now();
                        }
                        i
                    };
                    assert_eq!(*cells.locks[i].get_or_init(get), i);
                }
            }
            let _made = *cells.lazies[i];
        }
        firsts
    });
    assert_eq!(firsts.iter().sum::<usize>(), n);
    assert_eq!(MADE.load(Relaxed), n);
    let mut made: Vec<_> = cells.lazies.iter().map(|lazy| **lazy).collect();
    made.sort_unstable();
    assert!(made.into_iter().eq(0..n), "each made once");
}

/// The party `to` receives what the others send; each message once, each sender's in order.
fn messages<S: Send + 'static>(
    sender: S,
    receiver: mpsc::Receiver<(usize, usize)>,
    to: usize,
    clone: fn(&S) -> S,
    send: fn(&S, (usize, usize), &mut Random),
) {
    let each = operations() / (PARTIES - 1);
    let (mut receiver, mut sender) = (Some(receiver), Some(sender));
    let counts = run(|me| {
        let receiver = receiver.take_if(|_| me == to);
        let sender = match me + 1 {
            PARTIES => sender.take(), // The last one keeps it, so that nobody else does.
            _ => sender.as_ref().map(clone),
        };
        move |mut random| {
            let Some(receiver) = receiver else {
                (0..each).for_each(|i| send(sender.as_ref().unwrap(), (me, i), &mut random));
                return each;
            };
            drop(sender);
            let (mut count, mut next) = (0, [0; PARTIES]);
            loop {
                let received = match random.below(4) {
                    0 => receiver.try_recv().map_err(|error| error == TryRecvError::Disconnected),
                    1 => receiver.recv().map_err(|_| true),
                    _ => receiver
                        .recv_timeout(random.timeout())
                        .map_err(|error| error == RecvTimeoutError::Disconnected),
                };
                match received {
                    Ok((from, i)) => {
                        assert_eq!(next[from], i, "from {from}");
                        next[from] += 1;
                        count += 1;
                    }
                    Err(true) => return count,
                    Err(false) => {}
                }
            }
        }
    });
    assert_eq!(counts[to], each * (PARTIES - 1));
}

#[test]
fn mpsc_channel() {
    let (sender, receiver) = channel();
    messages(sender, receiver, 1, Clone::clone, |sender, message, _| sender.send(message).unwrap());
}

#[test]
fn mpsc_sync_channel() {
    for (to, bound) in [0, 1, 50].into_iter().enumerate() {
        let (sender, receiver) = sync_channel(bound);
        messages(sender, receiver, to, Clone::clone, |sender, message, random| {
            let left = match random.below(2) {
                0 => Err(message),
                _ => sender.try_send(message).map_err(|error| match error {
                    mpsc::TrySendError::Full(message) => message,
                    mpsc::TrySendError::Disconnected(_) => panic!("the receiver is there"),
                }),
            };
            if let Err(message) = left {
                sender.send(message).unwrap();
            }
        });
    }
}

/// Half of the parties send, the others receive; each message once, and those of one sender in order.
fn channel_of(make: fn() -> (mpmc::Sender<usize>, mpmc::Receiver<usize>)) {
    let mut ends = Some(make());
    let each = operations() / (PARTIES / 2);
    let sums = run(|me| {
        // The last takes them, so that they are gone when all are done.
        let (sender, receiver) =
            if me + 1 == PARTIES { ends.take().unwrap() } else { ends.clone().unwrap() };
        let (sender, receiver) =
            ((me % 2 == 0).then_some(sender), (me % 2 == 1).then_some(receiver));
        move |mut random| {
            if let Some(sender) = sender {
                for i in 0..each {
                    let mut message = me * each + i;
                    loop {
                        let sent = match random.below(3) {
                            0 => sender.try_send(message).map_err(|error| match error {
                                mpsc::TrySendError::Full(message) => message,
                                mpsc::TrySendError::Disconnected(_) => panic!("disconnected"),
                            }),
                            1 => sender
                                .send_timeout(message, random.timeout())
                                .map_err(mpmc::SendTimeoutError::into_inner),
                            _ => sender.send(message).map_err(|error| error.0),
                        };
                        match sent {
                            Ok(()) => break,
                            Err(back) => message = back,
                        }
                    }
                }
            }
            let Some(receiver) = receiver else { return (0, 0) };
            let (mut count, mut sum, mut next) = (0, 0, [0; PARTIES]);
            loop {
                let received = match random.below(4) {
                    0 => receiver.try_recv().map_err(|error| error == TryRecvError::Disconnected),
                    1 => receiver.recv().map_err(|_| true),
                    _ => receiver
                        .recv_timeout(random.timeout())
                        .map_err(|error| error == RecvTimeoutError::Disconnected),
                };
                match received {
                    Ok(message) => {
                        let (from, i) = (message / each, message % each);
                        assert!(i >= next[from], "from {from}");
                        next[from] = i + 1;
                        (count, sum) = (count + 1, sum + message);
                    }
                    Err(true) => return (count, sum),
                    Err(false) => {}
                }
            }
        }
    });
    let sent = (0..PARTIES).step_by(2).flat_map(|me| me * each..(me + 1) * each);
    let received = sums.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert_eq!(received, (each * PARTIES / 2, sent.sum()));
}

#[test]
fn channel_bounded() {
    channel_of(|| mpmc::bounded(1));
    channel_of(|| mpmc::bounded(50));
}

#[test]
fn channel_unbounded() {
    channel_of(mpmc::unbounded);
}

#[test]
fn channel_rendezvous() {
    channel_of(mpmc::rendezvous);
}

/// Half of the parties ask, each one of the others, which answers, or does not; and who asks may give up.
#[test]
fn oneshot_channel() {
    let mut questions: Vec<_> = (0..PARTIES / 2)
        .map(|_| {
            let (sender, receiver) = channel::<oneshot::Sender<usize>>();
            (Some(sender), Some(receiver))
        })
        .collect();
    let results = run(|me| {
        let question = &mut questions[me / 2];
        let (ask, answer) = match me % 2 {
            0 => (question.0.take(), None),
            _ => (None, question.1.take()),
        };
        move |mut random| {
            let (mut answered, mut not) = (0, 0);
            for i in 0..ask.iter().len() * operations() / (PARTIES / 2) {
                let (sender, mut receiver) = oneshot::channel();
                ask.as_ref().unwrap().send(sender).unwrap();
                loop {
                    match receiver.recv_timeout(random.timeout()) {
                        Ok(number) => answered += number,
                        Err(RecvTimeoutError::Disconnected) => not += 1,
                        Err(RecvTimeoutError::Timeout) if i % 8 == 0 => {
                            receiver.close();
                            // Until it is closed there may come one.
                            match receiver.try_recv() {
                                Ok(number) => answered += number,
                                Err(_) => not += 1,
                            }
                        }
                        Err(RecvTimeoutError::Timeout) => continue,
                    }
                    break;
                }
            }
            drop(ask);
            for asker in answer.iter().flatten() {
                if random.below(4) == 0 {
                    yield_now();
                }
                match random.below(8) {
                    0 => drop(asker),
                    1 if asker.closed_timeout(random.timeout()) => not += 1,
                    _ => match asker.send(1) {
                        Ok(()) => answered += 1,
                        Err(_) => not += 1,
                    },
                }
            }
            (answered, not)
        }
    });
    for pair in results.chunks(2) {
        let [(got, not), (given, _)] = pair else { unreachable!("parties are even") };
        assert_eq!(got, given, "an answer was lost or doubled");
        assert_eq!(got + not, operations() / (PARTIES / 2));
    }
}

#[test]
fn semaphore() {
    const PERMITS: usize = 3;
    let shared = (Arc::new(Semaphore::new(PERMITS)), AtomicUsize::new(0));
    let (acquired, (semaphore, taken)) = share(shared, |_, (semaphore, taken), mut random| {
        let (mut acquired, mut gave_up) = (0, 0);
        for _ in 0..operations() / PARTIES {
            let n = [1, 1, 2, 3][random.below(4)];
            let permit = match random.below(4) {
                0 => semaphore.try_acquire_many_owned(n).ok(),
                1 => Some(semaphore.acquire_many_owned(n).unwrap()),
                _ => match semaphore.acquire_many_owned_timeout(n, random.timeout()) {
                    Ok(permit) => Some(permit),
                    Err(AcquireTimeoutError::Timeout) => None,
                    Err(AcquireTimeoutError::Closed) => panic!("nobody has closed it"),
                },
            };
            let Some(permit) = permit else {
                gave_up += 1;
                continue;
            };
            acquired += 1;
            let n = n as usize;
            assert!(taken.fetch_add(n, Relaxed) + n <= PERMITS, "a permit was doubled");
            if random.below(16) == 0 {
                yield_now();
            }
            taken.fetch_sub(n, Relaxed);
            drop(permit);
        }
        (acquired, gave_up)
    });
    let each = operations() / PARTIES;
    assert!(acquired.iter().all(|(acquired, gave_up)| acquired + gave_up == each));
    assert_eq!(taken.into_inner(), 0);
    let whole = semaphore.try_acquire_many(PERMITS as u32).expect("somebody is left in line");
    assert_eq!((whole.num_permits(), semaphore.available_permits()), (PERMITS, 0));
}

/// Parties in a ring, round which one notification goes. (Two could meet, and be one from there on.)
#[test]
fn notify() {
    let ring: [Notify; PARTIES] = std::array::from_fn(|_| Notify::new());
    ring[0].notify_one();
    let (notified, ring) = share(ring, |me, ring, mut random| {
        let mut notified = 0;
        while notified < operations() / PARTIES {
            if random.below(3) == 0 {
                ring[me].notified();
            } else if !ring[me].notified_timeout(random.timeout()) {
                continue;
            }
            notified += 1;
            ring[(me + 1) % PARTIES].notify_one();
        }
        notified
    });
    assert!(notified.iter().all(|&notified| notified == operations() / PARTIES));
    let left = ring.iter().filter(|notify| notify.notified_timeout(Duration::ZERO)).count();
    assert_eq!(left, 1, "the notification was lost or doubled");
}

/// Parties in a ring: each has the next do something, and waits for it.
#[test]
fn wait_group() {
    let mut ring: Vec<_> =
        (0..PARTIES).map(|_| channel::<(WaitGroup, Arc<AtomicUsize>)>()).collect();
    let senders: Vec<_> = ring.iter().map(|(sender, _)| sender.clone()).collect();
    let done = run(|me| {
        let (next, jobs) = (senders[(me + 1) % PARTIES].clone(), ring.remove(0).1);
        move |mut random| {
            let mut done = 0;
            let mut work = |wait: bool| {
                let job = if wait { jobs.recv().ok() } else { jobs.try_recv().ok() };
                if let Some((_group, count)) = job {
                    count.fetch_add(1, Relaxed);
                    done += 1;
                }
                done
            };
            let each = operations() / PARTIES;
            for _ in 0..each {
                let count = Arc::new(AtomicUsize::new(0));
                let mut group = WaitGroup::new();
                next.send((group.clone(), count.clone())).unwrap();
                while let Err(again) = group.wait_timeout(random.timeout()) {
                    group = again;
                    work(false); // The others wait for us as we for them.
                }
                assert_eq!(count.load(Relaxed), 1);
            }
            while work(false) < each {
                work(true);
            }
            work(false)
        }
    });
    assert!(done.into_iter().all(|done| done == operations() / PARTIES));
}

/// Half of the parties change a value, the others follow it: forwards, and to the end.
#[test]
fn watch_channel() {
    let (sender, receiver) = watch::channel((0, 0));
    let mut ends = Some((sender, receiver));
    let each = operations() / (PARTIES / 2);
    let seen = run(|me| {
        let (sender, receiver) =
            if me + 1 == PARTIES { ends.take().unwrap() } else { ends.clone().unwrap() };
        let (sender, receiver) =
            ((me % 2 == 0).then_some(sender), (me % 2 == 1).then_some(receiver));
        move |mut random| {
            if let Some(sender) = sender {
                for _ in 0..each {
                    sender.send_modify(|(count, double)| {
                        *count += 1;
                        *double += 2;
                    });
                    if random.below(64) == 0 {
                        yield_now();
                    }
                }
            }
            let Some(mut receiver) = receiver else { return (0, 0) };
            let (mut last, mut changes) = (0, 0);
            loop {
                match receiver.changed_timeout(random.timeout()) {
                    Ok(()) => changes += 1,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => return (changes, receiver.borrow().0),
                }
                let (count, double) = *receiver.borrow_and_update();
                assert_eq!(2 * count, double, "seen amid a change");
                assert!(count > last, "from {last} back to {count}");
                last = count;
            }
        }
    });
    for (changes, last) in seen.into_iter().skip(1).step_by(2) {
        assert_eq!(last, each * PARTIES / 2);
        assert!((1..=last).contains(&changes));
    }
}

/// Half of the parties send, and each of the others gets all, or is told how many it has not got.
#[test]
fn broadcast_channel() {
    use broadcast::RecvTimeoutError;
    let senders = PARTIES / 2;
    let each = operations() / senders;
    let (sender, receiver) = broadcast::channel(64);
    // Subscribed before anybody sends.
    let mut receivers: Vec<_> = (1..senders).map(|_| sender.subscribe()).collect();
    receivers.push(receiver);
    let mut sender = Some(sender);
    let got = run(|me| {
        let receiver = (me % 2 == 1).then(|| receivers.pop().unwrap());
        let sender = match me {
            6 => sender.take(), // The last one keeps it, so that nobody else does.
            _ => sender.clone().filter(|_| me % 2 == 0),
        };
        move |mut random| {
            for i in 0..sender.iter().len() * each {
                sender.as_ref().unwrap().send((me, i)).unwrap();
                if random.below(32) == 0 {
                    yield_now();
                }
            }
            drop(sender);
            let Some(mut receiver) = receiver else { return (0, 0) };
            let (mut count, mut missed, mut next) = (0, 0, [0; PARTIES]);
            loop {
                match receiver.recv_timeout(random.timeout()) {
                    Ok((from, i)) => {
                        assert!(i >= next[from], "from {from}");
                        next[from] = i + 1;
                        count += 1;
                    }
                    Err(RecvTimeoutError::Lagged(n)) => missed += n as usize,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Closed) => return (count, missed),
                }
            }
        }
    });
    for (count, missed) in got.into_iter().skip(1).step_by(2) {
        assert_eq!(count + missed, senders * each);
    }
}
