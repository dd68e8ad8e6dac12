//! Locks that are in the books: with what is right of those that are not, the books are right and keep nobody out for ever.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use strands_sched::held::Kind;
use strands_sched::{Outcome, held};

use super::rwlock::{Guarded, beside};
use super::{add_one, model, passed};
use crate::Mutex;

/// As [`model`], with the books kept.
fn tracked(preemptions: usize, f: impl Fn() + Send + Sync + 'static) {
    held::track(true);
    model(preemptions, move || {
        f();
        assert!(held::all().is_empty());
    });
    held::track(false);
}

fn read_and_write(guarded: &Guarded) {
    guarded.read();
    guarded.write();
}

#[test]
fn held_mutex_of_two() {
    tracked(2, || {
        let counter = Arc::new(Mutex::new(UnsafeCell::new(0)));
        let its = counter.clone();
        let other = thread::spawn(move || (0..2).for_each(|_| add_one(&its)));
        (0..2).for_each(|_| add_one(&counter));
        other.join().unwrap();
    });
}

#[test]
fn held_by_two_readers_and_a_writer() {
    tracked(2, || {
        let guarded = Guarded::new();
        let other = beside(&guarded, read_and_write);
        guarded.read();
        other.join().unwrap();
        guarded.is_free(1);
    });
}

#[test]
fn held_by_a_writer_that_becomes_a_reader() {
    tracked(2, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.write_until(None), Outcome::Woken);
        let other = beside(&guarded, read_and_write);
        guarded.lock.downgrade();
        assert!(held::all().iter().all(|held| held.kind == Kind::Read));
        guarded.leave();
        other.join().unwrap();
        guarded.is_free(1);
    });
}

/// It holds up a reader, and lets it in, as one who reads for a moment.
#[test]
fn held_while_a_writer_gives_up() {
    tracked(1, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.read_until(None), Outcome::Woken);
        let writer = beside(&guarded, |guarded| {
            if guarded.lock.write_until(Some(passed())) == Outcome::Woken {
                guarded.lock.write_unlock();
            }
        });
        let reader = beside(&guarded, Guarded::read);
        guarded.leave();
        reader.join().unwrap();
        writer.join().unwrap();
        guarded.is_free(0);
    });
}

/// A guard that is not in the books beside one that is: whoever goes first.
#[test]
fn held_by_one_reader_of_two() {
    tracked(2, || {
        let guarded = Guarded::new();
        guarded.lock.join_unlisted();
        let other = beside(&guarded, read_and_write);
        guarded.leave();
        other.join().unwrap();
        guarded.is_free(1);
    });
}

/// Who leaves is not who is in the books.
#[test]
fn held_by_a_reader_that_another_leaves_for() {
    tracked(2, || {
        let guarded = Guarded::new();
        assert_eq!(guarded.lock.read_until(None), Outcome::Woken);
        let other = beside(&guarded, Guarded::leave);
        guarded.read();
        other.join().unwrap();
        guarded.is_free(0);
    });
}
