//! The switch alone, without a scheduler.
//!
//! `switch`: resume a coroutine, which suspends at once. `switch-shared`: the same, where both share
//! the floating-point control words, as corosensei's coroutines do always. `switch-next`: from one
//! coroutine to the next, as a scheduler goes along its queue: by a direct switch where there is one,
//! else by a suspend and a resume.

use std::hint::black_box;

use super::WALL;
use crate::measure::{Figures, Meter};
use crate::{Case, Peer, Plan};

pub const CASES: &[Case] = &[
    Case {
        name: "switch",
        title: "switch: resume + suspend",
        rows: WALL,
        plan: Plan::new(1, 0),
        peers: &[
            #[cfg(feature = "strands-fiber")]
            (Peer::Strands, strands),
            (Peer::Corosensei, corosensei),
            (Peer::Floor, floor),
        ],
    },
    Case {
        name: "switch-shared",
        title: "switch: the same, control words shared",
        rows: WALL,
        plan: Plan::new(1, 0),
        peers: &[
            #[cfg(feature = "strands-fiber")]
            (Peer::Strands, strands_shared),
            (Peer::Corosensei, corosensei),
        ],
    },
    Case {
        name: "switch-next",
        title: "switch: one coroutine to the next",
        rows: WALL,
        plan: Plan::new(1, 2),
        peers: &[
            #[cfg(feature = "strands-fiber")]
            (Peer::Strands, strands_next),
            (Peer::Corosensei, corosensei_next),
            (Peer::Floor, floor),
        ],
    },
];

const CHUNK: u64 = 100_000;

#[cfg(feature = "strands-fiber")]
fn strands(plan: &Plan) -> Figures {
    use strands_fiber::Coroutine;
    strands_pairs(plan, Coroutine::new(strands_count))
}

#[cfg(feature = "strands-fiber")]
fn strands_shared(plan: &Plan) -> Figures {
    use strands_fiber::stack::Stack;
    use strands_fiber::{Coroutine, DEFAULT_STACK_BYTES};
    let stack = Stack::new(DEFAULT_STACK_BYTES).expect("a stack");
    let count = |suspender: &_, first| strands_count(suspender, first);
    strands_pairs(plan, Coroutine::sharing_float_control(stack, count))
}

#[cfg(feature = "strands-fiber")]
fn strands_count<F: strands_fiber::float_control::FloatControl>(
    suspender: &strands_fiber::Suspender<u64, u64, F>,
    mut input: u64,
) {
    loop {
        input = suspender.suspend(input + 1);
    }
}

#[cfg(feature = "strands-fiber")]
fn strands_pairs<F: strands_fiber::float_control::FloatControl>(
    plan: &Plan,
    mut coroutine: strands_fiber::Coroutine<u64, u64, (), F>,
) -> Figures {
    use strands_fiber::CoroutineResult;
    let mut value = 0;
    let mut meter = Meter::start(plan.budget());
    while meter.more() {
        for _ in 0..CHUNK {
            match coroutine.resume(value) {
                CoroutineResult::Yield(next) => value = next,
                CoroutineResult::Return(()) => unreachable!("the coroutine's loop has no end"),
            }
        }
        meter.add(CHUNK);
    }
    black_box(value);
    let figures = meter.per_op();
    std::mem::forget(coroutine);
    figures
}

fn corosensei(plan: &Plan) -> Figures {
    use corosensei::{Coroutine, CoroutineResult};
    let mut coroutine = Coroutine::<u64, u64, ()>::new(|suspender, mut input| {
        loop {
            input = suspender.suspend(input + 1);
        }
    });
    let mut value = 0;
    let mut meter = Meter::start(plan.budget());
    while meter.more() {
        for _ in 0..CHUNK {
            match coroutine.resume(value) {
                CoroutineResult::Yield(next) => value = next,
                CoroutineResult::Return(()) => unreachable!("the coroutine's loop has no end"),
            }
        }
        meter.add(CHUNK);
    }
    black_box(value);
    let figures = meter.per_op();
    std::mem::forget(coroutine);
    figures
}

/// A call through a pointer that the compiler cannot see through: what control pays to go anywhere
/// and back.
fn floor(plan: &Plan) -> Figures {
    #[inline(never)]
    fn step(input: u64) -> u64 {
        input + 1
    }
    let step: fn(u64) -> u64 = black_box(step);
    let mut value = 0;
    let mut meter = Meter::start(plan.budget());
    while meter.more() {
        for _ in 0..CHUNK {
            value = step(value);
        }
        meter.add(CHUNK);
    }
    black_box(value);
    meter.per_op()
}

/// Two parties hand a countdown to each other by direct switches; who finds it at 0 hands it back
/// to the thread.
#[cfg(feature = "strands-fiber")]
fn strands_next(plan: &Plan) -> Figures {
    use strands_fiber::arch::{Context, Exit, Word, switch};
    use strands_fiber::stack::Stack;

    struct Party {
        own: Context,
        other: *const Context,
        thread: *const Context,
    }

    fn word(number: usize) -> Word {
        Word::new(std::ptr::without_provenance_mut(number))
    }

    unsafe extern "C" fn hand_on(party: Word) -> Exit {
        // SAFETY: the first switch hands over the party's address; the parties and the thread's
        // context outlive the last switch. Who is switched to waits: the other in this function,
        // the thread for the countdown's end.
        unsafe {
            let party = party.assume_init().cast::<Party>();
            let own = &raw mut (*party).own;
            let (other, thread) = ((*party).other, (*party).thread);
            let mut countdown = switch(own, thread, word(0));
            loop {
                countdown = match countdown.assume_init().addr() {
                    0 => switch(own, thread, word(0)),
                    left => switch(own, other, word(left - 1)),
                };
            }
        }
    }

    let mut thread = Context::new();
    let thread = &raw mut thread;
    let new = || Party { own: Context::new(), other: std::ptr::null(), thread };
    let mut parties = [new(), new()];
    let [a, b] = [0, 1].map(|index| &raw mut parties[index]);
    let stacks = [(); 2].map(|()| Stack::new(64 << 10).expect("a stack"));
    let mut meter = Meter::start(plan.budget());
    // SAFETY: each party starts on a stack of its own, which is kept to the end of this function.
    // The thread switches to a party that is started, or that waits in `hand_on`.
    unsafe {
        for (party, other, stack) in [(a, b, &stacks[0]), (b, a, &stacks[1])] {
            (*party).other = &raw const (*other).own;
            (*party).own.start(stack.top(), stack, hand_on);
            switch(thread, &raw const (*party).own, Word::new(party.cast()));
        }
        while meter.more() {
            switch(thread, &raw const (*a).own, word(CHUNK as usize));
            meter.add(CHUNK);
        }
    }
    meter.per_op()
}

fn corosensei_next(plan: &Plan) -> Figures {
    use corosensei::{Coroutine, CoroutineResult};
    let mut coroutines = [(); 2].map(|()| {
        Coroutine::<u64, u64, ()>::new(|suspender, mut input| {
            loop {
                input = suspender.suspend(input + 1);
            }
        })
    });
    let mut value = 0;
    let mut meter = Meter::start(plan.budget());
    while meter.more() {
        for _ in 0..CHUNK / 2 {
            for coroutine in &mut coroutines {
                match coroutine.resume(value) {
                    CoroutineResult::Yield(next) => value = next,
                    CoroutineResult::Return(()) => unreachable!("the coroutine's loop has no end"),
                }
            }
        }
        meter.add(CHUNK);
    }
    black_box(value);
    let figures = meter.per_op();
    std::mem::forget(coroutines);
    figures
}
