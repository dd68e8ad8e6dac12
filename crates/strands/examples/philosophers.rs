//! Five philosophers, each with a fork in the left hand, wait for the one on the right: a deadlock, which is
//! reported by name while it lasts. Then the program says who could help, and ends.
//!
//! `cargo run --example philosophers`; with `--release` the report is the same.

use std::process::ExitCode;
use std::sync::Arc;

use strands::sync::{Barrier, Mutex};
use strands::thread;
use strands::time::Duration;

const NAMES: [&str; 5] = ["Plato", "Hypatia", "Kant", "Arendt", "Hume"];

struct Fork;

fn dine(left: &Mutex<Fork>, right: &Mutex<Fork>, all_seated: &Barrier) {
    let _left = left.lock().unwrap();
    // So that it goes wrong each time, and not once in a million meals.
    all_seated.wait();
    let _right = right.lock().unwrap();
    unreachable!("nobody ever eats");
}

#[strands::main]
fn main() -> ExitCode {
    println!("Five philosophers sit down. Each takes the fork on the left ...");
    let forks: [_; 5] = std::array::from_fn(|_| Arc::new(Mutex::new(Fork)));
    let all_seated = Arc::new(Barrier::new(NAMES.len() + 1));
    for (seat, name) in NAMES.into_iter().enumerate() {
        let (left, right) = (forks[seat].clone(), forks[(seat + 1) % NAMES.len()].clone());
        let all_seated = all_seated.clone();
        let philosopher = thread::Builder::new().name(name.into());
        philosopher.spawn(move || dine(&left, &right, &all_seated)).expect("a chair is free");
    }
    all_seated.wait();
    println!("... and waits for the one on the right. Nobody asks what goes on; a moment later:\n");
    thread::sleep(Duration::from_secs(1));
    println!(
        "\nThey would sit there for ever. One who takes the right fork first would save the evening."
    );
    ExitCode::SUCCESS
}
