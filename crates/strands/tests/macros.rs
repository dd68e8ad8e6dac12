//! `#[strands::main]` and `#[strands::test]`. What they reject, and `#[ignore]`, is in
//! `ui.rs`.

mod thread_common;

use std::error::Error;
use std::process::ExitCode;

use strands::thread;
use thread_common::{child, child_case, errors};

fn assert_success(code: ExitCode) {
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
}

fn assert_failure(code: ExitCode) {
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
}

fn on_a_worker() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("strands-worker-"))
}

#[strands::main]
fn plain() {
    assert!(on_a_worker());
    assert_eq!(thread::current().name(), Some("main"));
    strands::spawn_local(|| ()).join().unwrap();
}

#[strands::main]
pub(crate) fn visible() -> Result<(), Box<dyn Error>> {
    "42".parse::<i32>()?;
    Ok(())
}

#[strands::main]
fn fails() -> Result<(), Box<dyn Error>> {
    "forty-two".parse::<i32>()?;
    unreachable!("`?` returned")
}

#[strands::main]
fn returns_a_code() -> ExitCode {
    if on_a_worker() {
        return ExitCode::from(17);
    }
    ExitCode::SUCCESS
}

#[strands::main]
/// Documented, and with another attribute.
#[allow(clippy::needless_return)]
fn with_attributes() -> Result<ExitCode, std::io::Error> {
    #![allow(unused_variables)]
    let unused = 1;
    return Ok(ExitCode::FAILURE);
}

#[strands::main(stack_size = 32 << 20, workers = 2,)]
fn with_options() {
    fn depth(left: usize) -> usize {
        let frame = std::hint::black_box([left; 128]);
        if left == 0 { 0 } else { depth(left - 1) + frame[0] - left + 1 }
    }
    assert_eq!(depth(10_000), 10_000);
}

#[strands::main]
fn calls_itself() -> Result<(), String> {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    static AGAIN: AtomicBool = AtomicBool::new(true);
    // The nested function, which returns what it says it returns.
    if AGAIN.swap(false, SeqCst) { calls_itself() } else { Ok(()) }
}

#[strands::main]
fn never_returns() -> ! {
    std::process::exit(23)
}

#[strands::main]
fn panics() {
    panic!("from the main fiber");
}

#[test]
fn what_main_returns_is_reported() {
    assert_success(plain());
    assert_success(visible());
    assert_failure(fails());
    assert_eq!(format!("{:?}", returns_a_code()), format!("{:?}", ExitCode::from(17)));
    assert_failure(with_attributes());
    assert_success(with_options());
    assert_success(calls_itself());
}

#[test]
fn a_panic_of_main_goes_on_in_the_thread() {
    let payload = std::panic::catch_unwind(panics).map(drop).unwrap_err();
    assert_eq!(thread_common::text(&*payload), "from the main fiber");
}

#[test]
fn main_may_never_return() {
    if child_case().is_some() {
        never_returns();
        unreachable!("the process has ended");
    }
    let output = child("main_may_never_return", "exit").output().unwrap();
    assert_eq!(output.status.code(), Some(23), "{}", errors(&output));
}

#[strands::main(workers = 2)]
fn with_two_workers() {
    let on = |index| thread::Builder::new().placement(thread::Placement::Worker(index));
    on(1).spawn(|| ()).unwrap().join().unwrap();
    assert!(on(2).spawn(|| ()).is_err());
}

#[test]
fn what_main_asks_for_beats_the_environment() {
    if child_case().is_some() {
        assert_success(with_two_workers());
        return;
    }
    let mut child = child("what_main_asks_for_beats_the_environment", "two");
    let output = child.env("STRANDS_WORKERS", "3").output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
}

#[test]
fn an_error_of_main_is_printed() {
    if child_case().is_some() {
        fails();
        return;
    }
    let output = child("an_error_of_main_is_printed", "fail").output().unwrap();
    assert!(errors(&output).contains("Error: ParseIntError"), "{}", errors(&output));
}

mod made {
    //! Tests made by the attribute. That the failing ones fail is seen by `should_panic`.
    use super::*;

    #[strands::test]
    fn runs_in_a_fiber() {
        assert!(on_a_worker());
        let name = thread::current().name().map(String::from);
        assert_eq!(name.as_deref(), Some("made::runs_in_a_fiber"));
        let second = thread::Builder::new().placement(thread::Placement::Worker(1));
        second.spawn(|| ()).unwrap().join().unwrap();
        let third = thread::Builder::new().placement(thread::Placement::Worker(2));
        assert!(third.spawn(|| ()).is_err());
    }

    #[strands::test(workers = 1, stack_size = 64 * 1024)]
    fn with_options() {
        let second = thread::Builder::new().placement(thread::Placement::Worker(1));
        assert!(second.spawn(|| ()).is_err());
    }

    #[strands::test]
    #[should_panic(expected = "as expected")]
    fn panics() {
        strands::yield_now();
        panic!("as expected");
    }

    #[strands::test]
    fn returns() -> Result<(), Box<dyn Error>> {
        "42".parse::<i32>()?;
        Ok(())
    }

    #[strands::test]
    fn leaves_fibers_behind() {
        for _ in 0..10 {
            drop(strands::spawn(|| thread::sleep(std::time::Duration::MAX)));
        }
    }

    #[cfg(any())]
    #[strands::test]
    fn compiled_out() {
        compile_error!("it was compiled");
    }

    macro_rules! from_fragments {
        ($(#[$attribute:meta])* $visibility:vis fn $name:ident() -> $returns:ty $body:block) => {
            #[strands::test]
            $(#[$attribute])*
            $visibility fn $name() -> $returns $body
        };
    }

    from_fragments! {
        #[doc = "Of fragments."]
        pub(super) fn fragments() -> Result<(), String> { Ok(()) }
    }
}

#[test]
fn a_test_that_returns_an_error_fails() {
    #[strands::main]
    fn error() -> Result<(), String> {
        Err("no".into())
    }
    assert_failure(error());
}
