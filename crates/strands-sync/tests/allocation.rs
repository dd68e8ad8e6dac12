//! A waiter costs no allocation, whatever it waits for, and whether it is woken or gives up.

mod common;
#[path = "../../strands-sched/tests/counting/mod.rs"]
mod counting;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Local, everywhere, on_one_worker};
use strands_sched::{Operation, Order, Timer, select, yield_now};
use strands_sync::{
    Barrier, Condvar, Mutex, Notify, Once, RwLock, Semaphore, WaitGroup, broadcast, channel, mpsc,
    oneshot, watch,
};

/// Does `operate` again and again; what the last time allocated. Before that buffers grow to their size.
fn allocations(mut operate: impl FnMut()) -> usize {
    (0..20).for_each(|_| operate());
    counting::allocations(operate)
}

const SOON: Duration = Duration::from_micros(50);

#[test]
fn the_count_counts() {
    // Or the compiler leaves it out.
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    assert_eq!(allocations(|| {}), 0);
}

#[test]
fn a_waiter_that_gives_up() {
    everywhere(|| {
        let semaphore = Semaphore::new(1);
        assert_eq!(allocations(|| assert!(semaphore.acquire_many_timeout(2, SOON).is_err())), 0);
        let notify = Notify::new();
        assert_eq!(allocations(|| assert!(!notify.notified_timeout(SOON))), 0);
        let (_sender, receiver) = channel::rendezvous::<u8>();
        let (recv, acquire) = (receiver.select_recv(), semaphore.select_acquire_many(2));
        let operations: [&dyn Operation; 3] = [&recv, &acquire, &Timer::at(None)];
        let wait =
            || assert_eq!(select(&operations, Order::Fair, Some(Instant::now() + SOON)), None);
        assert_eq!(allocations(wait), 0);
        let (mut group, _other) = {
            let group = WaitGroup::new();
            (Some(group.clone()), group)
        };
        let wait = || group = Some(group.take().unwrap().wait_timeout(SOON).unwrap_err());
        assert_eq!(allocations(wait), 0);
        let (mutex, condvar) = (Mutex::new(()), Condvar::new());
        let wait = || drop(condvar.wait_timeout(mutex.lock().unwrap(), SOON).unwrap());
        assert_eq!(allocations(wait), 0);

        let (_sender, receiver) = mpsc::channel::<u8>();
        assert_eq!(allocations(|| assert!(receiver.recv_timeout(SOON).is_err())), 0);
        let (_sender, receiver) = mpsc::sync_channel::<u8>(1);
        assert_eq!(allocations(|| assert!(receiver.recv_timeout(SOON).is_err())), 0);
        for (sender, receiver) in
            [channel::bounded(1), channel::unbounded(), channel::rendezvous::<u8>()]
        {
            assert_eq!(allocations(|| assert!(receiver.recv_timeout(SOON).is_err())), 0);
            let _ = sender.try_send(1);
            if sender.capacity().is_some() {
                assert_eq!(allocations(|| assert!(sender.send_timeout(1, SOON).is_err())), 0);
            }
        }
        let (_sender, mut receiver) = oneshot::channel::<u8>();
        assert_eq!(allocations(|| assert!(receiver.recv_timeout(SOON).is_err())), 0);
        let (_sender, mut receiver) = watch::channel(1);
        assert_eq!(allocations(|| assert!(receiver.changed_timeout(SOON).is_err())), 0);
        let (_sender, mut receiver) = broadcast::channel::<u8>(4);
        assert_eq!(allocations(|| assert!(receiver.recv_timeout(SOON).is_err())), 0);
    });
}

/// With another fiber that does `wake` each time that it is let run, `wait` allocates nothing.
fn allocations_with(wake: impl Fn() + 'static, mut wait: impl FnMut()) {
    let is_over = Rc::new(Cell::new(false));
    let over = is_over.clone();
    let other = Local::until_it_waits(move |about_to_wait| {
        about_to_wait();
        while !over.get() {
            wake();
            yield_now();
        }
    });
    // So often that the worker has done all that it does now and then, such as to look whether old fibers were left.
    (0..20).for_each(|_| wait());
    assert_eq!(counting::allocations(|| (0..2_000).for_each(|_| wait())), 0);
    is_over.set(true);
    other.join().unwrap();
}

#[test]
fn a_waiter_that_is_woken() {
    on_one_worker(|| {
        let semaphore = Rc::new(Semaphore::new(0));
        let theirs = semaphore.clone();
        allocations_with(move || theirs.add_permits(1), || semaphore.acquire().unwrap().forget());
        let notify = Rc::new(Notify::new());
        let theirs = notify.clone();
        allocations_with(move || theirs.notify_one(), || notify.notified());
        // All at once, too.
        let notify = Rc::new(Notify::new());
        let theirs = notify.clone();
        allocations_with(move || theirs.notify_waiters(), || notify.notified());
        let pair = Rc::new((Mutex::new(()), Condvar::new()));
        let theirs = pair.clone();
        allocations_with(
            move || theirs.1.notify_all(),
            || drop(pair.1.wait(pair.0.lock().unwrap()).unwrap()),
        );
        let (sender, receiver) = channel::rendezvous();
        allocations_with(
            move || {
                let _received = receiver.recv();
            },
            move || {
                let _sent = sender.send(1);
            },
        );
        // Locks that the other holds while it lets others run.
        let mutex = Rc::new(Mutex::new(()));
        let theirs = mutex.clone();
        let hold = move || {
            let _guard = theirs.lock();
            yield_now();
        };
        allocations_with(hold, || drop(mutex.lock().unwrap()));
        let lock = Rc::new(RwLock::new(()));
        let theirs = lock.clone();
        let hold = move || {
            let _guard = theirs.write();
            yield_now();
        };
        allocations_with(hold, || {
            drop(lock.read().unwrap());
            drop(lock.write().unwrap());
        });
    });
}

#[test]
fn a_party_at_a_barrier_or_a_once() {
    on_one_worker(|| {
        // As often as `allocations` operates; and one, so that the other's end is not counted.
        let shared = Rc::new((Barrier::new(2), [(); 22].map(|()| Once::new())));
        let theirs = shared.clone();
        let other = Local::until_it_waits(move |about_to_wait| {
            about_to_wait();
            (0..21).for_each(|_| _ = theirs.0.wait().is_leader());
            theirs.1.iter().for_each(|once| once.call_once(yield_now));
        });
        assert_eq!(allocations(|| _ = shared.0.wait().is_leader()), 0);
        let mut onces = shared.1.iter();
        assert_eq!(allocations(|| onces.next().unwrap().wait()), 0);
        other.join().unwrap();
    });
}

/// Of plain threads, whom to wake takes a system call each, outside of the line's lock.
#[test]
fn waking_many_allocates_nothing() {
    let (waiting, changed) = (Mutex::new(0), Condvar::new());
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                let mut waiting = waiting.lock().unwrap();
                *waiting += 1;
                drop(changed.wait_while(waiting, |waiting| *waiting != 0).unwrap());
            });
        }
        // They are in line before they unlock.
        while *waiting.lock().unwrap() < 5 {
            std::thread::yield_now();
        }
        *waiting.lock().unwrap() = 0;
        assert_eq!(counting::allocations(|| changed.notify_all()), 0);
    });
}
