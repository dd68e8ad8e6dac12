//! Two versions of strands, `strands` and `other`, side by side: neither disturbs the other.
//!
//! Made and run by `cargo xtask ci two-versions`.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::Duration;

/// Uses a page of stack each time.
#[inline(never)]
#[allow(unconditional_recursion)]
fn overflow(depth: usize) -> usize {
    let mut frame = [depth; 512];
    std::hint::black_box(&mut frame);
    overflow(depth + 1) + frame[depth % 512]
}

fn overflow_in_strands() {
    let named = strands::thread::Builder::new().name("mine".into());
    named.spawn(|| overflow(0)).unwrap().join().unwrap();
}

fn overflow_in_other() {
    let named = other::thread::Builder::new().name("theirs".into());
    named.spawn(|| overflow(0)).unwrap().join().unwrap();
}

/// Starts the default runtimes, in this order, or in the other.
fn start(strands_first: bool) {
    let mine = || assert_eq!(strands::spawn(|| 1).join().unwrap(), 1);
    let theirs = || assert_eq!(other::spawn(|| 2).join().unwrap(), 2);
    if strands_first {
        mine();
        theirs();
    } else {
        theirs();
        mine();
    }
}

/// Fibers of both at work at once; what one sends, the other receives.
fn side_by_side() {
    let (to_other, mut at_other) = mpsc::channel::<u64>();
    let (to_strands, mut at_strands) = mpsc::channel::<u64>();
    let mine = strands::spawn(move || {
        let mut sum = 0;
        for i in 0..1_000 {
            to_other.send(i).unwrap();
            strands::sleep(Duration::from_micros(i % 7));
            let received = &mut at_strands;
            sum += strands::unblock(move || received.recv().unwrap());
        }
        sum
    });
    let theirs = other::spawn(move || {
        for _ in 0..1_000 {
            let received = &mut at_other;
            let i = other::unblock(move || received.recv().unwrap());
            other::yield_now();
            to_strands.send(2 * i).unwrap();
        }
    });
    assert_eq!(mine.join().unwrap(), 999_000);
    theirs.join().unwrap();

    // Sockets between the two, and many fibers in each.
    let listener = strands::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let servers = strands::spawn(move || {
        strands::scope(|scope| {
            for _ in 0..50 {
                let mut stream = listener.accept().unwrap().0;
                scope.spawn(move || {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    stream.write_all(&[byte[0] + 1]).unwrap();
                });
            }
        });
    });
    other::scope(|scope| {
        for i in 0..50 {
            scope.spawn(move || {
                let mut stream = other::net::TcpStream::connect(addr).unwrap();
                stream.write_all(&[i]).unwrap();
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                assert_eq!(byte[0], i + 1);
            });
        }
    });
    servers.join().unwrap();
}

/// A fiber of the one is a plain thread to the other: it blocks its worker, and all works.
fn nested() {
    let mine = strands::Runtime::builder().workers(1).build().unwrap();
    let theirs = other::Runtime::builder().workers(1).build().unwrap();
    let lock = other::sync::Mutex::new(0);
    mine.run(|| {
        let inner = theirs.run(|| other::spawn(|| std::thread::current().id()).join().unwrap());
        assert_ne!(inner, std::thread::current().id());
        strands::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    *lock.lock().unwrap() += 1;
                    other::sleep(Duration::from_micros(10));
                    strands::yield_now();
                });
            }
        });
        assert_eq!(*lock.lock().unwrap(), 10);
    });
    theirs.shutdown_timeout(Duration::MAX).unwrap();
    // The end of the one leaves the other alone.
    assert_eq!(mine.run(|| strands::spawn(|| 3).join().unwrap()), 3);
}

fn run(case: &str, strands_first: bool) {
    if case != "nested" {
        start(strands_first);
    }
    match case {
        "side by side" => side_by_side(),
        "nested" => nested(),
        "overflow in strands" => overflow_in_strands(),
        "overflow in other" => overflow_in_other(),
        "overflow of a thread" => {
            let named = std::thread::Builder::new().name("plain".into());
            named.spawn(|| overflow(0)).unwrap().join().unwrap();
        }
        other => panic!("no case {other}"),
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, case, first] = &args[..] {
        return run(case, first == "strands first");
    }
    let overflows: [(&str, &str); 3] = [
        ("overflow in strands", "fiber 'mine' (id "),
        ("overflow in other", "fiber 'theirs' (id "),
        ("overflow of a thread", "thread 'plain'"),
    ];
    for first in ["strands first", "other first"] {
        let output = |case: &str| -> Output {
            let program = std::env::current_exe().unwrap();
            Command::new(program).args([case, first]).output().unwrap()
        };
        for case in ["side by side", "nested"] {
            let output = output(case);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{case}, {first}: {}\n{errors}", output.status);
            println!("{case}, {first} ... ok");
        }
        for (case, says) in overflows {
            let output = output(case);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), Some(6), "{case}, {first}: {errors}");
            let times = (errors.matches(says).count(), errors.matches("overflowed").count());
            assert_eq!(times, (1, 1), "{case}, {first}: {errors}");
            println!("{case}, {first} ... ok");
        }
    }
}
