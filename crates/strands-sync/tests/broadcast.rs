//! Broadcasts, by fibers and threads in any mix.

mod common;

use std::cell::RefCell;
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
use strands_sync::broadcast::{RecvError, RecvTimeoutError, SendError, TryRecvError, channel};

#[test]
fn does_what_its_face_says() {
    everywhere(|| {
        let (sender, mut receiver) = channel(3);
        assert!(sender.is_empty() && receiver.is_empty());
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let soon = Duration::from_micros(10);
        assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.recv_deadline(Instant::now()), Err(RecvTimeoutError::Timeout));
        assert_eq!(sender.send(0), Ok(1));
        let mut second = receiver.resubscribe();
        let mut third = sender.subscribe();
        assert_eq!(sender.clone().send(1), Ok(3));
        assert_eq!((sender.len(), receiver.len(), second.len()), (2, 2, 1));
        assert_eq!((receiver.recv(), second.try_recv()), (Ok(0), Ok(1)));
        assert_eq!(receiver.recv_timeout(Duration::MAX), Ok(1));
        assert_eq!((sender.len(), third.len()), (1, 1), "kept for the third");
        (2..6).for_each(|i| assert_eq!(sender.send(i), Ok(3)));
        assert_eq!((sender.len(), third.len()), (3, 5));
        assert_eq!(third.try_recv(), Err(TryRecvError::Lagged(2)));
        assert_eq!(third.try_recv(), Ok(3), "told once");
        assert_eq!(second.recv(), Err(RecvError::Lagged(1)));
        assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Lagged(1)));
        drop((second, third));
        assert_eq!((sender.receiver_count(), sender.sender_count(), sender.len()), (1, 1, 3));
        assert!(sender.same_channel(&sender.clone()) && receiver.same_channel(&sender.subscribe()));
        assert_eq!(format!("{sender:?} {receiver:?}"), "Sender { .. } Receiver { .. }");
        assert!(!receiver.is_closed() && !sender.closed_timeout(soon));
        drop(sender);
        assert!(receiver.is_closed());
        assert_eq!([receiver.recv(), receiver.recv(), receiver.recv()], [Ok(3), Ok(4), Ok(5)]);
        assert_eq!(receiver.recv(), Err(RecvError::Closed));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Closed));
        assert_eq!(receiver.recv_timeout(Duration::MAX), Err(RecvTimeoutError::Closed));

        let (sender, receiver) = channel(1);
        drop(receiver);
        assert_eq!(sender.send(1), Err(SendError(1)));
        assert!(sender.closed_deadline(None));
        let mut receiver = sender.subscribe();
        assert_eq!(sender.send(2), Ok(1));
        assert_eq!(receiver.recv(), Ok(2));
    });
    assert!(catch_unwind(|| channel::<()>(0)).is_err());
}

/// What a receiver gets, until all senders are gone: messages, and how many it has lost.
fn follow(
    mut receiver: strands_sync::broadcast::Receiver<(usize, usize)>,
) -> (Vec<(usize, usize)>, usize) {
    let (mut got, mut lost) = (Vec::new(), 0);
    loop {
        match receiver.recv() {
            Ok(message) => got.push(message),
            Err(RecvError::Lagged(more)) => lost += usize::try_from(more).unwrap(),
            Err(RecvError::Closed) => return (got, lost),
        }
    }
}

#[test]
fn all_kinds_get_all_from_all_kinds() {
    let messages = 300 * stress();
    // Nobody lags if all is kept; with a capacity of 4 most do.
    for capacity in [4, 2 * messages] {
        for (sends, receives) in PAIRS {
            let runtime = runtime(2);
            let (sender, receiver) = channel(capacity);
            let receivers: Vec<_> = [receives, Kind::Thread, Kind::Fiber(1)]
                .into_iter()
                .map(|kind| {
                    let receiver = receiver.resubscribe();
                    start(runtime.shared(), kind, move || follow(receiver))
                })
                .collect();
            drop(receiver);
            let senders = [0, 1].map(|me| {
                let sender = sender.clone();
                start(runtime.shared(), sends, move || {
                    (0..messages).for_each(|i| assert_eq!(sender.send((me, i)), Ok(3)));
                })
            });
            drop(sender);
            senders.into_iter().for_each(|join| join().unwrap());
            let followed: Vec<_> = receivers.into_iter().map(|join| join().unwrap()).collect();
            for (got, lost) in &followed {
                assert_eq!(got.len() + lost, 2 * messages, "each message is got or lost");
                assert!(*lost == 0 || capacity == 4);
                for me in [0, 1] {
                    let of_one = got.iter().filter(|message| message.0 == me);
                    assert!(of_one.map(|message| message.1).is_sorted());
                }
            }
            if capacity > 4 {
                assert!(followed.iter().all(|(got, _)| *got == followed[0].0), "one order for all");
            }
        }
    }
}

