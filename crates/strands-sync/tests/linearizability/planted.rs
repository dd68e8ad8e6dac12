//! The checker finds what is wrong: histories and objects with planted mistakes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::checker::{Event, is_linearizable, shortest};
use crate::common::Random;
use crate::models::{Counted, Counter, Granted, Passed, Permits, Queue, Rendezvous, Side};
use crate::record::{Party, check, smallest_failure};
use Passed::{Disconnected, Empty, Full, Received, Sent};

/// A history of (called, returned, what).
fn history<Op: Clone>(events: &[(u64, u64, Op)]) -> Vec<Event<Op>> {
    (0..)
        .zip(events)
        .map(|(party, (called, returned, op))| Event {
            party,
            called: *called,
            returned: Some(*returned),
            op: op.clone(),
        })
        .collect()
}

fn queue(bound: usize, events: &[(u64, u64, Passed)]) -> bool {
    is_linearizable(&Queue::new(bound), &history(events))
}

#[test]
fn queues() {
    // One after the other.
    assert!(queue(
        9,
        &[(0, 1, Sent(1)), (2, 3, Sent(2)), (4, 5, Received(1)), (6, 7, Received(2))]
    ));
    assert!(!queue(
        9,
        &[(0, 1, Sent(1)), (2, 3, Sent(2)), (4, 5, Received(2)), (6, 7, Received(1))]
    ));
    // Sent at the same time, in either order; and each order is seen by all.
    assert!(queue(
        9,
        &[(0, 3, Sent(1)), (1, 2, Sent(2)), (4, 5, Received(2)), (6, 7, Received(1))]
    ));
    assert!(!queue(
        9,
        &[(0, 3, Sent(1)), (1, 2, Sent(2)), (4, 5, Received(2)), (6, 7, Received(2))]
    ));
    // Received before it was sent.
    assert!(!queue(9, &[(0, 1, Received(1)), (2, 3, Sent(1))]));
    assert!(queue(9, &[(0, 2, Received(1)), (1, 3, Sent(1))]));
    // Lost, and doubled.
    assert!(!queue(9, &[(0, 1, Sent(1)), (2, 3, Empty)]));
    assert!(!queue(9, &[(0, 1, Sent(1)), (2, 3, Disconnected)]));
    assert!(queue(9, &[(0, 2, Sent(1)), (1, 3, Empty)]));
    assert!(!queue(9, &[(0, 1, Sent(1)), (2, 3, Received(1)), (4, 5, Received(1))]));
    // More than fit; full, and not.
    assert!(!queue(1, &[(0, 1, Sent(1)), (2, 3, Sent(2))]));
    assert!(queue(1, &[(0, 1, Sent(1)), (2, 3, Full)]));
    assert!(!queue(2, &[(0, 1, Sent(1)), (2, 3, Full)]));
}

#[test]
fn what_had_not_returned_may_be_done_or_not() {
    let mut events = history(&[(0, 1, Sent(1)), (2, 9, Sent(2)), (3, 4, Received(1))]);
    events[1].returned = None;
    assert!(is_linearizable(&Queue::new(9), &events));
    events.extend(history(&[(5, 6, Received(2))]));
    assert!(is_linearizable(&Queue::new(9), &events));
    events.extend(history(&[(7, 8, Received(2))]));
    assert!(!is_linearizable(&Queue::new(9), &events));
}

#[test]
fn a_rendezvous_is_a_meeting() {
    let models = [Side::Sender, Side::Receiver].map(Rendezvous::new);
    let meets = |events: &[(u64, u64, Passed)]| {
        models.each_ref().map(|model| is_linearizable(model, &history(events)))
    };
    assert_eq!(meets(&[(0, 2, Sent(1)), (1, 3, Received(1))]), [true, true]);
    assert_eq!(meets(&[(0, 1, Sent(1)), (2, 3, Received(1))]), [true, false], "sent to nobody");
    assert_eq!(meets(&[(2, 3, Sent(1)), (0, 1, Received(1))]), [false, true], "out of nothing");
    assert_eq!(
        meets(&[(0, 9, Sent(1)), (1, 8, Sent(2)), (2, 7, Received(2)), (3, 6, Received(1))]),
        [true, true]
    );
}

