//! Oneshot channels, by fibers and threads in any mix.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{PAIRS, at, everywhere, let_others_run, on_one_worker, runtime, start, stress};
use strands_sched::{SpawnOptions, spawn_local, spawn_on};
use strands_sync::oneshot::{RecvError, RecvTimeoutError, TryRecvError, channel};

#[test]
fn does_what_its_face_says() {
    everywhere(|| {
        let (sender, mut receiver) = channel();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let soon = Duration::from_micros(10);
        assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.recv_deadline(Instant::now()), Err(RecvTimeoutError::Timeout));
        assert!(!sender.is_closed() && !sender.closed_timeout(soon));
        assert_eq!(format!("{sender:?} {receiver:?}"), "Sender { .. } Receiver { .. }");
        sender.send(1).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::MAX), Ok(1));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(Duration::MAX), Err(RecvTimeoutError::Disconnected));
        assert_eq!(receiver.recv(), Err(RecvError));

        let (sender, mut receiver) = channel::<()>();
        drop(sender);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv(), Err(RecvError));

        let (sender, mut receiver) = channel();
        receiver.close();
        assert!(sender.is_closed() && sender.closed_deadline(None));
        sender.closed();
        assert_eq!(sender.send(2), Err(2));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv(), Err(RecvError));

        let (sender, mut receiver) = channel();
        sender.send(()).unwrap();
        receiver.close();
        assert_eq!(receiver.recv(), Ok(()), "sent before it was closed");
    });
}

#[test]
fn every_kind_sends_to_every_kind() {
    for (sends, receives) in PAIRS {
        let runtime = runtime(2);
        for i in 0..100 * stress() {
            let (sender, receiver) = channel();
            let receives = start(runtime.shared(), receives, move || receiver.recv());
            start(runtime.shared(), sends, move || sender.send(Box::new(i)).unwrap())().unwrap();
            assert_eq!(receives().unwrap(), Ok(Box::new(i)));
        }
    }
}

#[test]
fn the_end_of_either_side_wakes_the_other() {
    for (one, other) in PAIRS {
        let runtime = runtime(2);
        for _ in 0..20 * stress() {
            let (sender, receiver) = channel::<()>();
            let waits = start(runtime.shared(), one, move || receiver.recv());
            start(runtime.shared(), other, move || drop(sender))().unwrap();
            assert_eq!(waits().unwrap(), Err(RecvError));

            let (sender, mut receiver) = channel();
            let waits = start(runtime.shared(), one, move || {
                sender.closed();
                sender.send(1)
            });
            start(runtime.shared(), other, move || {
                receiver.close();
                receiver
            })()
            .unwrap();
            assert_eq!(waits().unwrap(), Err(1));
        }
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_message_is_dropped_once_whoever_goes_first() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = || Counted(dropped.clone());
    let (sender, receiver) = channel();
    drop(sender.send(count()));
    drop(receiver);
    assert_eq!(dropped.load(SeqCst), 1, "sent and not received");
    let (sender, receiver) = channel();
    drop(receiver);
    let back = sender.send(count());
    assert_eq!(dropped.load(SeqCst), 1, "not sent");
    drop(back);
    assert_eq!(dropped.load(SeqCst), 2);
    let (sender, receiver) = channel();
    drop(sender.send(count()));
    drop(receiver.recv());
    assert_eq!(dropped.load(SeqCst), 3);
    let (sender, receiver) = channel::<Counted>();
    drop((receiver, sender));
    // All at once.
    for (sends, receives) in PAIRS {
        let runtime = runtime(2);
        for i in 0..50 * stress() {
            let dropped = Arc::new(AtomicUsize::new(0));
            let message = Counted(dropped.clone());
            let (sender, mut receiver) = channel();
            let sends = start(runtime.shared(), sends, move || drop(sender.send(message)));
            let receives = start(runtime.shared(), receives, move || {
                if i % 2 == 0 {
                    drop(receiver.recv_timeout(Duration::from_micros(i as u64 % 7)));
                }
            });
            sends().unwrap();
            receives().unwrap();
            assert_eq!(dropped.load(SeqCst), 1);
        }
    }
}

#[test]
fn a_receiver_that_gives_up_gets_it_later() {
    for (sends, receives) in PAIRS {
        let runtime = runtime(2);
        for i in 0..100 * stress() {
            let (sender, mut receiver) = channel();
            let receives = start(runtime.shared(), receives, move || {
                for round in 0.. {
                    match receiver.recv_timeout(Duration::from_micros(round % 5)) {
                        Err(RecvTimeoutError::Timeout) => {}
                        result => return result,
                    }
                }
                unreachable!()
            });
            start(runtime.shared(), sends, move || sender.send(i).unwrap())().unwrap();
            assert_eq!(receives().unwrap(), Ok(i));
        }
    }
}

#[test]
fn a_cancelled_receiver_leaves_the_message_to_who_has_it_after() {
    let (sender, receiver) = channel();
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let theirs = receiver.clone();
    let doomed = runtime(1);
    let fiber = spawn_on(doomed.shared(), at(0), move || {
        let mut receiver = theirs.lock().unwrap();
        let receiver = receiver.as_mut().unwrap();
        catch_unwind(AssertUnwindSafe(|| receiver.recv_deadline(None))).is_err()
    })
    .unwrap();
    doomed.run(at(0), let_others_run).unwrap();
    doomed.shutdown(None).unwrap();
    assert!(fiber.join().unwrap(), "cancelled in recv");
    sender.send(1).unwrap();
    assert_eq!(receiver.lock().unwrap().take().unwrap().recv(), Ok(1));
}

#[test]
fn a_fiber_that_has_been_woken_is_not_cancelled() {
    on_one_worker(|| {
        let (sender, receiver) = channel();
        let receives = spawn_local(SpawnOptions::default(), move || receiver.recv()).unwrap();
        let_others_run();
        sender.send(5).unwrap();
        receives.task().cancel();
        assert_eq!(receives.join().unwrap(), Ok(5));
    });
}

#[test]
fn a_loop_that_never_waits_starves_nobody() {
    on_one_worker(|| {
        let (sender, mut receiver) = channel();
        let sends = spawn_local(SpawnOptions::default(), move || sender.send(1)).unwrap();
        while receiver.try_recv() == Err(TryRecvError::Empty) {}
        sends.join().unwrap().unwrap();
    });
}
