//! Channels.

mirrored! {
    fn sends_and_receives() {
        use imp::sync::mpsc::{RecvError, TryRecvError, channel};
        let (sender, receiver) = channel();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        sender.send(1).unwrap();
        sender.clone().send(2).unwrap();
        assert_eq!((receiver.recv(), receiver.try_recv()), (Ok(1), Ok(2)));
        sender.send(3).unwrap();
        drop(sender);
        // What was sent is received, though nobody is left.
        assert_eq!(receiver.recv(), Ok(3));
        assert_eq!(receiver.recv(), Err(RecvError));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    }

    fn gives_the_message_back() {
        use imp::sync::mpsc::{SendError, TrySendError, channel, sync_channel};
        let (sender, receiver) = channel();
        drop(receiver);
        assert_eq!(sender.send("back"), Err(SendError("back")));
        let (sender, receiver) = sync_channel(1);
        assert_eq!(sender.try_send(1), Ok(()));
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        drop(receiver);
        assert_eq!(sender.try_send(3), Err(TrySendError::Disconnected(3)));
        assert_eq!(sender.send(4), Err(SendError(4)));
    }

    fn errors_read_as_they_do() {
        use imp::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
        struct NotDebug;
        assert_eq!(format!("{:?}", SendError(NotDebug)), "SendError { .. }");
        assert_eq!(SendError(NotDebug).to_string(), "sending on a closed channel");
        assert_eq!(format!("{:?}", TrySendError::Full(NotDebug)), "TrySendError::Full(..)");
        assert_eq!(TrySendError::Full(NotDebug).to_string(), "sending on a full channel");
        let gone = TrySendError::Disconnected(NotDebug);
        assert_eq!(format!("{gone:?}"), "TrySendError::Disconnected(..)");
        assert_eq!(TrySendError::Disconnected(1).to_string(), "sending on a closed channel");
        assert_eq!(RecvError.to_string(), "receiving on a closed channel");
        assert_eq!(TryRecvError::Empty.to_string(), "receiving on an empty channel");
        assert_eq!(TryRecvError::Disconnected.to_string(), "receiving on a closed channel");
        assert_eq!(RecvTimeoutError::Timeout.to_string(), "timed out waiting on channel");
        assert_eq!(RecvTimeoutError::Disconnected.to_string(), "channel is empty and sending half is closed");
        assert_eq!(TryRecvError::from(RecvError), TryRecvError::Disconnected);
        assert_eq!(RecvTimeoutError::from(RecvError), RecvTimeoutError::Disconnected);
        assert_eq!(TrySendError::from(SendError(1)), TrySendError::Disconnected(1));
    }

    fn halves_read_as_they_do() {
        use imp::sync::mpsc::{channel, sync_channel};
        let (sender, receiver) = channel::<u8>();
        assert_eq!(format!("{sender:?} {receiver:?}"), "Sender { .. } Receiver { .. }");
        assert_eq!(format!("{:?}", receiver.iter()), "Iter { rx: Receiver { .. } }");
        assert_eq!(format!("{:?}", receiver.try_iter()), "TryIter { rx: Receiver { .. } }");
        assert_eq!(format!("{:?}", receiver.into_iter()), "IntoIter { rx: Receiver { .. } }");
        assert_eq!(format!("{:?}", sync_channel::<u8>(1).0), "SyncSender { .. }");
    }

    fn iterates() {
        use imp::sync::mpsc::channel;
        use imp::thread;
        let (sender, receiver) = channel();
        let other = thread::spawn(move || (0..100).for_each(|i| sender.send(i).unwrap()));
        assert_eq!(receiver.iter().take(10).sum::<i32>(), 45);
        let mut next = 10;
        for message in &receiver {
            assert_eq!(message, next);
            next += 1;
        }
        assert_eq!(next, 100);
        other.join().unwrap();
        let (sender, receiver) = channel();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(receiver.try_iter().next(), None);
        sender.send(3).unwrap();
        drop(sender);
        assert_eq!(receiver.into_iter().collect::<Vec<_>>(), [3]);
    }

    fn times_out() {
        use imp::sync::mpsc::{RecvTimeoutError, channel};
        use imp::thread;
        use imp::time::{Duration, Instant};
        let (sender, receiver) = channel();
        let start = Instant::now();
        let soon = Duration::from_millis(2);
        assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Timeout));
        assert!(start.elapsed() >= soon);
        sender.send(1).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok(1));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        let other = thread::spawn(move || sender.send(2).unwrap());
        assert_eq!(receiver.recv_timeout(Duration::MAX), Ok(2));
        other.join().unwrap();
        assert_eq!(receiver.recv_timeout(Duration::MAX), Err(RecvTimeoutError::Disconnected));
    }

    fn a_bound_makes_senders_wait() {
        use imp::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        use imp::sync::mpsc::sync_channel;
        use imp::thread;
        let (sender, receiver) = sync_channel(3);
        let sent = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let sender = sender;
                for i in 0..50 {
                    sender.send(i).unwrap();
                    sent.fetch_add(1, SeqCst);
                }
            });
            for i in 0..50 {
                assert_eq!(receiver.recv(), Ok(i));
                assert!(sent.load(SeqCst) <= i + 1 + 3, "more were sent than there is room for");
            }
        });
    }

    fn bound_0_is_a_rendezvous() {
        use imp::sync::atomic::{AtomicBool, Ordering::SeqCst};
        use imp::sync::mpsc::{TryRecvError, TrySendError, sync_channel};
        use imp::thread;
        let (sender, receiver) = sync_channel(0);
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)), "nobody receives");
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let received = AtomicBool::new(false);
        thread::scope(|scope| {
            let received = &received;
            scope.spawn(move || {
                assert_eq!(receiver.recv(), Ok(7));
                received.store(true, SeqCst);
                assert_eq!(receiver.recv(), Ok(8));
            });
            sender.send(7).unwrap();
            // The second is taken by who has taken the first.
            sender.send(8).unwrap();
            assert!(received.load(SeqCst), "sent before it was received");
        });
        drop(sender);
    }

    fn a_waiting_sender_hears_of_the_end() {
        use imp::sync::mpsc::{SendError, sync_channel};
        use imp::thread;
        for bound in [0, 1] {
            let (sender, receiver) = sync_channel(bound);
            (0..bound).for_each(|_| sender.send(1).unwrap());
            let waits = thread::spawn(move || sender.send(2));
            thread::yield_now();
            drop(receiver);
            assert_eq!(waits.join().unwrap(), Err(SendError(2)));
        }
    }

    fn a_waiting_receiver_hears_of_the_end() {
        use imp::sync::mpsc::{RecvError, channel};
        use imp::thread;
        let (sender, receiver) = channel::<()>();
        let waits = thread::spawn(move || receiver.recv());
        thread::yield_now();
        drop(sender.clone());
        drop(sender);
        assert_eq!(waits.join().unwrap(), Err(RecvError));
    }

    fn messages_are_dropped_in_order_with_the_receiver() {
        use imp::sync::mpsc::{Sender, channel, sync_channel};
        use std::cell::RefCell;
        use std::rc::Rc;
        struct Noted(u8, Rc<RefCell<Vec<u8>>>);
        impl Drop for Noted {
            fn drop(&mut self) {
                self.1.borrow_mut().push(self.0);
            }
        }
        let dropped = Rc::new(RefCell::new(Vec::new()));
        let noted = |i| Noted(i, dropped.clone());
        let (sender, receiver): (Sender<Noted>, _) = channel();
        (1..5).for_each(|i| sender.send(noted(i)).unwrap());
        drop(receiver.recv());
        drop(receiver);
        assert_eq!(*dropped.borrow(), [1, 2, 3, 4], "with the receiver, not with the sender");
        dropped.borrow_mut().clear();
        let (sender, receiver) = sync_channel(3);
        (1..4).for_each(|i| sender.send(noted(i)).unwrap());
        drop(receiver);
        assert_eq!(*dropped.borrow(), [1, 2, 3]);
        drop(sender.send(noted(4)));
        assert_eq!(*dropped.borrow(), [1, 2, 3, 4]);
    }

    fn many_senders() {
        use imp::sync::mpsc::{channel, sync_channel};
        use imp::thread;
        let (sender, receiver) = channel();
        let (bounded, bounded_receiver) = sync_channel(2);
        for i in 0..8 {
            let (sender, bounded) = (sender.clone(), bounded.clone());
            thread::spawn(move || {
                for j in 0..20 {
                    sender.send((i, j)).unwrap();
                    bounded.send((i, j)).unwrap();
                }
            });
        }
        drop((sender, bounded));
        for all in [bounded_receiver.iter().collect::<Vec<_>>(), receiver.iter().collect()] {
            assert_eq!(all.len(), 160);
            for i in 0..8 {
                let of_one: Vec<_> = all.iter().filter(|one| one.0 == i).map(|one| one.1).collect();
                assert!(of_one.into_iter().eq(0..20), "out of order");
            }
        }
    }

    fn auto_traits() {
        use imp::sync::mpsc::{IntoIter, Receiver, Sender, SyncSender};
        use std::cell::Cell;
        use std::panic::{RefUnwindSafe, UnwindSafe};
        fn all<T: Send + Sync + UnwindSafe + RefUnwindSafe + Unpin + Clone>() {}
        fn one<T: Send + UnwindSafe + RefUnwindSafe + Unpin>() {}
        all::<Sender<Cell<u8>>>();
        all::<SyncSender<Cell<u8>>>();
        one::<Receiver<Cell<u8>>>();
        one::<IntoIter<Cell<u8>>>();
    }
}
