//! Blocking work on the pool, which borrows from the fiber that waits for it.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use crate::books::{self, Count, check};
use crate::party::{Party, Started};

/// Closures that block their thread for a while, and some that panic.
pub fn unblock(party: &mut Party) {
    let mut others: Vec<Started<()>> = Vec::new();
    for _ in 0..party.rng.u32(..6) {
        others.extend(party.start(work));
    }
    work(party);
    for other in others {
        other.join();
    }
}

fn work(party: &mut Party) {
    for _ in 0..party.rng.u32(1..6) {
        let time = Duration::from_micros(party.rng.u64(..1_000));
        let panics = party.rng.u32(..8) == 0;
        let on_a_worker = std::thread::current().id();
        let is_fiber = party.is_fiber();
        let numbers: Vec<u64> = (0..party.rng.u64(1..100)).collect();
        let mut sum = 0;
        let borrows = &mut sum;
        party.catch(|party| {
            strands::unblock(|| {
                let elsewhere = std::thread::current().id() != on_a_worker;
                // Without a pool thread it would be here.
                check(elsewhere == is_fiber, || "blocking work ran on a worker".into());
                std::thread::sleep(time);
                *borrows = numbers.iter().sum();
                if panics {
                    party.panic();
                }
            });
        });
        let expected: u64 = numbers.iter().sum();
        check(sum == expected, || format!("blocking work made {sum}, not {expected}"));
        books::count(Count::Unblocked);
    }
    if party.rng.u32(..4) == 0 {
        // A plain thread may block in another's fiber.
        let value = strands::unblock(|| {
            panic::catch_unwind(AssertUnwindSafe(|| strands::spawn(|| 7).join().unwrap_or(0)))
        });
        check(matches!(value, Ok(7)), || "a fiber spawned from the pool was lost".into());
    }
}
