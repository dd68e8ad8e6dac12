//! `select!` and `Select`: what they look like, and that one operation is performed.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use strands::cancel::{CancelToken, cancel_as_error, is_cancel_error};
use strands::channel::{self, Receiver, Sender};
use strands::net::{TcpListener, TcpStream};
use strands::runtime::Backend;
use strands::select::{Select, after};
use strands::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use strands::time::{Deadline, Elapsed, Instant, timeout};
use strands::{Runtime, select};

const LONG: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_micros(50);

/// On a plain thread, and as a fiber.
fn everywhere(f: fn()) {
    f();
    Runtime::builder().workers(2).build().unwrap().run(f);
}

#[test]
fn each_operation_has_its_word() {
    everywhere(|| {
        let (sender, receiver) = channel::bounded(1);
        select! { result = send(sender, 1) => result.unwrap() }
        assert_eq!(select! { number = recv(receiver) => number.unwrap() }, 1);

        let (sender, receiver) = mpsc::sync_channel(1);
        select! { result = send(&sender, 2) => result.unwrap(), }
        assert_eq!(select! { number = recv(&receiver) => number.unwrap(), }, 2);

        let (sender, mut receiver) = oneshot::channel();
        sender.send(3).unwrap();
        let got = select! {
            number = recv(receiver) => { number.unwrap() }
            _ = after(LONG) => unreachable!(),
        };
        assert_eq!(got, 3);

        let (sender, mut receiver) = broadcast::channel(1);
        sender.send(4).unwrap();
        assert_eq!(select! { number = recv(receiver) => number.unwrap() }, 4);

        let (sender, mut receiver) = watch::channel(0);
        let by_reference = &mut receiver;
        sender.send(5).unwrap();
        select! { result = changed(by_reference) => result.unwrap() }
        assert_eq!(*by_reference.borrow(), 5);

        let notify = Notify::new();
        notify.notify_one();
        select! { () = notified(notify) => {} }

        let semaphore = Semaphore::new(3);
        let permit = select! { permit = acquire(semaphore) => permit.unwrap() };
        let two = select! { permit = acquire(semaphore, 2) => permit.unwrap() };
        assert_eq!((permit.num_permits(), two.num_permits()), (1, 2));
        select! {
            _ = acquire(semaphore) => unreachable!(),
            default => {}
        }

        let mut handle = strands::spawn(|| 6);
        assert_eq!(select! { result = join(handle) => result.unwrap() }, 6);

        let start = Instant::now();
        select! { _ = after(SOON) => assert!(start.elapsed() >= SOON) }
        select! { _ = at(start + SOON) => {} }
        select! { _ = at(Deadline::at(start)) => {} }
    });
}

#[test]
fn default_does_not_wait() {
    everywhere(|| {
        let (sender, receiver) = channel::unbounded();
        let look = || {
            select! {
                number = recv(receiver) => number.ok(),
                default => Some(-1),
            }
        };
        assert_eq!(look(), Some(-1));
        sender.send(1).unwrap();
        assert_eq!(look(), Some(1));
        sender.close();
        assert_eq!(look(), None, "a closed channel is possible");
        let timed_out = select! {
            default(SOON) => true,
            _ = after(LONG) => false,
        };
        assert!(timed_out);
        select! { default => {} }
    });
}

#[test]
fn a_message_that_is_not_sent_stays_with_the_caller() {
    everywhere(|| {
        let (sender, receiver) = channel::rendezvous::<String>();
        let mut message = Some(String::from("kept"));
        select! {
            _ = send(sender, &mut message) => unreachable!("nobody receives"),
            () = after(SOON) => {}
        }
        assert_eq!(message.as_deref(), Some("kept"));
        let receives = strands::spawn(move || receiver.recv().unwrap());
        select! {
            result = send(sender, &mut message) => result.unwrap(),
            () = after(LONG) => unreachable!(),
        }
        assert_eq!((message.as_deref(), receives.join().unwrap().as_str()), (None, "kept"));
        message = Some(String::from("back"));
        let error = select! { result = send(sender, &mut message) => result.unwrap_err() };
        assert_eq!((error.0.as_str(), message), ("back", None));
        // Without a message there is nothing to send, even to nobody.
        let nothing: &mut Option<String> = &mut None;
        select! {
            _ = send(sender, nothing) => unreachable!(),
            () = after(SOON) => {}
        }
    });
}

