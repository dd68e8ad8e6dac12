//! A value does not leave its fiber, and types that are invariant in std are so here.

use std::cell::{Cell, RefCell};
use strands::thread::{JoinHandle, LocalKey, ScopedJoinHandle};

strands::thread_local!(static KEY: RefCell<String> = RefCell::new(String::new()));

fn escapes() -> &'static RefCell<String> {
    KEY.with(|text| text) //~ lifetime may not live long enough
}

fn a_borrow_escapes() {
    let mut kept = None;
    KEY.with_borrow(|text| kept = Some(text)); //~ borrowed data escapes
    drop(kept);
}

fn borrows<'a>(key: &'a LocalKey<u8>) -> u8 {
    key.with(|value| *value) //~ borrowed data escapes
}

fn is_not_mutable() {
    strands::thread_local!(static KEY: Cell<u8> = Cell::new(1));
    KEY.with(|cell| *cell = Cell::new(2)); //~ cannot assign to `*cell`
}

fn handles_are_invariant<'a>(handle: JoinHandle<&'static u8>) -> JoinHandle<&'a u8> {
    handle //~ lifetime may not live long enough
}

fn so_are_those_of_scopes<'a, 's>(
    handle: ScopedJoinHandle<'s, &'static u8>,
) -> ScopedJoinHandle<'s, &'a u8> {
    handle //~ lifetime may not live long enough
}

fn keys_are_invariant<'a>(
    key: &'static LocalKey<fn(&'static u8)>,
    other: &'static LocalKey<for<'b> fn(&'b u8)>,
) -> [&'static LocalKey<fn(&'static u8)>; 2] {
    [key, other] //~ mismatched types
}
