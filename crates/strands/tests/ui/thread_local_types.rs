//! What a key is, and is not.

use std::cell::Cell;
use strands::thread::LocalKey;

strands::thread_local! {
    static TYPE: u8 = "text"; //~ mismatched types
    static KEY: Cell<u8> = const { Cell::new(1) };
}

mod inner {
    strands::thread_local!(static PRIVATE: u8 = 1);
}

fn is_sent() {
    KEY.with(|cell| {
        strands::scope(|scope| {
            scope.spawn(|| cell.set(2)); //~ cannot be shared between threads safely
        });
    });
}

fn is_private() {
    inner::PRIVATE.with(|_| ()); //~ constant `PRIVATE` is private
}

fn keys_are_not_values() {
    let key: LocalKey<Cell<u8>> = KEY;
    key.clone(); //~ no method named `clone` found
    KEY.with_borrow(|_| ()); //~ no method named `with_borrow` found
}
