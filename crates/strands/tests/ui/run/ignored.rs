//! The attribute leaves `#[ignore]` where the harness finds it.

#[strands::test]
#[ignore = "to be left out"]
fn left_out() {
    panic!("it was run");
}

#[strands::test]
fn run() {}
