//! Who has come counts once, who gave up does not.

use loom::sync::Arc;
use loom::thread;

use super::{model, passed};
use crate::Barrier;

/// Two generations: nobody of the first is held up in the second.
#[test]
fn barrier_of_two() {
    model(3, || {
        let barrier = Arc::new(Barrier::new(2));
        let rounds = |barrier: &Barrier| [0, 1].map(|_| barrier.wait().is_leader());
        let other = {
            let barrier = barrier.clone();
            thread::spawn(move || rounds(&barrier))
        };
        let mine = rounds(&barrier);
        let theirs = other.join().unwrap();
        assert!(mine.iter().zip(theirs).all(|(mine, theirs)| *mine != theirs));
    });
}

#[test]
fn barrier_that_one_gives_up() {
    model(3, || {
        let barrier = Arc::new(Barrier::new(2));
        let two = [0, 1].map(|_| {
            let barrier = barrier.clone();
            thread::spawn(move || barrier.wait().is_leader())
        });
        let mine = barrier.wait_until(Some(passed()));
        let mut leaders = usize::from(mine.as_ref().is_ok_and(|result| result.is_leader()));
        let mut generations = 1;
        if mine.is_ok() {
            // We were the first one's partner, so the other has none yet.
            generations = 2;
            leaders += usize::from(barrier.wait().is_leader());
        }
        for other in two {
            leaders += usize::from(other.join().unwrap());
        }
        assert_eq!(leaders, generations);
    });
}