#[test]
fn a_message_wakes_all_in_the_order_in_which_they_came() {
    on_one_worker(|| {
        let (sender, receiver) = channel(1);
        let woken = Rc::new(RefCell::new(Vec::new()));
        let waiting: Vec<_> = (0..8)
            .map(|me| {
                let (mut receiver, woken) = (receiver.resubscribe(), woken.clone());
                Local::until_it_waits(move |about_to_wait| {
                    about_to_wait();
                    let message = receiver.recv().unwrap();
                    woken.borrow_mut().push((me, message));
                })
            })
            .collect();
        assert_eq!(sender.send(1), Ok(9));
        waiting.into_iter().for_each(|fiber| fiber.join().unwrap());
        assert!(woken.borrow().iter().copied().eq((0..8).map(|me| (me, 1))));
    });
}

#[test]
fn the_end_of_either_side_wakes_the_other() {
    for (one, other) in PAIRS {
        let runtime = runtime(2);
        let (sender, mut receiver) = channel::<()>(1);
        let second = sender.clone();
        let waits = start(runtime.shared(), one, move || receiver.recv());
        start(runtime.shared(), other, move || drop((sender, second)))().unwrap();
        assert_eq!(waits().unwrap(), Err(RecvError::Closed));

        let (sender, receiver) = channel::<()>(1);
        let second = receiver.resubscribe();
        let waits = start(runtime.shared(), one, move || sender.closed());
        start(runtime.shared(), other, move || drop((receiver, second)))().unwrap();
        waits().unwrap();
    }
}

/// Counts clones and drops; a clone or a drop may panic.
#[derive(Default)]
struct Counted {
    alive: Arc<AtomicUsize>,
    clones: Arc<AtomicUsize>,
    clone_panics: bool,
}

impl Counted {
    fn new(alive: &Arc<AtomicUsize>, clones: &Arc<AtomicUsize>, clone_panics: bool) -> Counted {
        alive.fetch_add(1, SeqCst);
        Counted { alive: alive.clone(), clones: clones.clone(), clone_panics }
    }
}

impl Clone for Counted {
    fn clone(&self) -> Counted {
        if self.clone_panics {
            resume_unwind(Box::new(()));
        }
        self.clones.fetch_add(1, SeqCst);
        Counted::new(&self.alive, &self.clones, false)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, SeqCst);
    }
}

#[test]
fn messages_are_dropped_when_all_have_them_and_the_last_gets_the_original() {
    everywhere(|| {
        let (alive, clones) = (Arc::default(), Arc::default());
        let counted = || Counted::new(&alive, &clones, false);
        let (sender, mut first) = channel(2);
        let mut second = sender.subscribe();
        drop(sender.send(counted()));
        drop(first.recv());
        assert_eq!((alive.load(SeqCst), clones.load(SeqCst)), (1, 1));
        drop(second.recv());
        assert_eq!((alive.load(SeqCst), clones.load(SeqCst)), (0, 1));
        // What is pushed out goes; what a receiver that leaves alone has not got, too.
        (0..3).for_each(|_| drop(sender.send(counted())));
        assert_eq!(alive.load(SeqCst), 2);
        drop(first);
        assert_eq!(alive.load(SeqCst), 2);
        drop(second);
        assert_eq!((alive.load(SeqCst), sender.len()), (0, 0));
        assert!(sender.send(counted()).is_err());
        assert_eq!(alive.load(SeqCst), 0);
    });
}

#[test]
fn a_clone_that_panics_counts_as_received() {
    everywhere(|| {
        let (alive, clones) = (Arc::default(), Arc::default());
        let (sender, mut receiver) = channel(2);
        let mut second = sender.subscribe();
        drop(sender.send(Counted::new(&alive, &clones, true)));
        drop(sender.send(Counted::new(&alive, &clones, false)));
        assert!(catch_unwind(AssertUnwindSafe(|| receiver.recv())).is_err());
        assert!(receiver.recv().is_ok(), "it goes on with the next");
        assert!(second.recv().is_ok() && second.recv().is_ok(), "the last needs no clone");
        drop((sender, receiver, second));
        assert_eq!(alive.load(SeqCst), 0);
    });
}