#[test]
fn an_arm_whose_condition_is_false_is_not_evaluated() {
    everywhere(|| {
        let (sender, receiver) = channel::unbounded();
        sender.send(1).unwrap();
        let none = Some(&receiver).filter(|receiver| receiver.len() > 1);
        let chosen = select! {
            biased;
            _ = recv(none.unwrap()) if none.is_some() => 0,
            number = recv(receiver) if none.is_none() => number.unwrap(),
            default => 2,
        };
        assert_eq!(chosen, 1);
        select! {
            _ = recv(receiver) if false => unreachable!(),
            default => {}
        }
    });
}

/// Code of an arm may do what it likes with what the operations borrowed, and leave by any way.
#[test]
fn the_code_of_an_arm_is_free() {
    fn first_of(a: Receiver<String>, b: Receiver<String>) -> Option<String> {
        let mut closed = 0;
        loop {
            select! {
                biased;
                message = recv(a) => match message {
                    Ok(message) => return Some(message),
                    Err(_) => closed += 1,
                },
                message = recv(b) => {
                    let message = message.ok()?;
                    return Some(message);
                }
            }
            if closed > 3 {
                break;
            }
        }
        drop((a, b));
        None
    }
    everywhere(|| {
        let ((sender, a), (other, b)) = (channel::unbounded(), channel::unbounded());
        sender.send(String::from("a")).unwrap();
        assert_eq!(first_of(a.clone(), b.clone()).as_deref(), Some("a"));
        other.send(String::from("b")).unwrap();
        assert_eq!(first_of(a.clone(), b.clone()).as_deref(), Some("b"));
        drop(sender);
        assert_eq!(first_of(a, b), None);

        let (mut slow, notify) = (None, Arc::new(Notify::new()));
        let told = notify.clone();
        let mut handle = strands::spawn(move || told.notified());
        let handle = select! {
            result = join(handle) => { result.unwrap(); None }
            _ = after(SOON) => Some(handle), // Moved: nothing borrows it any more.
        };
        slow.insert(handle.expect("it waits still")).thread().unpark();
        notify.notify_one();
        slow.unwrap().join().unwrap();
        // Names of the caller's are not the macro's.
        let (chosen, value, operation) = (1, 2, 3);
        let sum = select! { _ = after(SOON) => chosen + value + operation };
        assert_eq!(sum, 6);
    });
}

/// Evaluated once, in order, before anything is tried.
#[test]
fn operands_are_evaluated_once_and_in_order() {
    let (sender, receiver) = channel::bounded(4);
    let mut log = Vec::new();
    let mut noted = |name: &'static str| log.push(name);
    select! {
        biased;
        _ = recv({ noted("receiver"); &receiver }) => unreachable!(),
        result = send({ noted("sender"); &sender }, { noted("message"); 1 }) => result.unwrap(),
        _ = after({ noted("time"); LONG }) => unreachable!(),
    }
    assert_eq!(log, ["receiver", "sender", "message", "time"]);
    assert_eq!(receiver.recv(), Ok(1));
}

