//! Who asks again and again until another fiber of its worker has acted lets that one run: it would ask for ever.

mod common;

use std::cell::Cell;
use std::rc::Rc;

use common::{at, runtime};
use strands_sched::spawn_local;
use strands_sync::{LazyLock, Once, OnceLock, Semaphore, broadcast, channel, mpsc, oneshot, watch};

/// Asks until `done`, which is so when the other fiber has run `act`.
fn ask<T: 'static>(subject: T, done: fn(&T) -> bool, act: fn(&T)) {
    let subject = Rc::new(subject);
    let its = subject.clone();
    let other = spawn_local(at(0), move || act(&its)).unwrap();
    while !done(&subject) {}
    other.join().unwrap();
}

fn alone(f: fn()) {
    runtime(1).run(at(0), f).unwrap();
}

#[test]
fn whether_it_has_been_done() {
    alone(|| {
        ask(Once::new(), Once::is_completed, |once| once.call_once(|| {}));
        ask(OnceLock::new(), |lock| lock.get().is_some(), |lock| lock.set(1).unwrap());
        let lazy: LazyLock<u8> = LazyLock::new(|| 1);
        ask(
            lazy,
            |lazy: &LazyLock<u8>| LazyLock::get(lazy).is_some(),
            |lazy| assert_eq!(**lazy, 1),
        );
    });
}

#[test]
fn how_a_semaphore_is() {
    alone(|| {
        ask(Semaphore::new(0), Semaphore::is_closed, Semaphore::close);
        let has_one = |semaphore: &Semaphore| semaphore.available_permits() == 1;
        ask(Semaphore::new(0), has_one, |semaphore| semaphore.add_permits(1));
    });
}

#[test]
fn how_a_channel_is() {
    alone(|| {
        for make in [|| channel::bounded(1), channel::unbounded] {
            let send = |(sender, _): &(channel::Sender<u8>, _)| sender.send(1).unwrap();
            ask(make(), |(_, receiver)| receiver.len() == 1, send);
            ask(make(), |(sender, _)| !sender.is_empty(), send);
            ask(make(), |(_, receiver)| receiver.try_recv().is_ok(), send);
            let close = |(_, receiver): &(_, channel::Receiver<u8>)| assert!(receiver.close());
            ask(make(), |(sender, _)| sender.is_closed(), close);
            let clones =
                |(sender, cell): &(channel::Sender<u8>, Cell<_>)| cell.set(Some(sender.clone()));
            ask((make().0, Cell::new(None)), |(sender, _)| sender.sender_count() == 2, clones);
        }
        let send = |(sender, _): &(mpsc::Sender<u8>, _)| sender.send(1).unwrap();
        ask(mpsc::channel(), |(_, receiver)| receiver.try_recv().is_ok(), send);
    });
}

#[test]
fn whether_anybody_is_interested() {
    alone(|| {
        let (sender, receiver) = oneshot::channel::<u8>();
        ask(
            (sender, Cell::new(Some(receiver))),
            |(sender, _)| sender.is_closed(),
            |(_, cell)| drop(cell.take()),
        );
        let (sender, receiver) = watch::channel(1);
        ask(
            (sender, Cell::new(Some(receiver))),
            |(sender, _)| sender.is_closed(),
            |(_, cell)| drop(cell.take()),
        );
        let (sender, receiver) = broadcast::channel::<u8>(1);
        let gone = |(sender, _): &(broadcast::Sender<u8>, _)| sender.receiver_count() == 0;
        ask((sender, Cell::new(Some(receiver))), gone, |(_, cell)| drop(cell.take()));
        let (sender, receiver) = broadcast::channel::<u8>(1);
        ask(
            (Cell::new(Some(sender)), receiver),
            |(_, receiver)| receiver.is_closed(),
            |(cell, _)| drop(cell.take()),
        );
    });
}

#[test]
fn whether_there_is_news() {
    alone(|| {
        let send = |(sender, _): &(watch::Sender<u8>, _)| sender.send(2).unwrap();
        ask(watch::channel(1), |(_, receiver)| receiver.has_changed() == Ok(true), send);
        ask(watch::channel(1), |(_, receiver)| *receiver.borrow() == 2, send);
        let send = |(sender, _): &(broadcast::Sender<u8>, _)| assert!(sender.send(1).is_ok());
        ask(broadcast::channel(1), |(_, receiver)| receiver.len() == 1, send);
        ask(broadcast::channel(1), |(sender, _)| !sender.is_empty(), send);
    });
}
