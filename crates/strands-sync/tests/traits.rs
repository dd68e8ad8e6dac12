//! The types have std's auto traits, and share std's error types.

use std::cell::Cell;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::rc::Rc;

use strands_sync::mpsc::{self, Receiver, Sender, SyncSender};
use strands_sync::{Condvar, Mutex, MutexGuard, broadcast, channel, oneshot, watch};

macro_rules! implements {
    ($($type:ty: $($bound:path),+;)+) => {
        $({ fn check<T: $($bound +)+ ?Sized>() {} check::<$type>(); })+
    };
}

/// Does not compile if the type has the trait: then which `f` is meant is ambiguous.
macro_rules! lacks {
    ($($type:ty: $bound:path;)+) => {
        $({
            trait Ambiguous<A> { fn f() {} }
            struct HasIt;
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $bound> Ambiguous<HasIt> for T {}
            <$type as Ambiguous<_>>::f();
        })+
    };
}

#[test]
fn auto_traits_are_stds() {
    type SendNotSync = Cell<u8>;
    type Neither = Rc<u8>;
    implements! {
        Mutex<SendNotSync>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        Mutex<dyn Send>: Send, Sync;
        Mutex<&mut u8>: UnwindSafe, RefUnwindSafe;
        MutexGuard<'static, u8>: Sync, UnwindSafe, RefUnwindSafe, Unpin;
        Condvar: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        Sender<SendNotSync>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        SyncSender<SendNotSync>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        Receiver<SendNotSync>: Send, UnwindSafe, RefUnwindSafe, Unpin;
        mpsc::IntoIter<SendNotSync>: Send;
        channel::Sender<SendNotSync>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        channel::Receiver<SendNotSync>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        oneshot::Sender<SendNotSync>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        oneshot::Receiver<SendNotSync>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        watch::Sender<u8>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        watch::Receiver<u8>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        broadcast::Sender<u8>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
        broadcast::Receiver<u8>: Send, Sync, UnwindSafe, RefUnwindSafe, Unpin;
    }
    lacks! {
        Mutex<Neither>: Send;
        Mutex<Neither>: Sync;
        MutexGuard<'static, u8>: Send;
        MutexGuard<'static, SendNotSync>: Sync;
        Sender<Neither>: Send;
        Sender<Neither>: Sync;
        SyncSender<Neither>: Send;
        SyncSender<Neither>: Sync;
        Receiver<Neither>: Send;
        Receiver<u8>: Sync;
        mpsc::Iter<'static, u8>: Send;
        channel::Sender<Neither>: Send;
        channel::Sender<Neither>: Sync;
        channel::Receiver<Neither>: Send;
        channel::Receiver<Neither>: Sync;
        oneshot::Sender<Neither>: Send;
        oneshot::Receiver<Neither>: Send;
        watch::Sender<SendNotSync>: Sync;
        watch::Receiver<SendNotSync>: Send;
        broadcast::Sender<SendNotSync>: Sync;
        broadcast::Receiver<SendNotSync>: Send;
    }
}

#[test]
fn error_types_are_stds() {
    let _: std::sync::mpsc::SendError<u8> = mpsc::SendError(1);
    let _: std::sync::mpsc::TrySendError<u8> = mpsc::SendError(1).into();
    let _: std::sync::mpsc::RecvError = mpsc::RecvError;
    let _: std::sync::mpsc::TryRecvError = mpsc::RecvError.into();
    let _: std::sync::mpsc::RecvTimeoutError = mpsc::RecvError.into();
    let _: std::sync::PoisonError<u8> = strands_sync::PoisonError::new(1);
    let _: std::sync::TryLockError<u8> = strands_sync::TryLockError::WouldBlock;
    let _: std::sync::LockResult<u8> = strands_sync::LockResult::Ok(1);
    let _: std::sync::TryLockResult<u8> = strands_sync::TryLockResult::Ok(1);
}
