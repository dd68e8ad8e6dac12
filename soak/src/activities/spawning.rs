//! Fibers that spawn fibers: joined in any order, by others, or not at all.

use std::cell::Cell;
use std::rc::Rc;

use crate::books::check;
use crate::party::{Party, Started, StartedHere};

/// A tree of fibers, each of which returns what it grew.
pub fn tree(party: &mut Party) {
    let (depth, width) = (party.rng.u32(..3), party.rng.u64(1..=12));
    grow(party, depth, width);
}

/// The sum of the squares of the leaves that were grown; None if a part of them is missing.
fn grow(party: &mut Party, depth: u32, width: u64) -> Option<u64> {
    let mut children: Vec<(u64, Started<Option<u64>>)> = Vec::new();
    let mut complete = true;
    for number in 0..width {
        let child = party.start(move |party| match depth {
            0 => {
                pause(party);
                Some(number * number)
            }
            _ => grow(party, depth - 1, width),
        });
        match child {
            Some(child) => children.push((number, child)),
            None => complete = false,
        }
    }
    party.rng.shuffle(&mut children);
    let full: u64 = (0..width).map(|number| number * number).sum();
    let mut sum = 0;
    for (number, child) in children {
        let value = match party.rng.u32(..8) {
            0 => {
                drop(child); // Detached.
                complete = false;
                continue;
            }
            1 => match party.start(move |_| child.join()) {
                Some(joiner) => joiner.join().flatten(),
                None => None,
            },
            2 => {
                while !child.is_finished() {
                    strands::yield_now();
                }
                child.join()
            }
            _ => child.join(),
        };
        let Some(Some(value)) = value else {
            complete = false;
            continue;
        };
        let expected = if depth == 0 { number * number } else { full * width.pow(depth - 1) };
        check(value == expected, || format!("a child returned {value}, not {expected}"));
        sum += value;
    }
    complete.then_some(sum)
}

/// Fibers of one worker that share what is not `Send`.
pub fn local(party: &mut Party) {
    if !party.is_fiber() {
        return tree(party);
    }
    let os_thread = std::thread::current().id();
    let count = Rc::new(Cell::new(0));
    let rounds = party.rng.u32(1..20);
    let mut children = Vec::new();
    for _ in 0..party.rng.u32(1..10) {
        let count = count.clone();
        children.extend(party.start_local(move |party| {
            for _ in 0..rounds {
                count.set(count.get() + 1);
                pause(party);
                let here = std::thread::current().id();
                check(here == os_thread, || "a local fiber changed its thread".into());
            }
        }));
    }
    let started = children.len() as u32;
    let ended = children.into_iter().filter_map(StartedHere::join).count() as u32;
    if ended == started {
        let (counted, expected) = (count.get(), started * rounds);
        check(counted == expected, || format!("local fibers counted {counted}, not {expected}"));
    }
    check(std::thread::current().id() == os_thread, || "a fiber changed its thread".into());
}

/// Lets others run, or not.
pub fn pause(party: &mut Party) {
    match party.rng.u32(..16) {
        0 => strands::sleep(std::time::Duration::from_micros(party.rng.u64(..500))),
        1..6 => strands::yield_now(),
        _ => {}
    }
}
