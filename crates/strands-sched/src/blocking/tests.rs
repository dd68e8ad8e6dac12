use super::*;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

const FOREVER: Duration = Duration::MAX;

fn pool(max_threads: usize, keep_alive: Duration) -> Pool {
    Pool::new(PoolConfig { max_threads, keep_alive, ..PoolConfig::default() })
}

fn submit(pool: &Pool, job: impl FnOnce() + Send + 'static) {
    assert!(pool.submit(Box::new(job)).is_ok(), "the pool refused a job");
}

/// Returns when all threads have ended by themselves.
fn await_no_threads(pool: &Pool) {
    let mut state = pool.shared.lock();
    while !state.threads.is_empty() {
        state = wait(&pool.shared.all_ended, state, None);
    }
}

/// Going idle signals nobody, so look until it is so.
fn await_idle(pool: &Pool, threads: usize) {
    while pool.idle() != threads {
        thread::yield_now();
    }
}

/// Occupies a thread of the pool until the sender is dropped.
fn occupy(pool: &Pool) -> mpsc::Sender<()> {
    let (started, is_started) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    submit(pool, move || {
        started.send(()).unwrap();
        assert!(released.recv().is_err());
    });
    is_started.recv().unwrap();
    release
}

#[test]
fn no_thread_before_the_first_job() {
    let pool = pool(4, FOREVER);
    assert_eq!((pool.threads(), pool.queued(), pool.idle()), (0, 0, 0));
    assert_eq!(pool.shutdown(None), 0);
}

#[test]
fn jobs_that_wait_for_each_other_run_at_once_up_to_the_bound() {
    let pool = pool(4, FOREVER);
    let together = Arc::new(Barrier::new(5));
    for _ in 0..4 {
        let together = Arc::clone(&together);
        submit(&pool, move || {
            together.wait();
        });
    }
    together.wait();
    assert_eq!(pool.threads(), 4);
    assert_eq!(pool.shutdown(None), 0);
}

#[test]
fn never_more_threads_than_the_bound() {
    let pool = pool(3, FOREVER);
    let busy: Vec<_> = (0..3).map(|_| occupy(&pool)).collect();
    let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..300 {
        let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
        submit(&pool, move || {
            peak.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            thread::yield_now();
            running.fetch_sub(1, SeqCst);
        });
    }
    assert_eq!((pool.threads(), pool.queued(), pool.idle()), (3, 300, 0));
    drop(busy);
    assert_eq!(pool.shutdown(None), 0);
    assert!((1..=3).contains(&peak.load(SeqCst)));
    assert_eq!(pool.shared.lock().started, 3);
}

#[test]
fn one_thread_runs_jobs_in_order() {
    let pool = pool(1, FOREVER);
    let busy = occupy(&pool);
    let (log, logged) = mpsc::channel();
    for n in 0..1000 {
        let log = log.clone();
        submit(&pool, move || log.send(n).unwrap());
    }
    drop((busy, log));
    assert!(logged.iter().eq(0..1000));
    assert_eq!(pool.shutdown(None), 0);
}

#[test]
fn an_idle_thread_is_used_again_the_newest_first() {
    let pool = pool(8, FOREVER);
    let name = |pool: &Pool| {
        let (name, named) = mpsc::channel();
        submit(pool, move || {
            name.send(thread::current().name().unwrap().to_owned()).unwrap();
        });
        named.recv().unwrap()
    };
    // Three threads, idle in the order of their numbers.
    let busy: Vec<_> = (0..3).map(|_| occupy(&pool)).collect();
    for (n, release) in busy.into_iter().enumerate() {
        drop(release);
        await_idle(&pool, n + 1);
    }
    for _ in 0..100 {
        assert_eq!(name(&pool), "strands-blocking-2");
        await_idle(&pool, 3);
    }
    let _busy = occupy(&pool);
    assert_eq!(name(&pool), "strands-blocking-1");
    await_idle(&pool, 2);
    assert_eq!(pool.threads(), 3);
}

#[test]
fn idle_threads_end_after_keep_alive_and_come_back() {
    let pool = pool(4, Duration::from_millis(1));
    for round in 1..=3 {
        let busy: Vec<_> = (0..4).map(|_| occupy(&pool)).collect();
        assert_eq!(pool.threads(), 4);
        drop(busy);
        await_no_threads(&pool);
        assert_eq!((pool.threads(), pool.queued(), pool.idle()), (0, 0, 0));
        assert_eq!(pool.shared.lock().started, round * 4);
    }
}

