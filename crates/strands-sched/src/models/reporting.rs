//! Reports: a worker is asked, answers in slices, and lacks room in between.

use std::cell::Cell;
use std::sync::Arc as StdArc;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{Signal, all, bounded};
use crate::current;
use crate::report::{Answer, Chunk, Clerk, Handoff, Request, Slice, Teller, Wanted};
use crate::worker::Worker;

#[test]
fn what_is_handed_over_is_seen() {
    all(|| {
        let handoff = Arc::new(Handoff::new(None));
        let its = handoff.clone();
        let giver = thread::spawn(move || {
            let chunk = Box::new(UnsafeCell::new(0));
            // SAFETY: nobody else has it yet.
            chunk.with_mut(|chunk| unsafe { *chunk = 7 });
            its.put(chunk);
        });
        if let Some(chunk) = handoff.take() {
            // SAFETY: it is ours now: that is what the model checks.
            chunk.with_mut(|chunk| assert_eq!(unsafe { *chunk }, 7));
        }
        giver.join().unwrap();
    });
}

/// A worker with some fibers, one of which it tells of in each slice. Another chunk is full with it.
struct Few {
    count: u32,
    left: Cell<u32>,
    answers: Cell<u32>,
}

impl Teller for Few {
    fn begin(&self, _request: &Request, _chunk: &mut Chunk) -> usize {
        self.left.set(self.count);
        0
    }

    fn tell(&self, _request: &Request, chunk: &mut Chunk, _slice: &mut Slice) -> bool {
        current::with(|me| chunk.add_running(me));
        self.left.set(self.left.get() - 1);
        if self.left.get() == 0 {
            self.answers.set(self.answers.get() + 1);
        }
        self.left.get() > 0
    }

    fn stop(&self) {}

    fn thread_ns(&self) -> u64 {
        0
    }
}

/// A worker that has nothing else to do, until it has answered so many requests.
fn works(worker: &Worker, bell: &Signal, fibers: u32, requests: u32) {
    let few = Few { count: fibers, left: Cell::new(0), answers: Cell::new(0) };
    let clerk = Clerk::new();
    loop {
        assert_eq!(worker.inbox().take().count(), 0);
        if clerk.is_busy(worker.desk()) && clerk.answer(worker.desk(), &few) {
            continue;
        }
        if few.answers.get() >= requests {
            return clerk.leave(worker.desk(), &few);
        }
        if worker.inbox().fall_asleep() {
            bell.wait();
        }
    }
}

/// Asks `worker`, and gives it room until it has answered; of how many fibers.
fn asks(worker: &Worker) -> usize {
    let request = Request::submit(Wanted::Everything, Chunk::with_room(1), worker);
    let mut answer = Answer::default();
    loop {
        let is_answered = request.wait();
        answer.take_from(&request, worker, 0);
        if is_answered {
            return answer.fibers.len();
        }
    }
}

#[test]
fn a_worker_that_lacks_room_is_given_some() {
    bounded(3, || {
        let bell = Signal::new();
        let worker = Worker::for_models(StdArc::new(bell.clone()));
        let works = thread::spawn(move || works(worker, &bell, 2, 1));
        assert_eq!(asks(worker), 2, "each is told of once");
        works.join().unwrap();
    });
}

#[test]
fn requests_that_wait_for_each_other_are_answered() {
    bounded(2, || {
        let bell = Signal::new();
        let worker = Worker::for_models(StdArc::new(bell.clone()));
        let works = thread::spawn(move || works(worker, &bell, 1, 2));
        let other = thread::spawn(move || assert_eq!(asks(worker), 1));
        assert_eq!(asks(worker), 1);
        other.join().unwrap();
        works.join().unwrap();
    });
}

#[test]
fn a_worker_that_ends_answers_all() {
    all(|| {
        let bell = Signal::new();
        let worker = Worker::for_models(StdArc::new(bell.clone()));
        let ends = thread::spawn(move || works(worker, &bell, 1, 0));
        asks(worker);
        ends.join().unwrap();
    });
}
