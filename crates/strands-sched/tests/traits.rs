//! What the types for those who build on the scheduler start with, and how they look.

mod common;

use std::time::Instant;

use common::{run, runtime, spawn_at};
use strands_sched::{Op, Outcome, Parker, TaskRef, WaitQueue, Waiter};

#[test]
fn defaults_are_new_ones() {
    static WAIT: Op = Op("a test");
    let parker = Parker::default();
    let now = Instant::now();
    assert_eq!(parker.park(&WAIT, 0, Some(now), || true), Outcome::TimedOut, "nobody has it");
    Waiter::<()>::default().assert_idle();
}

#[test]
fn a_queue_that_one_party_has_needs_no_lock() {
    let mut queue: WaitQueue<Vec<u8>> = WaitQueue::new(vec![1]);
    queue.get_mut().push(2);
    assert_eq!(format!("{queue:?}"), "WaitQueue { state: [1, 2], .. }");
    assert_eq!(queue.into_inner(), [1, 2]);
}

#[test]
fn a_task_is_shown_by_number_and_name() {
    let runtime = runtime(1);
    let fiber = spawn_at(&runtime, 0, || ());
    let task = TaskRef::to(fiber.task());
    let text = format!("{task:?}");
    assert_eq!(text, format!("TaskRef {{ id: {}, name: None }}", task.id()));
    run(&runtime, || fiber.join().unwrap());
}
