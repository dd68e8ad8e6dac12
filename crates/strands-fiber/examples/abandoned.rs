//! What becomes of a coroutine that is dropped while it is suspended.
//!
//! Its stack is unwound, so its destructors run. Where the program is built with `panic = "abort"`
//! that cannot be, and the stack is leaked:
//!
//! ```text
//! cargo run -p strands-fiber --example abandoned
//! CARGO_PROFILE_DEV_PANIC=abort cargo run -p strands-fiber --example abandoned
//! ```

use std::cell::Cell;
use std::rc::Rc;

use strands_fiber::{CAN_UNWIND, Coroutine};

struct Noisy(Rc<Cell<u32>>);

impl Drop for Noisy {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn main() {
    let dropped = Rc::new(Cell::new(0));
    for _ in 0..10 {
        let noisy = Noisy(dropped.clone());
        let mut coroutine = Coroutine::<(), (), ()>::new(move |suspender, ()| {
            let _noisy = noisy;
            suspender.suspend(());
        });
        coroutine.resume(());
    }
    println!("10 were abandoned, {} unwound", dropped.get());
    assert_eq!(dropped.get(), if CAN_UNWIND { 10 } else { 0 });
}
