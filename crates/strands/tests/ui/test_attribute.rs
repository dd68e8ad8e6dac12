//! Functions that cannot be tests.

#[strands::test]
#[test] //~ #[strands::test] makes a test by itself: remove #[test]
fn is_a_test_twice() {}

#[strands::test]
async fn is_async() {} //~ remove `async`

#[strands::test]
fn takes_arguments(number: u8) {} //~ cannot take arguments

#[strands::test]
fn the_right_kind() {}

fn main() {}
