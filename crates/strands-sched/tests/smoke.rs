//! The scheduler on its own, with a driver that knows only time.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use strands_sched::{Builder, SpawnOptions, sleep_until, spawn, yield_now};

fn none() -> std::io::Result<Arc<strands_sched::Shared>> {
    Err(std::io::Error::other("no default runtime here"))
}

#[test]
fn spawns_and_joins() {
    for workers in [1, 2, 4] {
        let runtime = Builder::new().workers(workers).build().unwrap();
        let sum = runtime
            .run(SpawnOptions::default(), || {
                let handles: Vec<_> = (0..1000u64)
                    .map(|i| {
                        spawn(SpawnOptions::default(), none, move || {
                            yield_now();
                            i
                        })
                        .unwrap()
                    })
                    .collect();
                handles.into_iter().map(|handle| handle.join().unwrap()).sum::<u64>()
            })
            .unwrap();
        assert_eq!(sum, 499_500);
        runtime.shutdown(None).unwrap();
    }
}

#[test]
fn sleeps() {
    let runtime = Builder::new().workers(2).build().unwrap();
    let start = Instant::now();
    let count = Arc::new(AtomicUsize::new(0));
    runtime
        .run(SpawnOptions::default(), || {
            let handles: Vec<_> = (0..100u64)
                .map(|i| {
                    let count = count.clone();
                    spawn(SpawnOptions::default(), none, move || {
                        sleep_until(Some(Instant::now() + Duration::from_millis(i % 10)));
                        count.fetch_add(1, SeqCst);
                    })
                    .unwrap()
                })
                .collect();
            handles.into_iter().for_each(|handle| handle.join().unwrap());
        })
        .unwrap();
    assert!(start.elapsed() >= Duration::from_millis(9));
    assert_eq!(count.load(SeqCst), 100);
}
#[test]
fn shutdown_cancels_the_parked() {
    let runtime = Builder::new().workers(2).build().unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Bump(Arc<AtomicUsize>);
    impl Drop for Bump {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let handles: Vec<_> = (0..100)
        .map(|_| {
            let bump = Bump(dropped.clone());
            strands_sched::spawn_on(runtime.shared(), SpawnOptions::default(), move || {
                let _b = bump;
                sleep_until(None)
            })
            .unwrap()
        })
        .collect();
    runtime.shutdown(None).unwrap();
    assert_eq!(dropped.load(SeqCst), 100);
    for handle in handles {
        assert!(handle.join().unwrap_err().is::<strands_sched::Cancelled>());
    }
}
