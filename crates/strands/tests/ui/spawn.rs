//! What must not go to another worker.

use std::rc::Rc;

fn what_is_not_send_is_captured() {
    let local = Rc::new(1);
    strands::spawn(move || println!("{local}")); //~ cannot be sent between threads safely
}

fn what_is_not_send_is_returned() {
    strands::spawn(|| Rc::new(1)); //~ cannot be sent between threads safely
}

fn what_is_borrowed_is_captured() {
    let text = String::from("text");
    strands::spawn(|| println!("{text}")); //~ may outlive
}

fn a_local_handle_leaves_its_worker() {
    let handle = strands::spawn_local(|| 1);
    strands::spawn(move || handle.join()); //~ cannot be sent between threads safely
}

fn run_lends_what_is_not_send(runtime: &strands::Runtime) {
    let local = Rc::new(1);
    runtime.run(|| println!("{local}")); //~ cannot be shared between threads safely
}

fn work_that_blocks_is_not_send() {
    let local = Rc::new(1);
    strands::unblock(|| println!("{local}")); //~ cannot be shared between threads safely
}

fn the_right_way() {
    strands::spawn(|| {
        let local = Rc::new(1); // Stays on the fiber's stack, whatever it waits for.
        strands::yield_now();
        drop(local);
    });
}

fn main() {}