#[test]
fn counters_and_permits() {
    use Counted::{Add, Read};
    use Granted::{Acquired, Refused, Released};
    let counter = |events: &[_]| is_linearizable(&Counter::default(), &history(events));
    assert!(counter(&[(0, 2, Add(1)), (1, 3, Add(0)), (4, 5, Read(2))]));
    assert!(!counter(&[(0, 2, Add(0)), (1, 3, Add(0))]), "a lost update");
    assert!(!counter(&[(0, 1, Add(0)), (2, 3, Read(0))]), "a stale read");
    let permits =
        |events: &[_]| is_linearizable(&Permits { free: 1, line_is_known: true }, &history(events));
    assert!(permits(&[(0, 1, Acquired(1)), (2, 3, Refused(1)), (4, 5, Released(1))]));
    assert!(!permits(&[(0, 1, Acquired(1)), (2, 3, Acquired(1))]), "doubled");
    assert!(!permits(&[(0, 1, Acquired(1)), (2, 3, Released(1)), (4, 5, Refused(1))]), "lost");
}

/// What comes after the mistake is not shown, and what had begun is.
#[test]
fn a_failure_is_cut_down() {
    let mut events: Vec<_> = (0..20).map(|i| (10 * i, 10 * i + 1, Sent(i as u32))).collect();
    events.push((45, 70, Received(0)));
    events.push((62, 63, Received(7)));
    events.push((64, 65, Received(1)));
    let whole = history(&events);
    assert!(!is_linearizable(&Queue::new(99), &whole));
    let shortest = shortest(&Queue::new(99), &whole);
    let last = shortest.last().unwrap();
    assert!(matches!(last.op, Received(7)), "{last:?}");
    assert_eq!(shortest.len(), 9, "7 were sent, one was being received");
    assert_eq!(shortest.iter().filter(|event| event.returned.is_none()).count(), 1);
}

/// A queue with a mistake, if it is told to make one.
fn queue_that(mistake: fn(&mut VecDeque<u32>, u32), random: &mut Random) -> Vec<Party<Passed>> {
    let queue = Arc::new(Mutex::new(VecDeque::new()));
    let mut next = random.below(1000) as u32;
    (0..4)
        .map(|_| {
            let (queue, mut left) = (queue.clone(), 12i32);
            next += 1000;
            let mut message = next;
            Box::new(move |random: &mut Random| {
                left -= 1;
                let mut queue = queue.lock().unwrap();
                match (left, random.below(2)) {
                    (..=-16, _) => None,
                    (..0, _) | (_, 0) => Some(queue.pop_front().map_or(Empty, Received)),
                    _ => {
                        message += 1;
                        mistake(&mut queue, message);
                        Some(Sent(message))
                    }
                }
            }) as Party<Passed>
        })
        .collect()
}

#[test]
fn a_queue_that_doubles_reorders_or_loses_is_found() {
    let right = |queue: &mut VecDeque<u32>, message| queue.push_back(message);
    let doubles = |queue: &mut VecDeque<u32>, message| queue.extend([message, message]);
    let reorders = |queue: &mut VecDeque<u32>, message| match queue.len() {
        2 => queue.push_front(message),
        _ => queue.push_back(message),
    };
    let loses = |queue: &mut VecDeque<u32>, message| match queue.len() {
        2 => {}
        _ => queue.push_back(message),
    };
    let model = [Queue::new(usize::MAX)];
    check(&model, |random| queue_that(right, random));
    for (name, mistake) in [
        ("doubles", doubles as fn(&mut VecDeque<u32>, u32)),
        ("reorders", reorders),
        ("loses", loses),
    ] {
        let found = smallest_failure(&model, 20, |random| queue_that(mistake, random));
        let smallest = found.unwrap_or_else(|| panic!("{name}: not found")).history.len();
        assert!(smallest < 48, "{name}: {smallest} operations");
    }
}
