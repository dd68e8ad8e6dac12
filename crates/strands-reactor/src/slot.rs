//! Where the waiters of a descriptor are kept: memory that is never freed, only reused.
//!
//! The kernel gives back a [`Token`] with each event, at a time when the descriptor may have been
//! closed by another thread and its number, or its slot, taken by another. A slot stays a slot
//! for ever, and its generation, which is part of the token, changes with each tenant; both are
//! read under the lock that guards the waiters. So a stale event wakes nobody, and an event costs
//! one lock.
//!
//! Turned down: a pointer in the token (freed memory after a raw `close(2)` of a descriptor that
//! was duplicated, whose registration nobody can remove), and a table per worker (one more lock
//! per event, as other threads deregister).

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, Ordering::Relaxed, fence};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use rustix::fd::RawFd;
use strands_sched::{Locked, WaitQueue};

use crate::backend::fork;
use crate::backend::{Readiness, Registrar, WakeFd};

/// What an operation waits for.
///
/// ```
/// use std::net::{TcpListener, TcpStream};
/// use strands_reactor::{Direction, First, Limit, Request, Source};
/// use strands_sched::Op;
///
/// static WAIT: Op = Op("an example");
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let client = TcpStream::connect(listener.local_addr()?)?;
/// let wait = |source: &Source, direction| {
///     let request = Request { op: &WAIT, direction, limit: Limit::None, first: First::Wait };
///     source.perform(&request, |_| Ok(()))
/// };
/// wait(&Source::new(client.into()), Direction::Write)?; // Its buffers are empty.
/// wait(&Source::new(listener.into()), Direction::Read)?; // It has a connection to accept.
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Until there is something to read, accept or learn.
    Read,
    /// Until something can be written, or a connection is made.
    Write,
}

impl Direction {
    fn bit(self) -> u8 {
        match self {
            Direction::Read => 1,
            Direction::Write => 2,
        }
    }
}

/// Who waits for what: an event of a reactor wakes waiters of that reactor's worker only.
pub(crate) struct Tag {
    pub(crate) direction: Direction,
    pub(crate) reactor: u32,
}

/// Names a tenant of a slot, to the kernel and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    index: u32,
    generation: u32,
}

impl Token {
    /// Not a slot: what backends use for their own descriptors.
    pub(crate) const NONE: Token = Token { index: u32::MAX, generation: u32::MAX };

    pub(crate) fn to_u64(self) -> u64 {
        u64::from(self.index) << 32 | u64::from(self.generation)
    }

    pub(crate) fn from_u64(word: u64) -> Token {
        Token { index: (word >> 32) as u32, generation: word as u32 }
    }

    /// For interfaces that carry one machine word, into which the generation may not fit.
    pub(crate) fn to_word(self) -> usize {
        if usize::BITS < u64::BITS { self.index as usize } else { self.to_u64() as usize }
    }

    /// Where the generation did not fit, it is the present one: a stale event may then wake
    /// somebody, who looks in vain and waits again.
    pub(crate) fn from_word(word: usize) -> Token {
        if usize::BITS == u64::BITS {
            return Token::from_u64(word as u64);
        }
        match at(word as u32) {
            Some(slot) => slot.token(&slot.queue.lock()),
            None => Token::NONE,
        }
    }
}

pub(crate) struct Slot {
    pub(crate) queue: WaitQueue<State, Tag>,
    /// Set once by `Source::close`, under the lock; read by anybody at any time.
    pub(crate) closed: AtomicBool,
    /// A bit for each direction: a waiter was woken while others of its direction stayed. Written
    /// under the lock. See "The turn" in `source`.
    more: AtomicU8,
    /// The reactor that was registered first, of those that still exist; 0 until then.
    home: AtomicU32,
    /// See "The hint" in `source`. Used by the thread of `home`'s worker only.
    hint: AtomicU8,
    index: u32,
}

/// A short read has emptied the socket, and no event came since.
const DRAINED: u8 = 1;
/// The peer has ended, or something out of the ordinary happened: a short read proves nothing.
const SPECIAL: u8 = 2;

#[derive(Default)]
pub(crate) struct State {
    generation: u32,
    /// Where it is registered: the first, and then the others.
    first: Option<Registration>,
    others: Vec<Registration>,
    /// Plain threads that wait.
    pub(crate) threads: Vec<Arc<WakeFd>>,
}

/// With the reactor of one worker. When the worker ends, its set of descriptors goes with it, so
/// that a source which outlives many runtimes does not hold theirs.
struct Registration {
    reactor: u32,
    registrar: Weak<dyn Registrar>,
}

