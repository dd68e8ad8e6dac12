//! Frames at which an unwinding stops: a time limit, a token, or a scope that may fail, around a call.
//!
//! A cancel of a fiber asks it to unwind to its end. A time limit that has passed, or a token that
//! was cancelled, or a scope that has failed, asks whoever runs below it (a fiber or a plain thread) to unwind as far as the frame that
//! set it, and no further. All of these are one thing: reasons, from outside to inside, that [`look`] goes through when
//! a wait begins, when it is woken, and when the budget is spent. None of them is an event that could
//! be missed: a reason, once there, stays.
//!
//! Who is chosen if several ask: the outermost, as all inside of it is to end anyway. But of two
//! time limits it is the one that passed first: it would have come first, had we looked sooner.
//! A shield holds back what lies outside of it, so a time limit *inside* of
//! [`uncancellable`](crate::uncancellable) works, to its own frame.
//!
//! The list lies on the heap, and a frame leaves it by its number. Nested calls enter and leave in order, but a
//! bare coroutine that suspends inside of one need not: then an unwinding may find its frame gone and go on to
//! the fiber's end, and nothing worse happens. Turned down: nodes on the stack, for which it would
//! be a pointer to a frame that is gone.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Instant;

use strands_fiber::CAN_UNWIND;

use crate::cancel::{Cancelled, Why};
use crate::children::Children;
use crate::current;
use crate::runtime::with_driver;
use crate::task::Header;
use crate::token::CancelToken;
use crate::worker::{self, BUDGET};

/// What ends the calls below a frame.
pub(crate) enum Until {
    Time(Instant),
    Token(CancelToken),
    /// That of a scope's children, or of its own closure.
    Failure(Arc<Children>),
}

impl Until {
    /// `now` is looked up if a time limit needs it.
    fn is_reached(&self, now: &mut Option<Instant>, me: &Header) -> bool {
        match self {
            Until::Time(at) => at <= now.get_or_insert_with(|| self::now(me)),
            Until::Token(token) => token.is_set(),
            Until::Failure(children) => children.has_failed(),
        }
    }

    fn why(&self) -> Why {
        match self {
            Until::Time(_) => Why::Time,
            Until::Token(token) => Why::Token(token.reason()),
            Until::Failure(_) => Why::Failure,
        }
    }

    fn time(&self) -> Option<Instant> {
        match self {
            Until::Time(at) => Some(*at),
            Until::Token(_) | Until::Failure(_) => None,
        }
    }
}

/// A party's frames, innermost first. Owner only.
#[derive(Default)]
pub(crate) struct Frames {
    any: Cell<bool>,
    list: Cell<Option<Box<Frame>>>,
}

struct Frame {
    id: u64,
    until: Until,
    /// Those between this frame and the next outside.
    shields: Shields,
    outer: Option<Box<Frame>>,
}

/// Sections in which a cancel is held back.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shields {
    /// All of them.
    pub(crate) all: u32,
    /// Those in which what can fail fails instead.
    pub(crate) as_error: u32,
}

impl Shields {
    pub(crate) fn plus(self, other: Shields) -> Shields {
        Shields { all: self.all + other.all, as_error: self.as_error + other.as_error }
    }

    pub(crate) fn minus(self, other: Shields) -> Option<Shields> {
        let all = self.all.checked_sub(other.all)?;
        Some(Shields { all, as_error: self.as_error.checked_sub(other.as_error)? })
    }
}

impl Frames {
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.get()
    }

    /// `f` enters and leaves no frame.
    fn peek<R>(&self, f: impl FnOnce(Option<&Frame>) -> R) -> R {
        let list = self.list.take();
        let result = f(list.as_deref());
        self.list.set(list);
        result
    }

    fn set(&self, list: Option<Box<Frame>>) {
        self.any.set(list.is_some());
        self.list.set(list);
    }

    fn enter(&self, me: &Header, id: u64, until: Until) {
        let shields = me.shields.take();
        self.set(Some(Box::new(Frame { id, until, shields, outer: self.list.take() })));
    }

    /// Gives back the frame, and its shields to what is next inside of it.
    fn leave(&self, me: &Header, id: u64) -> Option<Box<Frame>> {
        let mut list = self.list.take();
        let mut place = &mut list;
        let mut shields = me.shields.get();
        let mut inner: Option<&mut Shields> = None;
        while place.as_ref().is_some_and(|frame| frame.id != id) {
            let frame = place.as_mut()?;
            inner = Some(&mut frame.shields);
            place = &mut frame.outer;
        }
        let gone = place.take().map(|mut gone| {
            *place = gone.outer.take();
            let inner = inner.unwrap_or(&mut shields);
            *inner = inner.plus(gone.shields);
            gone
        });
        me.shields.set(shields);
        self.set(list);
        gone
    }

    /// Takes back a shield that is not inside of the innermost frame, as it was a coroutine that
    /// entered it.
    #[cold]
    pub(crate) fn unshield(&self, shield: Shields) {
        let mut list = self.list.take();
        let mut frame = list.as_deref_mut();
        while let Some(this) = frame {
            if let Some(left) = this.shields.minus(shield) {
                this.shields = left;
                break;
            }
            frame = this.outer.as_deref_mut();
        }
        self.list.set(list);
    }
}

