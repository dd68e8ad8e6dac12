//! What `select!` refuses by types, and how it says so.

use strands::{channel, select};

fn what_cannot_be_received_from() {
    select! { _ = recv(5) => {} } //~ no method named `select_recv` found
}

fn a_message_of_another_type() {
    let (sender, _receiver) = channel::bounded::<u32>(1);
    select! { _ = send(sender, "text") => {} } //~ a channel of `u32` cannot send `&str`
}

fn a_pattern_that_may_not_match() {
    let (_sender, receiver) = channel::bounded::<u32>(1);
    select! { Ok(_) = recv(receiver) => {} } //~ refutable pattern in local binding
}
