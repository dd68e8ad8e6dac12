//! Fresh fibers: closures that have not started and may run anywhere.
//!
//! Each worker has a deque of them (Chase and Lev 2005, by crossbeam): it takes the newest, whose
//! data is warm and whose stack is the one just given back; thieves take the oldest, which in a
//! tree of spawns are the largest. What is spawned from outside the runtime lies in one queue
//! that all share. Now and then a worker takes the oldest of its own or of the shared ones instead:
//! fibers that spawn their successors would else keep all others waiting for ever.

#[cfg(not(loom))]
use crossbeam_deque::{Injector, Steal, Stealer, Worker as Deque};

use crate::task::TaskRef;
#[cfg(loom)]
use mock::{Injector, Steal, Stealer, Worker as Deque};

/// One worker's own end.
pub(crate) struct Fresh<T = TaskRef> {
    deque: Deque<T>,
}

/// The end that others take from.
pub(crate) struct Theirs<T = TaskRef> {
    stealer: Stealer<T>,
}

/// What was spawned from outside.
pub(crate) struct Shared<T = TaskRef> {
    injector: Injector<T>,
}

impl<T> Fresh<T> {
    pub(crate) fn new() -> (Fresh<T>, Theirs<T>) {
        let deque = Deque::new_lifo();
        let stealer = deque.stealer();
        (Fresh { deque }, Theirs { stealer })
    }

    #[inline]
    pub(crate) fn push(&self, task: T) {
        self.deque.push(task);
    }

    /// The newest.
    #[inline]
    pub(crate) fn pop(&self) -> Option<T> {
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
    pub(crate) fn steal_from(&self, victim: &Theirs<T>) -> bool {
        first(|| victim.stealer.steal_batch(&self.deque)).is_some()
    }

    /// Moves some of what was spawned from outside here; true if there was anything.
    pub(crate) fn steal_shared(&self, shared: &Shared<T>) -> bool {
        first(|| shared.injector.steal_batch(&self.deque)).is_some()
    }
}

impl<T> Theirs<T> {
    /// The oldest.
    pub(crate) fn take(&self) -> Option<T> {
        // To steal, crossbeam gives the thread a record for its reclamation, which is allocated. Most workers need none.
        if self.is_empty() { None } else { first(|| self.stealer.steal()) }
    }

    pub(crate) fn len(&self) -> usize {
        self.stealer.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stealer.is_empty()
    }
}

impl<T> Shared<T> {
    pub(crate) fn new() -> Shared<T> {
        Shared { injector: Injector::new() }
    }

    pub(crate) fn push(&self, task: T) {
        self.injector.push(task);
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.injector.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.injector.len()
    }

    /// The oldest.
    pub(crate) fn take(&self) -> Option<T> {
        first(|| self.injector.steal())
    }
}

fn first<T>(mut steal: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match steal() {
            Steal::Success(stolen) => return Some(stolen),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

/// The deque under loom, which cannot look into crossbeam's: the same operations under a lock.
///
/// The models check this crate's protocol around the deque, not the deque. `is_empty` takes no lock and orders
/// no more than an acquire load does, so that nobody relies on more.
#[cfg(loom)]
mod mock {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use crate::atomic::{Acquire, AtomicUsize, Mutex, Release, lock};

    #[allow(dead_code, reason = "the shape of crossbeam's")]
    pub(super) enum Steal<T> {
        Empty,
        Success(T),
        Retry,
    }

    struct Queue<T> {
        items: Mutex<VecDeque<T>>,
        len: AtomicUsize,
    }

    pub(super) struct Worker<T>(Arc<Queue<T>>);
    pub(super) struct Stealer<T>(Arc<Queue<T>>);
    pub(super) struct Injector<T>(Queue<T>);

    impl<T> Queue<T> {
        fn new() -> Self {
            Queue { items: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0) }
        }

        fn with<R>(&self, f: impl FnOnce(&mut VecDeque<T>) -> R) -> R {
            let mut items = lock(&self.items);
            let result = f(&mut items);
            self.len.store(items.len(), Release);
            result
        }

        fn len(&self) -> usize {
            self.len.load(Acquire)
        }

        fn batch(&self, thief: &Worker<T>, share: fn(usize) -> usize) -> Steal<()> {
            let taken: Vec<T> = self.with(|items| items.drain(..share(items.len())).collect());
            // They are on their way: nobody sees them.
            if taken.is_empty() {
                return Steal::Empty;
            }
            taken.into_iter().for_each(|item| thief.push(item));
            Steal::Success(())
        }
    }

    impl<T> Worker<T> {
        pub(super) fn new_lifo() -> Self {
            Worker(Arc::new(Queue::new()))
        }
        pub(super) fn stealer(&self) -> Stealer<T> {
            Stealer(self.0.clone())
        }
        pub(super) fn push(&self, item: T) {
            self.0.with(|items| items.push_back(item));
        }
        pub(super) fn pop(&self) -> Option<T> {
            self.0.with(VecDeque::pop_back)
        }
        pub(super) fn len(&self) -> usize {
            self.0.len()
        }
        pub(super) fn is_empty(&self) -> bool {
            self.0.len() == 0
        }
    }

    impl<T> Stealer<T> {
        pub(super) fn len(&self) -> usize {
            self.0.len()
        }
        pub(super) fn is_empty(&self) -> bool {
            self.0.len() == 0
        }
        pub(super) fn steal(&self) -> Steal<T> {
            self.0.with(VecDeque::pop_front).map_or(Steal::Empty, Steal::Success)
        }
        pub(super) fn steal_batch(&self, thief: &Worker<T>) -> Steal<()> {
            self.0.batch(thief, |len| len.div_ceil(2))
        }
    }

    impl<T> Injector<T> {
        pub(super) fn new() -> Self {
            Injector(Queue::new())
        }
        pub(super) fn push(&self, item: T) {
            self.0.with(|items| items.push_back(item));
        }
        pub(super) fn is_empty(&self) -> bool {
            self.0.len() == 0
        }
        pub(super) fn len(&self) -> usize {
            self.0.len()
        }
        pub(super) fn steal(&self) -> Steal<T> {
            self.0.with(VecDeque::pop_front).map_or(Steal::Empty, Steal::Success)
        }
        pub(super) fn steal_batch(&self, thief: &Worker<T>) -> Steal<()> {
            self.0.batch(thief, |len| len) // It may be all.
        }
    }
}