/// Runs `f` until it ends, or until it waits and `until` is reached: then it is unwound to here.
///
/// A payload for another frame, or for none, goes on.
pub(crate) fn run<T>(until: Until, f: impl FnOnce() -> T) -> Result<T, Cancelled> {
    /// Leaves the frame, however that comes about.
    struct Entered(u64);
    impl Drop for Entered {
        fn drop(&mut self) {
            // What it held may be the last of a token, whose end runs destructors of others.
            drop(current::with(|me| me.frames.leave(me, self.0)));
        }
    }
    let entered = Entered(worker::next_id());
    current::with(|me| {
        me.frames.enter(me, entered.0, until);
        if me.is_thread() {
            current::set_budget(BUDGET); // It looks at its frames when that is spent.
        }
    });
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    let id = entered.0;
    drop(entered);
    result.or_else(|payload| match payload.downcast::<Cancelled>() {
        Ok(cancelled) if cancelled.frame == id => Err(*cancelled),
        Ok(cancelled) => panic::resume_unwind(cancelled),
        Err(payload) => panic::resume_unwind(payload),
    })
}

/// A reason to end what runs.
pub(crate) struct Ask {
    /// Where the unwinding stops; 0: at the fiber's end.
    pub(crate) frame: u64,
    /// Nothing unwinds: the operation fails.
    pub(crate) as_error: bool,
    pub(crate) why: Why,
}

/// Whether the running party is asked to unwind from here, or to fail.
#[inline]
pub(crate) fn is_asked(me: &Header) -> bool {
    if !me.frames.is_empty() {
        return look(me).is_some();
    }
    me.cancel_requested()
        && match me.fallible.get() {
            false => CAN_UNWIND && me.shields.get().all == 0,
            true => me.shields.get().all == me.shields.get().as_error,
        }
}

/// The reason, if there is one, for which the running party shall unwind from here, or fail.
#[cold]
pub(crate) fn look(me: &Header) -> Option<Ask> {
    let mut now = None;
    let mut found: Option<(Option<Instant>, Ask)> = None;
    each_in_reach(me, |frame, as_error| {
        // What can only fail does not keep from unwinding what asks from inside of it.
        if as_error && found.as_ref().is_some_and(|(_, ask)| !ask.as_error) {
            return;
        }
        let Some(frame) = frame else {
            if me.cancel_requested() {
                found = Some((None, Ask { frame: 0, as_error, why: Why::Fiber }));
            }
            return;
        };
        let time = frame.until.time();
        let is_later = found.as_ref().is_some_and(|(first, _)| *first < time && first.is_some());
        if !is_later && frame.until.is_reached(&mut now, me) {
            let ask = Ask { frame: frame.id, as_error, why: frame.until.why() };
            found = Some((time, ask));
        }
    });
    found.map(|(_, ask)| ask)
}

/// When a time limit, if there is one, ends a wait of the running party that begins here.
pub(crate) fn limit(me: &Header) -> Option<Instant> {
    if me.frames.is_empty() {
        return None;
    }
    let mut first: Option<Instant> = None;
    each_in_reach(me, |frame, _| {
        let time = frame.and_then(|frame| frame.until.time());
        first = [first, time].into_iter().flatten().min();
    });
    first
}

/// Whether a wait of the running party that begins here may be ended from outside of what it waits for, as far as its
/// frames tell: a time limit, a token or a failure may end it, or asks already.
pub(crate) fn may_end(me: &Header) -> bool {
    let mut may_end = is_asked(me);
    each_in_reach(me, |frame, _| may_end |= frame.is_some());
    may_end
}

/// Whether anything asks, held back or not.
pub(crate) fn is_asked_behind_shields(me: &Header) -> bool {
    if me.cancel_requested() {
        return true;
    }
    let mut now = None;
    me.frames.peek(|mut frame| {
        while let Some(this) = frame {
            if this.until.is_reached(&mut now, me) {
                return true;
            }
            frame = this.outer.as_deref();
        }
        false
    })
}

/// By the clock that the party's timers go by.
fn now(me: &Header) -> Instant {
    let driver = if me.is_thread() { None } else { with_driver(|driver| driver.now()) };
    driver.unwrap_or_else(Instant::now)
}

/// Visits, from inside to outside, the frames that no shield keeps from the running party, and at
/// last `None`, the fiber; with each, whether what it asks is to be an error.
fn each_in_reach(me: &Header, mut visit: impl FnMut(Option<&Frame>, bool)) {
    let fallible = me.fallible.get();
    let mut as_error = !CAN_UNWIND;
    let mut shields = me.shields.get();
    me.frames.peek(|mut frame| {
        loop {
            as_error |= shields.all > 0;
            if (as_error && !fallible) || shields.all > shields.as_error {
                return;
            }
            visit(frame, as_error);
            let Some(this) = frame else { return };
            (shields, frame) = (this.shields, this.outer.as_deref());
        }
    });
}