#[test]
fn a_joined_handle_is_used_up() {
    let mut handle = strands::spawn(|| 1);
    select! { result = join(handle) => assert_eq!(result.unwrap(), 1) }
    assert!(handle.is_finished());
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| handle.join()));
    let payload = again.unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"the fiber was joined by a select before"));

    Runtime::builder().workers(1).build().unwrap().run(|| {
        let (receiver, mut local) = {
            let (sender, receiver) = oneshot::channel();
            (receiver, strands::spawn_local(move || sender.send(2).unwrap()))
        };
        select! { result = join(local) => result.unwrap() }
        assert!(local.is_finished() && receiver.recv() == Ok(2));
    });

    // A scope does not end by the panic of a child whose handle was joined.
    strands::scope(|scope| {
        let mut child = scope.spawn(|| -> u32 { std::panic::resume_unwind(Box::new("looked at")) });
        select! { result = join(child) => assert!(result.is_err()) }
    });
}

#[test]
fn any_number_of_operations() {
    everywhere(|| {
        let (senders, receivers): (Vec<Sender<usize>>, Vec<_>) =
            (0..1_000).map(|_| channel::rendezvous()).unzip();
        let receives: Vec<_> = receivers.iter().map(Receiver::select_recv).collect();
        let late = after(LONG);
        let mut select = Select::new();
        assert_eq!(select.add(&late), 0);
        assert!((1..=1_000).eq(receives.iter().map(|recv| select.add(recv))));
        let sends = strands::spawn(move || {
            for index in [7, 999, 7, 0] {
                senders[index].send(index).unwrap();
            }
            senders
        });
        for index in [7, 999, 7, 0] {
            assert_eq!(select.select(), index + 1);
            assert_eq!(receives[index].take(), Some(Ok(index)));
        }
        assert_eq!((select.try_select(), select.select_timeout(SOON)), (None, None));
        let senders = sends.join().unwrap();
        drop(senders);
        let chosen = select.select_deadline(Deadline::never()).unwrap();
        assert!(receives[chosen - 1].take().unwrap().is_err());
    });
}

#[test]
fn a_biased_select_takes_the_first() {
    let (now, never) = (after(Duration::ZERO), after(LONG));
    let mut select = Select::biased();
    assert_eq!(format!("{select:?}"), "Select { operations: 0, order: Biased }");
    for operation in [&never, &now, &now] {
        select.add(operation);
    }
    for _ in 0..20 {
        assert_eq!(select.select(), 1);
    }
}

#[test]
#[should_panic(expected = "a select without operations would wait for ever")]
fn a_select_of_nothing_is_refused() {
    Select::new().select();
}

/// One waits by a select, others in the operations: each gets one connection or one byte, and the turn goes on.
#[test]
fn sockets_are_shared_with_those_who_read_and_accept() {
    let by_select = |listener: &TcpListener, never: &Receiver<()>| loop {
        select! {
            ready = readable(listener) => ready?,
            _ = recv(never) => unreachable!("nothing was sent"),
        }
        listener.set_nonblocking(true)?;
        let accepted = listener.accept(); // Another may have been faster.
        listener.set_nonblocking(false)?;
        match accepted {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            accepted => return accepted.map(|(stream, _)| stream),
        }
    };
    for workers in [1, 2] {
        let runtime = Runtime::builder().workers(workers).build().unwrap();
        for _ in 0..20 {
            runtime.run(|| {
                let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
                let (_sender, never) = channel::unbounded();
                let acceptors: Vec<_> = (0..4)
                    .map(|_| {
                        let (listener, never) = (listener.clone(), never.clone());
                        strands::spawn(move || by_select(&listener, &never))
                    })
                    .collect();
                let address = listener.local_addr().unwrap();
                let mut clients = [(); 4].map(|()| TcpStream::connect(address).unwrap());
                let mut servers: Vec<_> = acceptors
                    .into_iter()
                    .map(|acceptor| acceptor.join().unwrap().unwrap())
                    .collect();
                for client in &mut clients {
                    select! { ready = writable(client) => ready.unwrap() }
                    client.write_all(b"1").unwrap();
                }
                for server in &mut servers {
                    select! { ready = readable(server) => ready.unwrap() }
                    assert_eq!(server.read(&mut [0; 8]).unwrap(), 1);
                }
                let server = Arc::new(servers.pop().unwrap());
                let its = server.clone();
                let waits = strands::spawn(move || {
                    select! {
                        ready = readable(its) => ready.unwrap_err().kind(),
                        _ = after(LONG) => unreachable!(),
                    }
                });
                server.close();
                assert_eq!(waits.join().unwrap(), ErrorKind::NotConnected);
            });
        }
    }
}

