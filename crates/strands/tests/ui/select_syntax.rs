//! What `select!` says of what it does not understand.

use strands::{channel, select};

fn nothing() {
    select! {} //~ `select!` without an arm would wait for ever
}

fn biased_nothing() {
    select! { biased; } //~ `select!` without an arm would wait for ever
}

fn an_unknown_operation() {
    select! { _ = listen(1) => {} } //~ `listen(1)` is no operation of `select!`, which are: recv(receiver)
}

fn too_few_operands() {
    let (sender, _receiver) = channel::bounded::<u32>(1);
    select! { _ = send(sender) => {} } //~ `send(sender)` is no operation of `select!`
}

fn as_in_crossbeam() {
    let (_sender, receiver) = channel::bounded::<u32>(1);
    select! { recv(receiver) -> message => {} } //~ write `message = recv(receiver) => …`
}

fn two_defaults() {
    select! { default => {} default => {} } //~ `select!` has one `default` arm at most
}

fn not_an_arm() {
    select! { 1 + 1 } //~ an arm of `select!` is `pattern = operation => code`
}