#[test]
fn jobs_meet_threads_that_are_about_to_end() {
    let pool = pool(2, Duration::ZERO);
    for n in 0..5_000 {
        let (done, is_done) = mpsc::channel();
        submit(&pool, move || done.send(n).unwrap());
        assert_eq!(is_done.recv(), Ok(n));
    }
    await_no_threads(&pool);
}

#[test]
fn a_job_that_comes_while_the_last_thread_stops_is_run() {
    let (stopping, is_stopping) = mpsc::sync_channel::<()>(0);
    let (go_on, may_go_on) = mpsc::sync_channel::<()>(0);
    let may_go_on = Mutex::new(may_go_on);
    let starts = Arc::new(AtomicUsize::new(0));
    let starts_seen = Arc::clone(&starts);
    let pool = Pool::new(PoolConfig {
        max_threads: 1,
        keep_alive: Duration::ZERO,
        on_start: Some(Arc::new(move || {
            starts.fetch_add(1, SeqCst);
        })),
        on_stop: Some(Arc::new(move || {
            // The test is gone after the first round: both fail, and the thread ends.
            let _ = stopping.send(());
            let _ = may_go_on.lock().unwrap().recv();
        })),
        ..PoolConfig::default()
    });
    submit(&pool, || {});
    is_stopping.recv().unwrap();
    let (done, is_done) = mpsc::channel();
    submit(&pool, move || done.send(()).unwrap());
    assert_eq!((pool.threads(), pool.queued()), (1, 1));
    drop((is_stopping, go_on));
    is_done.recv().unwrap();
    await_no_threads(&pool);
    assert_eq!(pool.shared.lock().started, 1);
    assert_eq!(starts_seen.load(SeqCst), 2, "each stop has its start");
}

#[test]
fn hooks_run_once_a_thread_and_may_panic() {
    let (starts, stops) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counting = |count: &Arc<AtomicUsize>| -> Option<Hook> {
        let count = Arc::clone(count);
        Some(Arc::new(move || {
            count.fetch_add(1, SeqCst);
            std::panic::resume_unwind(Box::new("hook"));
        }))
    };
    let pool = Pool::new(PoolConfig {
        max_threads: 3,
        keep_alive: FOREVER,
        on_start: counting(&starts),
        on_stop: counting(&stops),
        ..PoolConfig::default()
    });
    let busy: Vec<_> = (0..3).map(|_| occupy(&pool)).collect();
    assert_eq!((starts.load(SeqCst), stops.load(SeqCst)), (3, 0));
    drop(busy);
    assert_eq!(pool.shutdown(None), 0);
    assert_eq!((starts.load(SeqCst), stops.load(SeqCst)), (3, 3));
}

#[test]
fn a_panicking_job_harms_nobody() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("payload"));
        }
    }
    let pool = pool(1, FOREVER);
    for _ in 0..10 {
        submit(&pool, || std::panic::resume_unwind(Box::new("job")));
        submit(&pool, || {
            std::panic::resume_unwind(Box::new(PanicsWhenDropped));
        });
    }
    let (done, is_done) = mpsc::channel();
    submit(&pool, move || done.send(()).unwrap());
    is_done.recv().unwrap();
    assert_eq!((pool.threads(), pool.queued()), (1, 0));
    assert_eq!(pool.shared.lock().started, 1);
    assert_eq!(pool.shutdown(None), 0);
}

#[test]
fn shutdown_runs_what_is_queued_and_reports_who_is_busy() {
    let pool = pool(2, FOREVER);
    let busy = [occupy(&pool), occupy(&pool)];
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..100 {
        let ran = Arc::clone(&ran);
        submit(&pool, move || {
            ran.fetch_add(1, SeqCst);
        });
    }
    assert_eq!(pool.shutdown(Some(Instant::now())), 2);
    assert_eq!(pool.shutdown(Some(Instant::now() + Duration::from_millis(2))), 2);
    assert_eq!((pool.queued(), ran.load(SeqCst)), (100, 0));
    drop(busy);
    assert_eq!(pool.shutdown(None), 0);
    assert_eq!((pool.queued(), ran.load(SeqCst)), (0, 100));
    assert_eq!(pool.threads(), 0);
}

