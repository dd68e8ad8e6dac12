//! The read-write lock: who holds it beside whom, and who is woken.
//!
//! Who gives up does so by a time that has passed, which goes the way that a cancel goes.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use loom::thread;
use strands_sched::Outcome;

use super::{model, passed};
use crate::rwlock::RawRwLock;

/// A lock, and what it guards.
pub(super) struct Guarded {
    pub(super) lock: RawRwLock,
    count: UnsafeCell<usize>,
}

impl Guarded {
    pub(super) fn new() -> Arc<Guarded> {
        Arc::new(Guarded { lock: RawRwLock::new(), count: UnsafeCell::new(0) })
    }

    /// As if by a guard for writing.
    fn add_one(&self) {
        // SAFETY: the lock is held for writing; loom checks it.
        self.count.with_mut(|count| unsafe { *count += 1 });
    }

    /// As if by a guard for reading.
    fn get(&self) -> usize {
        // SAFETY: the lock is held for reading; loom checks it.
        self.count.with(|count| unsafe { *count })
    }

    pub(super) fn write(&self) {
        assert_eq!(self.lock.write_until(None), Outcome::Woken);
        self.add_one();
        self.lock.write_unlock();
    }

    pub(super) fn read(&self) {
        assert_eq!(self.lock.read_until(None), Outcome::Woken);
        self.leave();
    }

    pub(super) fn leave(&self) {
        self.get();
        self.lock.read_unlock();
    }

    /// Nobody holds it, and nobody is said to wait.
    pub(super) fn is_free(&self, count: usize) {
        assert!(self.lock.try_write());
        assert_eq!(self.get(), count, "a write was lost");
        self.lock.write_unlock();
    }
}

pub(super) fn beside(guarded: &Arc<Guarded>, act: fn(&Guarded)) -> thread::JoinHandle<()> {
    let guarded = guarded.clone();
    thread::spawn(move || act(&guarded))
}

/// Three rounds, as for the mutex: who is waited for, who is faster, and the hand-over.
#[test]
fn rwlock_of_two_writers() {
    model(3, || {
        let guarded = Guarded::new();
        let other = beside(&guarded, |guarded| (0..3).for_each(|_| guarded.write()));
        (0..3).for_each(|_| guarded.write());
        other.join().unwrap();
        guarded.is_free(6);
    });
}

#[test]
fn rwlock_of_two_readers_and_a_writer() {
    model(2, || {
        let guarded = Guarded::new();
        let readers = [0, 1].map(|_| beside(&guarded, Guarded::read));
        guarded.write();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        guarded.is_free(1);
    });
}

/// Who writes next has all readers behind it, not only the one that woke it.
#[test]
fn rwlock_of_two_that_read_already_and_a_writer() {
    model(2, || {
        let guarded = Guarded::new();
        (0..2).for_each(|_| assert_eq!(guarded.lock.read_until(None), Outcome::Woken));
        let leave = |guarded: &Guarded| {
            guarded.get();
            guarded.lock.read_unlock();
        };
        let writer = beside(&guarded, Guarded::write);
        let reader = beside(&guarded, leave);
        leave(&guarded);
        reader.join().unwrap();
        writer.join().unwrap();
        guarded.is_free(1);
    });
}

#[test]
fn rwlock_of_two_writers_and_a_reader() {
    model(2, || {
        let guarded = Guarded::new();
        let writers = [0, 1].map(|_| beside(&guarded, Guarded::write));
        (0..2).for_each(|_| guarded.read());
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        guarded.is_free(2);
    });
}

/// Who was woken and found the lock taken is handed it by the next unlock.
#[test]
fn rwlock_of_a_reader_and_one_that_writes_on() {
    model(3, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.write_until(None), Outcome::Woken);
        let reader = beside(&guarded, Guarded::read);
        guarded.add_one();
        guarded.lock.write_unlock();
        (0..2).for_each(|_| guarded.write());
        reader.join().unwrap();
        guarded.is_free(3);
    });
}

/// Readers that wait go in beside each other: neither leaves before both are in.
#[test]
fn rwlock_of_two_readers_that_meet_in_it() {
    model(2, || {
        let guarded = Guarded::new();
        let inside = Arc::new(AtomicUsize::new(0));
        assert_eq!(guarded.lock.write_until(None), Outcome::Woken);
        let readers = [0, 1].map(|_| {
            let (guarded, inside) = (guarded.clone(), inside.clone());
            thread::spawn(move || {
                assert_eq!(guarded.lock.read_until(None), Outcome::Woken);
                guarded.get();
                inside.fetch_add(1, SeqCst);
                while inside.load(SeqCst) < 2 {
                    thread::yield_now();
                }
                guarded.lock.read_unlock();
            })
        });
        guarded.add_one();
        guarded.lock.write_unlock();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        guarded.is_free(1);
    });
}