impl Registration {
    fn has_ended(&self) -> bool {
        let ended = self.registrar.strong_count() == 0;
        if ended {
            // What the worker has written to the slot lies before the drop of its registrar.
            fence(Ordering::Acquire);
        }
        ended
    }
}

impl State {
    pub(crate) fn is_registered(&self, reactor: u32) -> bool {
        self.first.iter().chain(&self.others).any(|one| one.reactor == reactor)
    }
}

impl Slot {
    fn new(index: u32) -> Slot {
        Slot {
            queue: WaitQueue::default(),
            closed: AtomicBool::new(false),
            more: AtomicU8::new(0),
            home: AtomicU32::new(0),
            hint: AtomicU8::new(0),
            index,
        }
    }

    pub(crate) fn token(&self, state: &State) -> Token {
        Token { index: self.index, generation: state.generation }
    }

    /// Notes that `reactor` sends events here. Called by its worker's thread.
    pub(crate) fn add_registrar(
        &self,
        state: &mut State,
        reactor: u32,
        registrar: &Arc<dyn Registrar>,
    ) {
        let new = Registration { reactor, registrar: Arc::downgrade(registrar) };
        state.others.retain(|one| !one.has_ended());
        if state.first.as_ref().is_none_or(Registration::has_ended) {
            self.home.store(reactor, Relaxed);
            // The last home's. Whatever came since is reported to this one.
            self.hint.store(0, Relaxed);
            state.first = Some(new);
        } else {
            state.others.push(new);
        }
    }

    /// Ends the flow of events.
    pub(crate) fn deregister(&self, state: &mut State, fd: RawFd) {
        let all = state.first.take().into_iter().chain(std::mem::take(&mut state.others));
        all.filter_map(|one| one.registrar.upgrade()).for_each(|registrar| registrar.remove(fd));
    }

    /// A read on `reactor`'s worker got less than it asked for.
    #[inline]
    pub(crate) fn note_drained(&self, reactor: u32) {
        if self.home.load(Relaxed) == reactor && self.hint.load(Relaxed) == 0 {
            self.hint.store(DRAINED, Relaxed);
        }
    }

    /// Whether nothing can have come since a read on `reactor`'s worker emptied the socket.
    #[inline]
    pub(crate) fn is_drained(&self, reactor: impl FnOnce() -> Option<u32>) -> bool {
        self.hint.load(Relaxed) == DRAINED && reactor() == Some(self.home.load(Relaxed))
    }

    /// A waiter that was woken has not found the end of what there is: wakes the next one.
    #[inline]
    pub(crate) fn pass_turn(&self, direction: Direction, reactor: u32) {
        if self.more.load(Relaxed) & direction.bit() != 0 {
            let mut locked = self.queue.lock();
            self.wake_one(&mut locked, direction, reactor);
        }
    }

    fn wake_one(&self, locked: &mut Locked<'_, State, Tag>, direction: Direction, reactor: u32) {
        let stayed = Cell::new(false);
        if !locked.is_empty() {
            locked.wake_first(|tag| tag.direction == direction && tag.reactor == reactor);
            locked.wake_first(|tag| {
                stayed.set(stayed.get() || tag.direction == direction);
                false // Only looks.
            });
        }
        let others = self.more.load(Relaxed) & !direction.bit();
        self.more.store(if stayed.get() { others | direction.bit() } else { others }, Relaxed);
    }
}

/// An event of `reactor`, on its worker's thread and own stack.
pub(crate) fn deliver(reactor: u32, token: Token, readiness: Readiness) {
    let Some(slot) = at(token.index) else { return };
    let mut locked = slot.queue.lock();
    if locked.generation != token.generation {
        return;
    }
    if slot.home.load(Relaxed) == reactor {
        let special = slot.hint.load(Relaxed) & SPECIAL;
        slot.hint.store(if readiness.special { SPECIAL } else { special }, Relaxed);
    }
    if readiness.broken {
        locked.wake_all(|tag| tag.reactor == reactor);
        return;
    }
    if readiness.readable {
        slot.wake_one(&mut locked, Direction::Read, reactor);
    }
    if readiness.writable {
        slot.wake_one(&mut locked, Direction::Write, reactor);
    }
}

/// Slots come in blocks, each as large as all before it.
const FIRST_BLOCK: u32 = 64;
static BLOCKS: [OnceLock<Box<[Slot]>>; 26] = [const { OnceLock::new() }; 26];
static FREE: Mutex<Free> = Mutex::new(Free { slots: Vec::new(), made: 0 });

struct Free {
    /// Latest given back last, as its memory is warm.
    slots: Vec<u32>,
    made: u32,
}

