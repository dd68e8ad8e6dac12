//! Whose the floating-point control words are: each coroutine's own, or its resumer's too.
//!
//! The words hold the rounding mode, the exception masks and the treatment of denormals: MXCSR and
//! the x87 control word on x86-64, FPCR on AArch64. By default ([`Kept`]) each side of a switch finds
//! its own again. On x86-64 that is most of a switch's price: no instruction tells whether the other
//! side has changed MXCSR but the one that reads it, which is microcode.
//!
//! A coroutine may do without ([`Shared`]): then a switch is to the words what a call is. It starts
//! with its resumer's, and whoever changes them changes them for both. A program whose code never
//! changes them, or changes them back before it resumes, suspends or returns, cannot tell the two
//! apart. All Rust code is that way: it may not even compute while they differ from the initial ones
//! (see `_mm_setcsr` in `std::arch`). So what is lost is protection from foreign code that
//! suspends, in a callback, between a change and its reversal.
//!
//! It is a permission, for speed: where keeping the words costs next to nothing, they are kept (AArch64; the
//! `thread` backend). Do not use it to hand a rounding mode over.
//!
//! It is a type, so that neither kind of coroutine pays for the other. Turned down: a flag in the
//! control block, as its look-up in both directions is a tenth of a sharing pair.

/// [`Kept`] or [`Shared`].
///
/// ```
/// use strands_fiber::Suspender;
/// use strands_fiber::float_control::FloatControl;
///
/// /// Suspends in any coroutine of numbers.
/// fn count<F: FloatControl>(suspender: &Suspender<(), u32, F>, numbers: std::ops::Range<u32>) {
///     numbers.for_each(|number| suspender.suspend(number));
/// }
/// ```
pub trait FloatControl: sealed::Choice {}

/// Each side of a switch has control words of its own; a coroutine starts with the initial ones.
///
/// ```
/// use strands_fiber::Coroutine;
/// use strands_fiber::float_control::Kept;
///
/// let coroutine: Coroutine<(), (), (), Kept> = Coroutine::new(|_, ()| ()); // The default.
/// let _: Coroutine<(), (), ()> = coroutine;
/// ```
#[derive(Debug)]
pub enum Kept {}

/// A switch may leave the control words as they are.
///
/// Made by [`Coroutine::sharing_float_control`](crate::Coroutine::sharing_float_control), which
/// has an example.
///
/// ```
/// use strands_fiber::Coroutine;
/// use strands_fiber::float_control::Shared;
///
/// struct Numbers(Coroutine<(), u64, (), Shared>);
/// ```
#[derive(Debug)]
pub enum Shared {}

impl FloatControl for Kept {}
impl FloatControl for Shared {}

mod sealed {
    /// What a switch must know. Outside of this crate it has no name.
    ///
    /// ```
    /// use strands_fiber::float_control::{FloatControl, Kept};
    ///
    /// fn is_a_choice<F: FloatControl>() {}
    /// is_a_choice::<Kept>();
    /// ```
    pub trait Choice: 'static {
        const KEPT: bool;
    }
    impl Choice for super::Kept {
        const KEPT: bool = true;
    }
    impl Choice for super::Shared {
        const KEPT: bool = false;
    }
}