/// A reader that came behind the writer joins the one who is in, who waits for it.
#[test]
fn rwlock_whose_writer_gives_up() {
    model(3, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.read_until(None), Outcome::Woken);
        let writer = beside(&guarded, |guarded| {
            // Unless it comes when all is over.
            if guarded.lock.write_until(Some(passed())) == Outcome::Woken {
                guarded.lock.write_unlock();
            }
        });
        let reader = beside(&guarded, Guarded::read);
        reader.join().unwrap();
        guarded.lock.read_unlock();
        writer.join().unwrap();
        guarded.is_free(0);
    });
}

/// As above, with a last reader that leaves while the writer gives up.
#[test]
fn rwlock_whose_last_reader_leaves_as_the_writer_gives_up() {
    model(3, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.read_until(None), Outcome::Woken);
        let writer = beside(&guarded, |guarded| {
            if guarded.lock.write_until(Some(passed())) == Outcome::Woken {
                guarded.lock.write_unlock();
            }
        });
        let reader = beside(&guarded, Guarded::read);
        guarded.lock.read_unlock();
        reader.join().unwrap();
        writer.join().unwrap();
        guarded.is_free(0);
    });
}

/// A writer and the reader behind it give up at once: nobody is held up any more.
#[test]
fn rwlock_whose_line_gives_up_is_open() {
    model(3, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.read_until(None), Outcome::Woken);
        let writer = beside(&guarded, |guarded| {
            assert_eq!(guarded.lock.write_until(Some(passed())), Outcome::TimedOut);
        });
        let reader = beside(&guarded, |guarded| {
            if guarded.lock.read_until(Some(passed())) == Outcome::Woken {
                guarded.lock.read_unlock();
            }
        });
        writer.join().unwrap();
        reader.join().unwrap();
        assert!(guarded.lock.try_read());
        guarded.lock.read_unlock();
        guarded.lock.read_unlock();
        guarded.is_free(0);
    });
}

/// A writer gives up after the last reader has left, and before that one looks; and another reader comes.
#[test]
fn rwlock_whose_writer_gives_up_between_readers_is_open() {
    model(3, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.read_until(None), Outcome::Woken);
        let last = beside(&guarded, |guarded| guarded.lock.read_unlock());
        let writer = beside(&guarded, |guarded| {
            if guarded.lock.write_until(Some(passed())) == Outcome::Woken {
                guarded.lock.write_unlock();
            }
        });
        assert_eq!(guarded.lock.read_until(None), Outcome::Woken);
        last.join().unwrap();
        writer.join().unwrap();
        assert!(guarded.lock.try_read());
        guarded.lock.read_unlock();
        guarded.lock.read_unlock();
        guarded.is_free(0);
    });
}

/// A reader gives up as it is let in: it is counted and in, or neither; and the one behind it goes in all the same.
#[test]
fn rwlock_whose_reader_gives_up() {
    model(3, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.write_until(None), Outcome::Woken);
        let hasty = beside(&guarded, |guarded| {
            if guarded.lock.read_until(Some(passed())) == Outcome::Woken {
                guarded.get();
                guarded.lock.read_unlock();
            }
        });
        let patient = beside(&guarded, Guarded::read);
        guarded.add_one();
        guarded.lock.write_unlock();
        hasty.join().unwrap();
        patient.join().unwrap();
        guarded.is_free(1);
    });
}

/// The readers that wait join the writer that has become one, who waits for them; a writer does not.
#[test]
fn rwlock_that_is_downgraded() {
    model(3, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.write_until(None), Outcome::Woken);
        let reader = beside(&guarded, Guarded::read);
        guarded.add_one();
        guarded.lock.downgrade();
        let writer = beside(&guarded, Guarded::write);
        assert_eq!(guarded.get(), 1);
        guarded.lock.read_unlock();
        reader.join().unwrap();
        writer.join().unwrap();
        guarded.is_free(2);
    });
}

#[test]
fn rwlock_that_is_downgraded_before_a_writer() {
    model(2, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.write_until(None), Outcome::Woken);
        let writer = beside(&guarded, Guarded::write);
        let reader = beside(&guarded, |guarded| {
            // Not if it comes after the downgrade: then it stands behind the writer.
            if guarded.lock.try_read() {
                guarded.get();
                guarded.lock.read_unlock();
            }
        });
        guarded.add_one();
        guarded.lock.downgrade();
        assert_eq!(guarded.get(), 1);
        guarded.lock.read_unlock();
        reader.join().unwrap();
        writer.join().unwrap();
        guarded.is_free(2);
    });
}

/// The writer that stays in line when a reader is let in is woken when both have left.
#[test]
fn rwlock_that_lets_in_a_reader_before_a_writer() {
    model(2, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.write_until(None), Outcome::Woken);
        let writer = beside(&guarded, Guarded::write);
        let reader = beside(&guarded, Guarded::read);
        guarded.lock.downgrade();
        guarded.lock.read_unlock();
        reader.join().unwrap();
        writer.join().unwrap();
        guarded.is_free(1);
    });
}
