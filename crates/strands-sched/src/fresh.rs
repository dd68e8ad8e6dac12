//! Fresh fibers: closures that have not started and may run anywhere.
//!
//! Each worker has a deque of them (Chase and Lev 2005, by crossbeam): it takes the newest, whose
//! data is warm and whose stack is the one just given back; thieves take the oldest, which in a
//! tree of spawns are the largest. What is spawned from outside the runtime lies in one queue
//! that all share.

#[cfg(not(loom))]
use crossbeam_deque::{Injector, Steal, Stealer, Worker as Deque};

use crate::task::TaskRef;
#[cfg(loom)]
use mock::{Injector, Steal, Stealer, Worker as Deque};

/// One worker's own end.
pub(crate) struct Fresh {
    deque: Deque<TaskRef>,
}

/// The end that others take from.
pub(crate) struct Theirs {
    stealer: Stealer<TaskRef>,
}

/// What was spawned from outside.
pub(crate) struct Shared {
    injector: Injector<TaskRef>,
}

impl Fresh {
    pub(crate) fn new() -> (Fresh, Theirs) {
        let deque = Deque::new_lifo();
        let stealer = deque.stealer();
        (Fresh { deque }, Theirs { stealer })
    }

    #[inline]
    pub(crate) fn push(&self, task: TaskRef) {
        self.deque.push(task);
    }

    /// The newest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<TaskRef> {
        self.deque.pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.deque.len()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.deque.is_empty()
    }

    /// Moves about half of `victim`'s, the oldest, here; true if there was anything.
    pub(crate) fn steal_from(&self, victim: &Theirs) -> bool {
        retry(|| victim.stealer.steal_batch(&self.deque))
    }

    /// Moves some of what was spawned from outside here; true if there was anything.
    pub(crate) fn steal_shared(&self, shared: &Shared) -> bool {
        retry(|| shared.injector.steal_batch(&self.deque))
    }
}

impl Theirs {
    pub(crate) fn is_empty(&self) -> bool {
        self.stealer.is_empty()
    }
}

impl Shared {
    pub(crate) fn new() -> Shared {
        Shared { injector: Injector::new() }
    }

    pub(crate) fn push(&self, task: TaskRef) {
        self.injector.push(task);
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.injector.is_empty()
    }

    /// The oldest, for one who has no deque.
    pub(crate) fn take(&self) -> Option<TaskRef> {
        loop {
            match self.injector.steal() {
                Steal::Success(task) => return Some(task),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }
}

fn retry(mut steal: impl FnMut() -> Steal<()>) -> bool {
    loop {
        match steal() {
            Steal::Success(()) => return true,
            Steal::Empty => return false,
            Steal::Retry => {}
        }
    }
}

/// The deque under loom, which cannot look into crossbeam's: the same operations under a lock.
///
/// The models check this crate's protocol around the deque, not the deque.
#[cfg(loom)]
mod mock {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use crate::atomic::{Mutex, lock};

    #[allow(dead_code, reason = "the shape of crossbeam's")]
    pub(super) enum Steal<T> {
        Empty,
        Success(T),
        Retry,
    }

    pub(super) struct Worker<T>(Arc<Mutex<VecDeque<T>>>);
    pub(super) struct Stealer<T>(Arc<Mutex<VecDeque<T>>>);
    pub(super) struct Injector<T>(Mutex<VecDeque<T>>);

    impl<T> Worker<T> {
        pub(super) fn new_lifo() -> Self {
            Worker(Arc::new(Mutex::new(VecDeque::new())))
        }
        pub(super) fn stealer(&self) -> Stealer<T> {
            Stealer(self.0.clone())
        }
        pub(super) fn push(&self, item: T) {
            lock(&self.0).push_back(item);
        }
        pub(super) fn pop(&self) -> Option<T> {
            lock(&self.0).pop_back()
        }
        pub(super) fn len(&self) -> usize {
            lock(&self.0).len()
        }
        pub(super) fn is_empty(&self) -> bool {
            lock(&self.0).is_empty()
        }
    }

    impl<T> Stealer<T> {
        pub(super) fn is_empty(&self) -> bool {
            lock(&self.0).is_empty()
        }
        pub(super) fn steal_batch(&self, thief: &Worker<T>) -> Steal<()> {
            batch(&self.0, thief)
        }
    }

    impl<T> Injector<T> {
        pub(super) fn new() -> Self {
            Injector(Mutex::new(VecDeque::new()))
        }
        pub(super) fn push(&self, item: T) {
            lock(&self.0).push_back(item);
        }
        pub(super) fn is_empty(&self) -> bool {
            lock(&self.0).is_empty()
        }
        pub(super) fn steal(&self) -> Steal<T> {
            lock(&self.0).pop_front().map_or(Steal::Empty, Steal::Success)
        }
        pub(super) fn steal_batch(&self, thief: &Worker<T>) -> Steal<()> {
            batch(&self.0, thief)
        }
    }

    fn batch<T>(from: &Mutex<VecDeque<T>>, thief: &Worker<T>) -> Steal<()> {
        let mut from = lock(from);
        let half = from.len().div_ceil(2);
        let taken: Vec<T> = from.drain(..half).collect();
        drop(from);
        if taken.is_empty() {
            return Steal::Empty;
        }
        taken.into_iter().for_each(|item| thief.push(item));
        Steal::Success(())
    }
}
