//! The same programs against std and against strands: only the `use` differs.
//!
//! A topic's file is written once, against `imp`: that is `std`, or it is `strands`. Where both must do the same,
//! the test is here; where strands has more to say than std, it is elsewhere.

/// Compiles each program four times, and makes a test of each.
macro_rules! mirrored {
    ($($(#[$attribute:meta])* fn $name:ident() $body:block)*) => {
        mod on_std {
            use std as imp;
            #[allow(unused_imports)]
            use super::*;
            $(#[test] $(#[$attribute])* fn $name() $body)*
        }
        mod on_strands_from_a_plain_thread {
            use strands as imp;
            #[allow(unused_imports)]
            use super::*;
            $(#[test] $(#[$attribute])* fn $name() $body)*
        }
        mod on_strands_from_a_fiber {
            use strands as imp;
            #[allow(unused_imports)]
            use super::*;
            $(#[strands::test] $(#[$attribute])* fn $name() $body)*
        }
        mod on_strands_with_one_worker {
            use strands as imp;
            #[allow(unused_imports)]
            use super::*;
            $(#[strands::test(workers = 1)] $(#[$attribute])* fn $name() $body)*
        }
    };
}

mod barrier;
mod condvar;
mod local;
mod mpsc;
mod mutex;
mod once;
mod rwlock;
mod thread;

/// What a panic said.
fn text(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().copied().unwrap_or("?").into(),
    }
}
