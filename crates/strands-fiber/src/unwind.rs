//! Unwinding: how a coroutine that will not be resumed any more gives back what it holds, and
//! whether a stack is being unwound already.
//!
//! A suspended stack holds values whose destructors somebody may rely on (a scope that lent
//! references, a lock), so it is not freed but unwound: its suspension point raises a panic with
//! a payload of this module, without calling the panic hook, and the coroutine's entry catches it.
//!
//! It cannot be unwound where the program is built with `panic = "abort"`, nor while it is
//! already unwinding (a second panic aborts). Then the stack is leaked: sound, at the price of
//! its memory.
//!
//! # Whether a stack is being unwound
//!
//! std counts panics by thread, so when coroutines share one its count does not tell which of them
//! unwind. Their stacks do: a destructor that an unwinding runs is called from the *cleanup* of some
//! function, and in the tables that the unwinder itself goes by, the compiler has marked each call
//! in a cleanup as one that no second unwinding may pass. [`is_cleaning_up`] walks the stack and looks
//! for such a call, as the first phase of a panic would.
//!
//! Turned down: to guess from what was last known of each coroutine, which is wrong for one that
//! begins to unwind while another is suspended amid its unwinding; and to move std's count along with
//! the coroutine, for which std has no stable interface.

use std::hint::black_box;
use std::{panic, thread};

#[cfg_attr(unix, path = "unwind/unix.rs")]
#[cfg_attr(windows, path = "unwind/windows.rs")]
mod frames;
mod lsda;

/// Whether panics unwind in this program.
pub const CAN_UNWIND: bool = cfg!(panic = "unwind");

/// The payload that unwinds a coroutine dropped while suspended.
struct ForcedUnwind;

/// Unwinds from here to the entry of the running coroutine.
#[cold]
pub(crate) fn force() -> ! {
    panic::resume_unwind(Box::new(ForcedUnwind))
}

/// Whether a function between the caller and `entry` is in the midst of its cleanup, so that another
/// unwinding from here would abort the process. `entry` is the address of the function that the running
/// stack began with; it and what may lie beneath it do not count.
///
/// A function that must not be left by a panic (`extern "C"`) counts too, as an unwinding cannot
/// pass it either. A destructor that is known to catch everything may hide the cleanup that called it
/// from what it catches for: there, another unwinding does no harm.
///
/// Where it cannot be told, it is what std says of the thread: with the MSVC tools of Windows, and on a
/// stack that did not begin with `entry`, unless there is a cleanup nearer than whatever catches.
///
/// It walks the stack, at some hundred nanoseconds a frame: it is for rare occasions.
///
/// The tables are those of the
/// [exception handling ABI](https://itanium-cxx-abi.github.io/cxx-abi/abi-eh.html) that GCC and LLVM share;
/// what they hold is described in [LLVM's notes on it](https://llvm.org/docs/ExceptionHandling.html).
///
/// ```
/// use strands_fiber::is_cleaning_up;
///
/// struct Asks;
/// impl Drop for Asks {
///     fn drop(&mut self) {
///         assert_eq!(is_cleaning_up(main as *const ()), std::thread::panicking());
///     }
/// }
///
/// fn main() {
///     drop(Asks);
///     let unwound = std::panic::catch_unwind(|| {
///         let _asks = Asks;
///         std::panic::resume_unwind(Box::new("without a message"));
///     });
///     assert!(unwound.is_err());
/// }
/// ```
#[cold]
#[inline(never)]
pub fn is_cleaning_up(entry: *const ()) -> bool {
    // The walk never unwinds. Where the compiler sees that (with `lto`, say), it believes it of all who
    // only ask, and need not mark their calls in a cleanup, by which it is known for one. It cannot see
    // through this pointer.
    let look: fn(usize) -> Option<bool> = black_box(frames::is_cleaning_up);
    CAN_UNWIND && look(entry.addr()).unwrap_or_else(thread::panicking)
}

#[cfg(all(test, panic = "unwind"))]
mod tests {
    use std::cell::RefCell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::thread::panicking;

    use super::*;

    /// What the stacks of these tests begin with.
    #[inline(never)]
    extern "C" fn entry(body: &mut Body) {
        // As at the entry of a fiber. What is caught says nothing here.
        let _ = catch_unwind(AssertUnwindSafe(|| (body.0)()));
        std::hint::black_box(body);
    }

