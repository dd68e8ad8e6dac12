//! The semaphore: permits from hand to hand, past those that give up.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{model, passed};
use crate::{AcquireTimeoutError, Semaphore};

/// All permits are there, and nobody is in line: then they can be had at once.
fn assert_whole(semaphore: &Semaphore, permits: u32) {
    assert_eq!(semaphore.available_permits(), permits as usize, "a permit was lost or doubled");
    drop(semaphore.try_acquire_many(permits).expect("somebody is left in line"));
}

#[test]
fn one_permit_is_a_lock() {
    model(3, || {
        let shared = Arc::new((Semaphore::new(1), UnsafeCell::new(0)));
        let add_twice = |shared: Arc<(Semaphore, UnsafeCell<usize>)>| {
            for _ in 0..2 {
                let _permit = shared.0.acquire().unwrap();
                // SAFETY: the permit is held; loom checks it.
                shared.1.with_mut(|count| unsafe { *count += 1 });
            }
        };
        let other = {
            let shared = shared.clone();
            thread::spawn(move || add_twice(shared))
        };
        add_twice(shared.clone());
        other.join().unwrap();
        // SAFETY: the other thread has ended.
        shared.1.with(|count| assert_eq!(unsafe { *count }, 4));
        assert_whole(&shared.0, 1);
    });
}

/// Who waits for all permits sees what each of those who had one has written.
#[test]
fn all_permits_are_a_writer_s() {
    model(3, || {
        let semaphore = std::sync::Arc::new(Semaphore::new(2));
        let counts = Arc::new([UnsafeCell::new(0), UnsafeCell::new(0)]);
        let others = [0, 1].map(|i| {
            let (permit, counts) = (semaphore.acquire_owned().unwrap(), counts.clone());
            thread::spawn(move || {
                // SAFETY: nobody else touches this one while the permit is held; loom checks it.
                counts[i].with_mut(|count| unsafe { *count += 1 });
                drop(permit);
            })
        });
        let permit = semaphore.acquire_many(2).unwrap();
        for count in counts.iter() {
            // SAFETY: all permits are held; loom checks it.
            count.with(|count| assert_eq!(unsafe { *count }, 1));
        }
        drop(permit);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_whole(&semaphore, 2);
    });
}

#[test]
fn a_permit_goes_past_one_that_gives_up() {
    model(3, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let patient = {
            let semaphore = semaphore.clone();
            thread::spawn(move || drop(semaphore.acquire().unwrap()))
        };
        let adder = {
            let semaphore = semaphore.clone();
            thread::spawn(move || semaphore.add_permits(1))
        };
        drop(semaphore.acquire_deadline(passed()));
        patient.join().unwrap();
        adder.join().unwrap();
        assert_whole(&semaphore, 1);
    });
}

/// The permit that the first lacks one to use is the second's when the first gives up.
#[test]
fn the_first_gives_up_and_the_second_fits() {
    model(4, || {
        let semaphore = Arc::new(Semaphore::new(1));
        let second = {
            let semaphore = semaphore.clone();
            thread::spawn(move || drop(semaphore.acquire().unwrap()))
        };
        let first = semaphore.acquire_many_deadline(2, passed());
        assert_eq!(first.unwrap_err(), AcquireTimeoutError::Timeout);
        second.join().unwrap();
        assert_whole(&semaphore, 1);
    });
}

#[test]
fn closing_ends_all_waits() {
    model(3, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let waiter = {
            let semaphore = semaphore.clone();
            thread::spawn(move || semaphore.acquire().is_ok())
        };
        let adder = {
            let semaphore = semaphore.clone();
            thread::spawn(move || semaphore.add_permits(1))
        };
        semaphore.close();
        waiter.join().unwrap();
        adder.join().unwrap();
        assert_eq!(semaphore.available_permits(), 1, "a permit was lost or doubled");
    });
}

/// Permits are taken away beside a grant, of one that was free and one that is given back: nobody has one twice.
#[test]
fn a_permit_is_forgotten_or_granted() {
    model(3, || {
        let semaphore = Arc::new(Semaphore::new(1));
        let waiter = {
            let semaphore = semaphore.clone();
            thread::spawn(move || {
                semaphore.acquire_many_deadline(2, passed()).map(|permit| permit.forget())
            })
        };
        let adder = {
            let semaphore = semaphore.clone();
            thread::spawn(move || semaphore.add_permits(1))
        };
        let forgotten = semaphore.forget_permits(1);
        let granted = 2 * usize::from(waiter.join().unwrap().is_ok());
        adder.join().unwrap();
        assert_eq!(semaphore.available_permits() + forgotten + granted, 2);
    });
}

/// A permit that is given back to one in line who has given up, and taken by one who comes by.
#[test]
fn what_is_written_before_a_permit_that_is_left_over_is_seen() {
    model(3, || {
        let shared = Arc::new((Semaphore::new(1), UnsafeCell::new(0)));
        // SAFETY: the permit is held; loom checks it.
        let write = |shared: &(Semaphore, UnsafeCell<usize>)| {
            shared.1.with_mut(|count| unsafe { *count += 1 })
        };
        let permit = shared.0.acquire().unwrap();
        let theirs = shared.clone();
        let hasty = thread::spawn(move || drop(theirs.0.acquire_deadline(passed())));
        let theirs = shared.clone();
        let comes_by = thread::spawn(move || {
            if let Ok(_permit) = theirs.0.try_acquire() {
                write(&theirs);
            }
        });
        write(&shared);
        drop(permit);
        hasty.join().unwrap();
        comes_by.join().unwrap();
        assert_whole(&shared.0, 1);
    });
}
