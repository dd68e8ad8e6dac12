//! Functions that cannot be run as fibers.

#[strands::main]
async fn is_async() {} //~ a fiber waits by calling functions that wait: remove `async`

#[strands::main]
fn takes_arguments(text: String) {} //~ cannot take arguments

#[strands::main]
fn is_generic<T>() {} //~ cannot be generic

#[strands::main]
unsafe fn is_unsafe() {} //~ cannot be unsafe

#[strands::main]
const fn is_const() {} //~ cannot be const

#[strands::main]
extern "C" fn is_foreign() {} //~ cannot be extern

#[strands::main]
fn has_a_where_clause() -> () where (): Copy {} //~ cannot have a where clause

#[strands::main]
struct NotAFunction; //~ this attribute belongs on a function

#[strands::main(threads = 3)] //~ unknown option `threads`: there are `workers = N` and `stack_size = BYTES`
fn unknown_option() {}

#[strands::main(workers = 1, workers = 2)] //~ `workers` is given twice
fn option_twice() {}

#[strands::main(workers)] //~ expected `workers = …`
fn option_without_value() {}

#[strands::main(workers = )] //~ expected a number
fn option_with_empty_value() {}

#[strands::main(workers = "two")] //~ mismatched types
fn option_of_another_type() {}

#[strands::main]
fn returns_what_is_no_exit() -> u8 { //~ `u8: Termination` is not satisfied
    0
}

#[strands::main]
fn an_error_in_the_body() {
    let number: u8 = "text"; //~ mismatched types
}

#[strands::main]
fn the_right_kind() -> std::io::Result<()> {
    Ok(())
}

fn main() {}