#[test]
fn idle_threads_are_not_reported_busy() {
    let pool = pool(3, FOREVER);
    let busy: Vec<_> = (0..3).map(|_| occupy(&pool)).collect();
    drop(busy);
    await_idle(&pool, 3);
    assert_eq!(pool.shutdown(Some(Instant::now())), 0);
    await_no_threads(&pool);
}

#[test]
fn submit_after_shutdown_gives_the_job_back() {
    let pool = pool(2, FOREVER);
    submit(&pool, || {});
    assert_eq!(pool.shutdown(None), 0);
    let ran = Arc::new(AtomicUsize::new(0));
    let in_job = Arc::clone(&ran);
    let refused = pool.submit(Box::new(move || {
        in_job.fetch_add(1, SeqCst);
    }));
    assert_eq!((pool.threads(), ran.load(SeqCst)), (0, 0));
    refused.expect_err("accepted after shutdown")();
    assert_eq!(ran.load(SeqCst), 1);
}

#[test]
fn dropping_the_pool_runs_what_is_queued() {
    let pool = pool(1, FOREVER);
    let busy = occupy(&pool);
    let (log, logged) = mpsc::channel();
    for n in 0..100 {
        let log = log.clone();
        submit(&pool, move || log.send(n).unwrap());
    }
    let shared = Arc::clone(&pool.shared);
    drop((pool, log));
    drop(busy);
    assert!(logged.iter().eq(0..100));
    let mut state = shared.lock();
    while !state.threads.is_empty() {
        state = wait(&shared.all_ended, state, None);
    }
}

#[test]
fn without_any_thread_the_job_comes_back() {
    let none =
        |_: thread::Builder, _: Box<dyn FnOnce() + Send>| Err(io::ErrorKind::WouldBlock.into());
    for pool in [Pool::with_start(PoolConfig::default(), none), pool(0, FOREVER)] {
        for n in 0..3 {
            let (done, is_done) = mpsc::channel();
            let job = pool.submit(Box::new(move || done.send(n).unwrap()));
            job.expect_err("accepted without a thread")();
            assert_eq!(is_done.recv(), Ok(n));
        }
        assert_eq!((pool.threads(), pool.queued()), (0, 0));
        assert_eq!(pool.shutdown(None), 0);
    }
}

#[test]
fn a_thread_that_cannot_be_started_leaves_the_job_to_the_others() {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let pool = Pool::with_start(PoolConfig::default(), |builder, main| {
        if STARTED.fetch_add(1, SeqCst) > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(builder.spawn(main)?.thread().id())
    });
    let busy = occupy(&pool);
    let (done, is_done) = mpsc::channel();
    submit(&pool, move || done.send(()).unwrap());
    assert_eq!((pool.threads(), pool.queued()), (1, 1));
    assert_eq!(STARTED.load(SeqCst), 2, "a second thread was tried");
    drop(busy);
    is_done.recv().unwrap();
    assert_eq!(pool.shutdown(None), 0);
}

#[test]
fn many_submitters_lose_and_double_nothing() {
    const SUBMITTERS: usize = 8;
    const JOBS: usize = 12_500;
    // A keep-alive of nothing: threads end and start all the time.
    for keep_alive in [FOREVER, Duration::ZERO] {
        let pool = pool(4, keep_alive);
        let runs: Arc<[AtomicUsize]> =
            (0..SUBMITTERS * JOBS).map(|_| AtomicUsize::new(0)).collect();
        thread::scope(|scope| {
            for first in 0..SUBMITTERS {
                let (pool, runs) = (&pool, &runs);
                scope.spawn(move || {
                    for n in 0..JOBS {
                        let runs = Arc::clone(runs);
                        submit(pool, move || {
                            runs[first * JOBS + n].fetch_add(1, SeqCst);
                        });
                    }
                });
            }
        });
        assert_eq!(pool.shutdown(None), 0);
        assert!(runs.iter().all(|runs| runs.load(SeqCst) == 1));
        assert_eq!((pool.threads(), pool.queued(), pool.idle()), (0, 0, 0));
    }
}
