//! Fibers that borrow from frames, which must not be left before they have ended.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use crate::activities::spawning::pause;
use crate::books::{self, Count, check, violation};
use crate::party::{Home, Party, RUNTIME, STACKS_ARE_LIMITED, accepted};

/// Lies on the frame that is borrowed from. Nobody may use it any more when that frame is left.
struct Frame {
    users: AtomicUsize,
}

struct User<'a>(&'a Frame);

impl Frame {
    fn user(&self) -> User<'_> {
        self.users.fetch_add(1, SeqCst);
        User(self)
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, SeqCst);
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let users = self.users.load(SeqCst);
        check(users == 0, || format!("a frame was left while {users} fibers borrowed from it"));
    }
}

/// A scope whose children write to parts of a buffer.
pub fn borrow(party: &mut Party) {
    let frame = Frame { users: AtomicUsize::new(0) };
    let (parts, length) = (party.rng.usize(1..12), party.rng.usize(1..200));
    let mut buffer = vec![0u64; parts * length];
    let one_panics = party.rng.u32(..6) == 0;
    let leave_by_panic = party.rng.u32(..6) == 0;
    let home = if party.is_fiber() { party.home() } else { Home::Default };
    books::count(Count::Scopes);
    let mut refused = false;
    let mut scope = |party: &mut Party| {
        strands::scope(|scope| {
            for (index, part) in buffer.chunks_mut(length).enumerate() {
                let builder = party.builder();
                let frame = &frame;
                let (_, _, body) = party.body(home, move |party| {
                    let _user = frame.user();
                    for place in part.iter_mut() {
                        *place += index as u64 + 1;
                        if party.rng.u32(..32) == 0 {
                            pause(party);
                        }
                    }
                    if one_panics && index == 0 {
                        party.panic();
                    }
                });
                match accepted(builder.spawn_scoped(scope, body)) {
                    None => refused = true,
                    Some(handle) if party.rng.bool() && !(one_panics && index == 0) => {
                        drop(handle.join());
                    }
                    Some(_) => {}
                }
            }
            if leave_by_panic {
                party.panic();
            }
        });
    };
    let scope = std::panic::AssertUnwindSafe(|| scope(party));
    let ended = std::panic::catch_unwind(scope);
    check(frame.users.load(SeqCst) == 0, || "a scope ended before its children".into());
    match ended {
        Ok(()) => {}
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().copied();
            let owned = payload.downcast_ref::<String>().map(String::as_str);
            if one_panics && text.or(owned) == Some("a scoped thread panicked") {
                // As it should be.
            } else if leave_by_panic {
                let planned = party.catch(|_| std::panic::resume_unwind(payload)).is_none();
                check(planned, || "a payload was not that of the panic".into());
            } else {
                std::panic::resume_unwind(payload);
            }
        }
    }
    let written = |(place, value): (usize, &u64)| *value == (place / length) as u64 + 1;
    let complete = buffer.iter().enumerate().all(written);
    let may_be_cut = refused || crate::party::others_may_be_gone() || home == Home::Inner;
    check(complete || may_be_cut, || "a scope ended, and its buffer is not written".into());
}

/// A closure that borrows, as a fiber of the epoch's runtime, by one who is elsewhere.
pub fn run_elsewhere(party: &mut Party) {
    if party.home() == Home::Epoch || STACKS_ARE_LIMITED.load(SeqCst) {
        return borrow(party);
    }
    let frame = Frame { users: AtomicUsize::new(0) };
    let mut total = 0;
    let rounds = party.rng.u64(1..20);
    let Ok(runtime) = RUNTIME.try_read() else { return };
    let Some(runtime) = runtime.as_ref() else { return };
    let (_, _, body) = party.body(Home::Epoch, |party| {
        let _user = frame.user();
        for round in 0..rounds {
            total += round;
            pause(party);
        }
        io::ErrorKind::Other
    });
    if runtime.run(body) != io::ErrorKind::Other {
        violation("a closure's value got lost");
    }
    let expected = rounds * (rounds - 1) / 2;
    check(total == expected, || format!("a closure run elsewhere made {total} of {expected}"));
}