/// A connection: its two ends.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// On a plain thread as on a fiber: whatever of a select's operations becomes possible ends its wait.
#[test]
fn sockets_and_others_in_one_select() {
    everywhere(|| {
        let ((mut client, server), (sender, receiver)) = (connection(), channel::rendezvous());
        let token = CancelToken::new();
        let wait = || {
            select! {
                ready = readable(server) => { ready.unwrap(); "read" }
                message = recv(receiver) => { message.unwrap(); "message" }
                reason = cancelled(token) => { assert_eq!(reason.to_string(), "over"); "token" }
                _ = after(LONG) => unreachable!(),
            }
        };
        let timed_out = select! {
            _ = readable(server) => false,
            _ = recv(receiver) => false,
            _ = after(SOON) => true,
        };
        assert!(timed_out);
        for _ in 0..10 {
            let its = sender.clone();
            let sends = strands::spawn(move || its.send(()).unwrap());
            assert_eq!(wait(), "message");
            sends.join().unwrap();
            let (mut its, bytes) = (client.try_clone().unwrap(), [7]);
            let writes = strands::spawn(move || its.write_all(&bytes).unwrap());
            assert_eq!(wait(), "read");
            assert_eq!(wait(), "read", "it has taken nothing");
            writes.join().unwrap();
            assert_eq!((&server).read(&mut [0; 8]).unwrap(), 1);
        }
        let its = token.clone();
        let cancels = strands::spawn(move || its.cancel_with("over"));
        assert_eq!(wait(), "token");
        cancels.join().unwrap();
        assert_eq!(wait(), "token", "it stays cancelled");
        // There is room to write, until it is full.
        select! { ready = writable(client) => ready.unwrap() }
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 1 << 16]).is_ok() {}
        client.set_nonblocking(false).unwrap();
        let is_full = select! {
            _ = writable(client) => false,
            _ = after(SOON) => true,
        };
        assert!(is_full);
        let server = Arc::new(server);
        let its = server.clone();
        let reads =
            strands::spawn(move || std::io::copy(&mut &*its, &mut std::io::sink()).unwrap());
        select! {
            ready = writable(client) => ready.unwrap(),
            _ = after(LONG) => unreachable!(),
        }
        drop(client);
        assert!(reads.join().unwrap() > 0);
        select! { ready = readable(server) => ready.unwrap() } // The end.
    });
}

/// Who waits for a socket when it is closed, or is asked to end, gets to know.
#[test]
fn a_select_of_sockets_that_is_ended() {
    everywhere(|| {
        let (_client, server) = connection();
        let (server, (_sender, never)) = (Arc::new(server), channel::unbounded::<()>());
        let wait = |server: &TcpStream| {
            select! {
                _ = recv(never) => unreachable!("nothing is sent"),
                ready = readable(server) => ready,
            }
        };
        assert_eq!(timeout(SOON, || wait(&server)).map(drop), Err(Elapsed));
        let error = timeout(SOON, || cancel_as_error(|| wait(&server))).unwrap().unwrap_err();
        assert!(is_cancel_error(&error), "{error}");
        let token = CancelToken::new();
        let its = token.clone();
        let cancels = strands::spawn(move || its.cancel_with("enough"));
        let ended = token.run(|| wait(&server)).map(drop);
        assert_eq!(ended.unwrap_err().to_string(), "enough");
        cancels.join().unwrap();
        // Also one that need not wait is told, sooner or later.
        let late = timeout(SOON, || {
            cancel_as_error(|| {
                loop {
                    let result = select! {
                        biased;
                        ready = readable(server) => ready,
                        _ = after(Duration::ZERO) => Ok(()),
                    };
                    if let Err(error) = result {
                        return error;
                    }
                }
            })
        });
        assert!(is_cancel_error(&late.unwrap()));
        // One without a socket has no error to give, and waits on as a `recv` does.
        let its = timeout(SOON, || {
            cancel_as_error(|| {
                select! {
                    _ = recv(never) => unreachable!("nothing is sent"),
                    _ = after(2 * SOON) => "it waited",
                }
            })
        });
        assert_eq!(its, Ok("it waited"));
        let its = server.clone();
        let closes = strands::spawn(move || its.close());
        assert_eq!(wait(&server).unwrap_err().kind(), ErrorKind::NotConnected);
        closes.join().unwrap();
        assert_eq!(wait(&server).unwrap_err().kind(), ErrorKind::NotConnected);
    });
}

