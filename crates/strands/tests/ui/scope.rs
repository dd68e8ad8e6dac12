//! What would outlive what it borrows.

use strands::thread;

fn children_borrow_from_the_closure() {
    thread::scope(|scope| {
        let local = String::from("local");
        scope.spawn(|| println!("{local}")); //~ may outlive
    });
}

fn a_child_lends_its_own_frame() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let local = String::from("the child's");
            scope.spawn(|| println!("{local}")); //~ may outlive
        });
    });
}

fn a_scope_escapes() {
    let mut kept = None;
    thread::scope(|scope| kept = Some(scope)); //~ borrowed data escapes
    drop(kept);
}

fn a_handle_escapes() {
    let text = String::from("text");
    let mut kept = None;
    thread::scope(|scope| kept = Some(scope.spawn(|| text.len()))); //~ borrowed data escapes
    drop(kept);
}

fn two_children_write() {
    let mut number = 1;
    thread::scope(|scope| {
        scope.spawn(|| number += 1);
        scope.spawn(|| number += 1); //~ cannot borrow `number` as mutable more than once
    });
}

fn the_right_way() {
    let mut text = String::from("text");
    thread::scope(|scope| {
        scope.spawn(|| text.push('!'));
    });
}

fn main() {}
