//! What would outlive what it borrows, as with `scope`; and what may not be sent.

use std::rc::Rc;
use strands::{FiberGroup, map, try_scope};

fn children_borrow_from_the_closure() {
    let _ = try_scope(|scope| {
        let local = String::from("local");
        scope.spawn(|| Ok::<_, ()>(println!("{local}"))); //~ may outlive
        Ok(())
    });
}

fn a_scope_escapes() {
    let mut kept = None;
    let _ = try_scope(|scope| Ok::<_, ()>(kept = Some(scope))); //~ borrowed data escapes
    drop(kept);
}

fn a_handle_escapes() {
    let text = String::from("text");
    let _ = try_scope(|scope| Ok::<_, ()>(scope.spawn(|| Ok(text.len())))); //~ lifetime may not live long enough
}

fn errors_are_sent() {
    let _ = try_scope(|scope| {
        scope.spawn(|| Err::<(), _>(Rc::new(1))); //~ cannot be sent between threads safely
        Ok(())
    });
}

fn a_group_does_not_borrow() {
    let text = String::from("text");
    let group = FiberGroup::new();
    group.spawn(|| text.len()); //~ may outlive
}

fn an_item_is_sent() {
    map(1, [Rc::new(1)], |number| *number); //~ cannot be sent between threads safely
}

fn the_right_way() {
    let mut text = String::from("text");
    let result = try_scope(|scope| {
        scope.spawn(|| Ok::<_, ()>(text.push('!'))).join().unwrap();
        Ok(())
    });
    assert_eq!((result, text.len()), (Ok(()), 5));
}

fn main() {}
