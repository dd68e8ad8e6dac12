//! What a destructor is told of the unwinding that runs it, by a program of another crate:
//! `cargo xtask ci lto` builds that with all it uses as one. The other cases are in `src/unwind.rs`.

#![cfg(panic = "unwind")]

use std::cell::Cell;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};

use strands_fiber::is_cleaning_up;

/// What the stack of the test begins with.
#[inline(never)]
extern "C" fn entry(seen: &Cell<bool>) {
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _asks = Asks(seen);
        panic!("unwinds");
    }));
    assert!(black_box(caught).is_err());
}

struct Asks<'a>(&'a Cell<bool>);

impl Drop for Asks<'_> {
    fn drop(&mut self) {
        self.0.set(is_cleaning_up(entry as *const ()));
    }
}

/// The compiler may inline all of it into the cleanup, where nothing of it unwinds.
#[test]
fn a_destructor_that_does_nothing_but_ask_is_seen() {
    let seen = Cell::new(false);
    entry(&seen);
    assert!(seen.get());
}