/// Plain threads and fibers, in selects and in `accept`, share a listener: each connection is served once, and no
/// message of a channel beside it is lost.
#[test]
fn threads_and_fibers_share_a_listener_in_selects() {
    const CONNECTIONS: usize = 40;
    for backend in [Backend::Auto, Backend::Mio] {
        let runtime = Runtime::builder().workers(2).backend(backend).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (sender, receiver) = channel::bounded::<()>(1);
        // How many connections, and how many messages.
        let serve = || {
            let mut got = (0, 0);
            loop {
                select! {
                    ready = readable(listener) => match ready.and_then(|()| listener.accept()) {
                        Ok(_) => got.0 += 1,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {} // Another was faster.
                        Err(error) => panic!("{error}"),
                    },
                    message = recv(receiver) => match message {
                        Ok(()) => got.1 += 1,
                        Err(_) => return got,
                    },
                }
            }
        };
        let served = std::thread::scope(|scope| {
            let threads = [0, 1].map(|_| scope.spawn(serve));
            let fibers = scope.spawn(|| {
                runtime.run(|| {
                    strands::scope(|scope| {
                        let fibers = [0, 1, 2].map(|_| scope.spawn(serve));
                        fibers.map(|fiber| fiber.join().unwrap())
                    })
                })
            });
            let mut clients = Vec::new();
            for _ in 0..CONNECTIONS {
                clients.push(TcpStream::connect(address).unwrap());
                sender.send(()).unwrap();
            }
            // All have been accepted, or are about to be: the end of each comes after that.
            for client in &mut clients {
                assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
            }
            drop(sender);
            let threads = threads.map(|thread| thread.join().unwrap());
            let fibers = fibers.join().unwrap();
            threads
                .into_iter()
                .chain(fibers)
                .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        });
        assert_eq!(served, (CONNECTIONS, CONNECTIONS), "{backend:?}");
    }
}

/// Each operation in a step of its own, so the number that rustc allows is nearly that of the arms.
#[test]
fn a_select_of_many_arms() {
    macro_rules! ten {
        ($never:ident [$($arms:tt)*]) => {
            hundred!($never [$($arms)* $($arms)* $($arms)* $($arms)* $($arms)* $($arms)* $($arms)* $($arms)* $($arms)* $($arms)*])
        };
    }
    macro_rules! hundred {
        ($never:ident [$($arms:tt)*]) => {
            select! { $($arms)* default => 1 }
        };
    }
    let (_sender, never) = channel::unbounded::<i32>();
    let chosen = ten!(never [
        number = recv(never) => number.unwrap(),
        _ = recv(never) if never.len() > 1 => 2,
        _ = recv(never) => { 3 }
        _ = recv(never) => { 4 },
        _ = recv(never) if never.len() > 1 => { 5 }
        number = recv(never) => number.unwrap(),
        _ = recv(never) if never.len() > 1 => 2,
        _ = recv(never) => { 3 }
        _ = recv(never) => { 4 },
        default(LONG) => 6,
    ]);
    assert_eq!(chosen, 1);
}
