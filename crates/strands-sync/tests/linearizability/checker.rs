//! Whether a history is linearizable: the search of Wing and Gong, with Lowe's memory of where it has been.
//!
//! The search takes next any operation that was called before the first of those left has
//! returned, if the model allows its result. Which are done and what state the model is in is all that the rest
//! depends on, so no such pair is looked at twice; that makes histories of a hundred operations a matter of microseconds.
//!
//! Ours, as the crates there are either forget nothing (exponential in the concurrency) or are parts of model
//! checkers of ten times this size.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// What an object does when operations come one after the other.
pub trait Model: Clone + Eq + Hash + Debug {
    /// A call together with its result.
    type Op: Clone + Debug;

    /// The state after `op`; `None` if it cannot have that result in this state.
    fn after(&self, op: &Self::Op) -> Option<Self>;
}

/// An operation of a history.
#[derive(Clone, Debug)]
pub struct Event<Op> {
    pub party: usize,
    pub called: u64,
    /// `None` if it had not returned when the history ends: it may be done, or not.
    pub returned: Option<u64>,
    pub op: Op,
}

/// The operations of a history that are done.
type Done = u128;

pub fn is_linearizable<M: Model>(initial: &M, history: &[Event<M::Op>]) -> bool {
    assert!(history.len() <= Done::BITS as usize, "{} operations are too many", history.len());
    search(history, 0, initial, &mut HashSet::new())
}

fn search<M: Model>(
    history: &[Event<M::Op>],
    done: Done,
    state: &M,
    seen: &mut HashSet<(Done, M)>,
) -> bool {
    let left = || (0..history.len()).filter(|i| done & 1 << i == 0);
    let Some(first_return) = left().filter_map(|i| history[i].returned).min() else {
        return true; // Only such as need not be done.
    };
    for i in left().filter(|&i| history[i].called < first_return) {
        let Some(next) = state.after(&history[i].op) else { continue };
        let done = done | 1 << i;
        if seen.insert((done, next.clone())) && search(history, done, &next, seen) {
            return true;
        }
    }
    false
}

/// The shortest beginning of a history that is not linearizable either.
///
/// A beginning of a linearizable history is linearizable, so this is where it went wrong.
pub fn shortest<M: Model>(initial: &M, history: &[Event<M::Op>]) -> Vec<Event<M::Op>> {
    let mut ends: Vec<u64> = history.iter().filter_map(|event| event.returned).collect();
    ends.sort_unstable();
    let until = |end: u64| -> Vec<_> {
        let mut begun: Vec<_> =
            history.iter().filter(|event| event.called < end).cloned().collect();
        for event in &mut begun {
            event.returned = event.returned.filter(|&returned| returned <= end);
        }
        begun
    };
    let wrong = ends.partition_point(|&end| is_linearizable(initial, &until(end)));
    let mut shortest = ends.get(wrong).map_or(history.to_vec(), |&end| until(end));
    shortest.sort_by_key(|event| event.called);
    shortest
}