#[test]
fn a_cancelled_receiver_has_got_nothing() {
    let (sender, receiver) = channel(1);
    let receiver = Arc::new(std::sync::Mutex::new(receiver));
    let theirs = receiver.clone();
    let doomed = runtime(1);
    let fiber = spawn_on(doomed.shared(), at(0), move || {
        let mut receiver = theirs.lock().unwrap();
        catch_unwind(AssertUnwindSafe(|| receiver.recv())).is_err()
    })
    .unwrap();
    doomed.run(at(0), let_others_run).unwrap();
    doomed.shutdown(None).unwrap();
    assert!(fiber.join().unwrap(), "cancelled in recv");
    sender.send(1).unwrap();
    assert_eq!(receiver.lock().unwrap().try_recv(), Ok(1));
}

#[test]
fn a_sender_that_waits_for_the_end_is_cancelled() {
    on_one_worker(|| {
        let (sender, receiver) = channel::<()>(1);
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
fn errors_say_what_happened() {
    let (closed, empty, late) = (
        "receiving on a closed channel",
        "receiving on an empty channel",
        "timed out waiting on channel",
    );
    let lagged = "the receiver was too slow and has lost 3 messages";
    assert_eq!(RecvError::Closed.to_string(), closed);
    assert_eq!(RecvError::Lagged(3).to_string(), lagged);
    assert_eq!(TryRecvError::Empty.to_string(), empty);
    assert_eq!(TryRecvError::Closed.to_string(), closed);
    assert_eq!(TryRecvError::Lagged(3).to_string(), lagged);
    assert_eq!(RecvTimeoutError::Timeout.to_string(), late);
    assert_eq!(RecvTimeoutError::Closed.to_string(), closed);
    assert_eq!(RecvTimeoutError::Lagged(3).to_string(), lagged);
}

#[test]
fn a_fiber_that_has_been_woken_is_not_cancelled() {
    on_one_worker(|| {
        let (sender, mut receiver) = channel(1);
        let receives = spawn_local(SpawnOptions::default(), move || receiver.recv()).unwrap();
        let_others_run();
        sender.send(5).unwrap();
        receives.task().cancel();
        assert_eq!(receives.join().unwrap(), Ok(5));
    });
}

#[test]
fn messages_race_timeouts_and_each_is_got_or_lost() {
    for (sends, receives) in PAIRS {
        let messages = 300 * stress();
        let runtime = runtime(2);
        let (sender, mut receiver) = channel(8);
        let receives = start(runtime.shared(), receives, move || {
            let mut next = 0;
            for round in 0.. {
                match receiver.recv_timeout(Duration::from_micros(round % 4 * 5)) {
                    Ok(message) => {
                        assert_eq!(message, next);
                        next += 1;
                    }
                    Err(RecvTimeoutError::Lagged(lost)) => next += lost,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Closed) => return next,
                }
            }
            unreachable!()
        });
        start(runtime.shared(), sends, move || {
            (0..messages as u64).for_each(|i| assert_eq!(sender.send(i), Ok(1)));
        })()
        .unwrap();
        assert_eq!(receives().unwrap(), messages as u64);
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Send,
    Recv(usize),
    Subscribe,
    Leave(usize),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each receiver has a queue of its own, of which all but the latest are lost.
    #[test]
    fn one_party_alone_sees_a_queue_for_each(capacity in 1..5usize, steps in prop::collection::vec(prop_oneof![
        5 => Just(Step::Send),
        6 => (0..4usize).prop_map(Step::Recv),
        1 => Just(Step::Subscribe),
        1 => (0..4usize).prop_map(Step::Leave),
    ], 0..150)) {
        let (sender, receiver) = channel(capacity);
        let mut receivers = vec![(receiver, VecDeque::new())];
        for (i, step) in steps.into_iter().enumerate() {
            let count = receivers.len();
            match step {
                Step::Send => {
                    receivers.iter_mut().for_each(|(_, queue)| queue.push_back(i));
                    prop_assert_eq!(sender.send(i).ok(), (count > 0).then_some(count));
                }
                Step::Recv(_) | Step::Leave(_) if count == 0 => {}
                Step::Recv(which) => {
                    let (receiver, queue) = &mut receivers[which % count];
                    let lost = queue.len().saturating_sub(capacity);
                    let expected = match lost {
                        0 => queue.pop_front().ok_or(TryRecvError::Empty),
                        _ => Err(TryRecvError::Lagged(lost as u64)),
                    };
                    queue.drain(..lost);
                    prop_assert_eq!(receiver.try_recv(), expected);
                }
                Step::Subscribe => receivers.push((sender.subscribe(), VecDeque::new())),
                Step::Leave(which) => drop(receivers.swap_remove(which % count)),
            }
            let kept = receivers.iter().map(|(_, queue)| queue.len()).max().unwrap_or(0);
            prop_assert_eq!(sender.len(), kept.min(capacity));
            for (receiver, queue) in &receivers {
                prop_assert_eq!(receiver.len(), queue.len());
            }
        }
    }
}