fn free() -> std::sync::MutexGuard<'static, Free> {
    FREE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A block's number and the place in it.
fn place(index: u32) -> (usize, usize) {
    let shifted = u64::from(index) + u64::from(FIRST_BLOCK);
    let block = shifted.ilog2() - FIRST_BLOCK.ilog2();
    (block as usize, (shifted - (u64::from(FIRST_BLOCK) << block)) as usize)
}

fn at(index: u32) -> Option<&'static Slot> {
    let (block, place) = place(index);
    BLOCKS.get(block)?.get()?.get(place)
}

/// A slot for a new tenant.
pub(crate) fn take() -> &'static Slot {
    if fork::in_child() {
        // A thread that does not exist here may hold the lock. The slot is not given back either.
        return Box::leak(Box::new(Slot::new(u32::MAX)));
    }
    let mut free = free();
    if let Some(index) = free.slots.pop() {
        return at(index).expect("a free slot exists");
    }
    let index = free.made;
    let (block, place) = place(index);
    assert!(block < BLOCKS.len(), "more than 4 billion descriptors");
    let slots = BLOCKS[block].get_or_init(|| {
        let length = FIRST_BLOCK << block;
        (index..index + length).map(Slot::new).collect()
    });
    free.made += 1;
    &slots[place]
}

/// The tenant moves out: nobody uses or waits at the slot any more.
pub(crate) fn give_back(slot: &'static Slot, fd: RawFd) {
    {
        let mut locked = slot.queue.lock();
        debug_assert!(locked.is_empty(), "a descriptor was dropped while somebody waits at it");
        slot.deregister(&mut locked, fd);
        locked.generation = locked.generation.wrapping_add(1);
        locked.threads = Vec::new();
        slot.closed.store(false, Relaxed);
        slot.more.store(0, Relaxed);
        slot.home.store(0, Relaxed);
        slot.hint.store(0, Relaxed);
    }
    free().slots.push(slot.index);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_dense_and_unique() {
        let mut expected = (0, 0);
        for index in 0..10_000 {
            assert_eq!(place(index), expected, "of {index}");
            expected.1 += 1;
            if expected.1 == (FIRST_BLOCK as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(place(u32::MAX).0 >= BLOCKS.len() || at(u32::MAX).is_none());
    }

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [Token { index: 7, generation: 9 }, Token::NONE] {
            assert_eq!(Token::from_u64(token.to_u64()), token);
        }
        assert_eq!(Token::from_word(Token::NONE.to_word()), Token::NONE);
        if usize::BITS == u64::BITS {
            let token = Token { index: 7, generation: 9 };
            assert_eq!(Token::from_word(token.to_word()), token);
        }
    }

    #[test]
    fn a_stale_event_changes_nothing_for_the_next_tenant() {
        let slot = take();
        let stale = slot.token(&slot.queue.lock());
        give_back(slot, 0);
        slot.home.store(5, Relaxed);
        slot.hint.store(DRAINED, Relaxed);
        let readable = Readiness { readable: true, ..Readiness::default() };
        deliver(5, stale, readable);
        assert_eq!(slot.hint.load(Relaxed), DRAINED);
        let current = slot.token(&slot.queue.lock());
        deliver(5, current, readable);
        assert_eq!(slot.hint.load(Relaxed), 0);
    }

    struct NoRegistrar;

    impl Registrar for NoRegistrar {
        fn add(&self, _: RawFd, _: Token) -> std::io::Result<()> {
            Ok(())
        }

        fn remove(&self, _: RawFd) {}
    }

    #[test]
    fn an_ended_reactor_is_let_go_and_its_place_is_taken() {
        let slot = Slot::new(u32::MAX);
        let mut state = slot.queue.lock();
        let registrars: [Arc<dyn Registrar>; 4] = [(); 4].map(|()| Arc::new(NoRegistrar) as _);
        let [a, b, c, d] = registrars;
        slot.add_registrar(&mut state, 1, &a);
        slot.add_registrar(&mut state, 2, &b);
        slot.note_drained(1);
        drop(a);
        slot.add_registrar(&mut state, 3, &c);
        assert!(!state.is_registered(1) && state.is_registered(2) && state.is_registered(3));
        assert!(!slot.is_drained(|| Some(3)), "the mark was the first reactor's");
        slot.note_drained(3);
        assert!(slot.is_drained(|| Some(3)), "it is the home now");
        drop(b);
        slot.add_registrar(&mut state, 4, &d);
        assert_eq!(state.others.len(), 1, "the second is not kept");
    }

    #[test]
    fn slots_are_small() {
        assert!(size_of::<Slot>() <= 144, "a slot has {} bytes", size_of::<Slot>());
    }
}
