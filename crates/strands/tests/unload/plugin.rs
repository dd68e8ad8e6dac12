//! A library that uses strands, for the test `unload` to load and close.
//!
//! Built as a `cdylib` by that test: not every target has those, and this way the tests build there.

use std::time::Duration;

use strands::{Runtime, scope, sleep, spawn};

/// Leaves nothing behind but what the process keeps: the runtime ends here.
#[unsafe(no_mangle)]
pub extern "C" fn run_and_end() -> u32 {
    let runtime = Runtime::builder().workers(2).build().unwrap();
    let count = 100;
    runtime.run(|| {
        scope(|scope| {
            let fibers: Vec<_> = (0..count)
                .map(|_| {
                    scope.spawn(|| {
                        sleep(Duration::from_micros(10));
                        1
                    })
                })
                .collect();
            fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum()
        })
    })
}

/// Leaves the default runtime behind, with fibers that sleep in this library's code.
#[unsafe(no_mangle)]
pub extern "C" fn run_and_leave() -> u32 {
    for _ in 0..10 {
        spawn(|| {
            loop {
                sleep(Duration::from_micros(100));
            }
        });
    }
    spawn(|| 7).join().unwrap()
}

/// Overflows the stack of a fiber.
#[unsafe(no_mangle)]
pub extern "C" fn overflow() -> u32 {
    #[inline(never)]
    #[allow(unconditional_recursion)]
    fn deeper(depth: u32) -> u32 {
        let mut frame = [depth; 512];
        std::hint::black_box(&mut frame);
        deeper(depth + 1) + frame[depth as usize % 512]
    }
    let named = strands::thread::Builder::new().name("plugged".into());
    named.spawn(|| deeper(0)).unwrap().join().unwrap()
}