    struct Body<'a>(&'a mut dyn FnMut());

    /// What `ask` has to answer in each place where `body` asks.
    fn answers(mut body: impl FnMut(&RefCell<Vec<bool>>)) -> Vec<bool> {
        let answers = RefCell::default();
        entry(&mut Body(&mut || body(&answers)));
        answers.into_inner()
    }

    fn ask(answers: &RefCell<Vec<bool>>) {
        answers.borrow_mut().push(is_cleaning_up(entry as *const ()));
    }

    struct Asks<'a>(&'a RefCell<Vec<bool>>);

    impl Drop for Asks<'_> {
        fn drop(&mut self) {
            ask(self.0);
        }
    }

    fn unwind() -> ! {
        resume_unwind(Box::new("a payload"))
    }

    #[test]
    fn nothing_is_cleaned_up_while_nobody_unwinds() {
        let asked = answers(|answers| {
            ask(answers);
            drop(Asks(answers));
            let _ = catch_unwind(AssertUnwindSafe(|| ask(answers)));
            // A landing pad is there, and not taken.
            let _asks = Asks(answers);
            [1, 2].sort_by(|_, _| {
                ask(answers);
                std::cmp::Ordering::Equal
            });
        });
        assert_eq!(asked, [false; 5]);
    }

    #[test]
    fn a_destructor_that_an_unwinding_runs_is_seen() {
        let asked = answers(|answers| {
            let _first = Asks(answers);
            let _boxed: Box<Asks> = Box::new(Asks(answers));
            let _many = Vec::from([Asks(answers), Asks(answers)]);
            let dynamic: Box<dyn Fn() + '_> = Box::new(|| unwind());
            dynamic();
        });
        assert_eq!(asked, [true; 4]);
    }

    #[test]
    fn what_was_caught_is_over() {
        let asked = answers(|answers| {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let _asks = Asks(answers);
                unwind();
            }));
            assert!(caught.is_err());
            ask(answers);
        });
        assert_eq!(asked, [true, false]);
    }

    #[test]
    fn a_catch_within_a_destructor_does_not_hide_the_unwinding_around_it() {
        struct Catches<'a>(&'a RefCell<Vec<bool>>);
        impl Drop for Catches<'_> {
            fn drop(&mut self) {
                let inner = catch_unwind(AssertUnwindSafe(|| {
                    let _asks = Asks(self.0);
                    ask(self.0);
                    unwind();
                }));
                assert!(inner.is_err() && panicking());
                ask(self.0);
            }
        }
        let asked = answers(|answers| {
            let _catches = Catches(answers);
            unwind();
        });
        assert_eq!(asked, [true; 3]);
    }

    #[test]
    fn a_call_that_catches_everything_forbids_nothing() {
        // Known never to unwind, if the compiler optimises: the caller's table has no row for it.
        #[inline(never)]
        fn catches(body: &mut Body) -> bool {
            catch_unwind(AssertUnwindSafe(|| (body.0)())).map_err(std::mem::forget).is_err()
        }
        struct Tells<'a>(&'a RefCell<Vec<bool>>);
        impl Drop for Tells<'_> {
            fn drop(&mut self) {
                self.0.borrow_mut().push(true);
            }
        }
        let asked = answers(|answers| {
            let _so_that_there_is_a_table = Tells(answers);
            assert!(!catches(&mut Body(&mut || ask(answers))));
            std::hint::black_box(answers);
        });
        assert_eq!(asked, [false, true]);
    }

    #[test]
    fn what_must_not_be_left_by_a_panic_counts() {
        extern "C" fn callback(body: &Body2) {
            (body.0)();
        }
        struct Body2<'a>(&'a dyn Fn());
        let asked = answers(|answers| {
            callback(&Body2(&|| ask(answers)));
            ask(answers);
        });
        assert_eq!(asked, [true, false]);
    }

    #[test]
    fn of_a_stack_that_began_elsewhere_it_says_what_std_says() {
        struct AsksElsewhere;
        impl Drop for AsksElsewhere {
            fn drop(&mut self) {
                assert_eq!(is_cleaning_up(std::ptr::null()), panicking());
            }
        }
        drop(AsksElsewhere);
        let unwound = catch_unwind(|| {
            let _asks = AsksElsewhere;
            unwind();
        });
        assert!(unwound.is_err());
    }
}
