//! What the operations of a select have in common here.

use std::cell::Cell;

/// What can be given to send: a message, or a place for one.
///
/// It is implemented for each `T`, and for `&mut Option<T>`: the place is emptied when the message is sent, and keeps it
/// if another operation was chosen.
///
/// # Examples
///
/// ```
/// use strands_sched::{Order, try_select};
/// use strands_sync::Message;
/// use strands_sync::channel::{Sender, rendezvous};
///
/// fn try_send<'a>(sender: &'a Sender<u32>, message: impl Message<'a, u32>) -> bool {
///     try_select(&[&sender.select_send(message)], Order::Fair).is_some()
/// }
/// let (sender, _receiver) = rendezvous();
/// let mut place = Some(7);
/// assert!(!try_send(&sender, &mut place) && !try_send(&sender, 8));
/// assert_eq!(place, Some(7));
/// ```
#[diagnostic::on_unimplemented(
    message = "a channel of `{T}` cannot send `{Self}`",
    label = "neither a `{T}` nor a `&mut Option<{T}>`"
)]
pub trait Message<'a, T> {
    /// Where it is until it is sent.
    #[doc(hidden)]
    fn place(self) -> Place<'a, T>;
}

/// Where a message is until it is sent.
#[doc(hidden)]
pub enum Place<'a, T> {
    Own(Cell<Option<T>>),
    Lent(&'a Cell<Option<T>>),
}

impl<T> Place<'_, T> {
    pub(crate) fn cell(&self) -> &Cell<Option<T>> {
        match self {
            Place::Own(cell) => cell,
            Place::Lent(cell) => cell,
        }
    }
}

impl<'a, T> Message<'a, T> for T {
    fn place(self) -> Place<'a, T> {
        Place::Own(Cell::new(Some(self)))
    }
}

impl<'a, T> Message<'a, T> for &'a mut Option<T> {
    fn place(self) -> Place<'a, T> {
        Place::Lent(Cell::from_mut(self))
    }
}
