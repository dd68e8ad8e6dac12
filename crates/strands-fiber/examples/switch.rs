//! What a switch costs: ns for each pair of `resume` and `suspend`, and for a pair of bare
//! switches, which is what two fibers that take turns pay.
//!
//! ```text
//! cargo run --release -p strands-fiber --example switch
//! ```

use std::ptr;
use std::time::Instant;

use strands_fiber::arch::{Context, Exit, Word, switch};
use strands_fiber::stack::Stack;
use strands_fiber::{Coroutine, CoroutineResult, DEFAULT_STACK_BYTES};

const PAIRS: u64 = 1_000_000;
const ROUNDS: usize = 10;

/// Resumes a coroutine that counts, feeding each count back.
fn coroutine() -> f64 {
    let mut next = Coroutine::<u64, u64, ()>::new(|suspender, mut input| {
        loop {
            input = suspender.suspend(input + 1);
        }
    });
    let mut count = 0;
    let start = Instant::now();
    for _ in 0..PAIRS {
        if let CoroutineResult::Yield(value) = next.resume(count) {
            count = value;
        }
    }
    let ns = start.elapsed().as_nanos() as f64 / PAIRS as f64;
    assert_eq!(count, PAIRS);
    ns
}

struct Pair {
    main: Context,
    other: Context,
}

/// Switches back at once until it is handed null.
unsafe extern "C" fn echo(arg: Word) -> Exit {
    // SAFETY: the pair outlives both parties, and `main` waits in a switch while we run; it hands
    // over the pair or null.
    unsafe {
        let pair = arg.assume_init().cast::<Pair>();
        let back = || switch(&raw mut (*pair).other, &raw const (*pair).main, Word::uninit());
        while !back().assume_init().is_null() {}
        Exit { next: &raw const (*pair).main, arg: Word::uninit() }
    }
}

/// Switches between two contexts.
fn symmetric() -> f64 {
    let stack = Stack::new(DEFAULT_STACK_BYTES).expect("a stack");
    let mut pair = Pair { main: Context::new(), other: Context::new() };
    let pair = &raw mut pair;
    // SAFETY: the stack is the other party's alone and outlives it: it exits on the last switch.
    // Until then its context is a started or saved one.
    unsafe {
        (*pair).other.start(stack.top(), &stack, echo);
        let (main, other) = (&raw mut (*pair).main, &raw const (*pair).other);
        let there_and_back = |arg| switch(main, other, Word::new(arg));
        there_and_back(pair.cast());
        let start = Instant::now();
        for _ in 0..PAIRS {
            there_and_back(pair.cast());
        }
        let ns = start.elapsed().as_nanos() as f64 / PAIRS as f64;
        there_and_back(ptr::null_mut());
        ns
    }
}

fn main() {
    let (mut pairs, mut switches) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        pairs.push(coroutine());
        switches.push(symmetric());
    }
    for (what, mut ns) in [("resume + suspend", pairs), ("switch there + back", switches)] {
        ns.sort_by(f64::total_cmp);
        println!("{what:20} {:5.2} ns (best {:.2})", ns[ROUNDS / 2], ns[0]);
    }
}
