//! Time: `Instant` beside std's, deadlines and intervals, by fibers and plain threads.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use strands::sync::{Notify, Semaphore, WaitGroup};
use strands::time::{Deadline, Duration, Instant, MissedTickBehavior, interval_at};

/// The same program for std's module and strands'.
macro_rules! of_both {
    ($($time:ident: $path:path;)+) => {$(
        mod $time {
            use std::collections::HashSet;
            use std::fmt::Debug;
            use std::hash::Hash;
            use std::ops::{Add, AddAssign, Sub, SubAssign};
            use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};
            use $path::{
                Duration, Instant, SystemTime, SystemTimeError, TryFromFloatSecsError, UNIX_EPOCH,
            };

            #[test]
            fn has_the_traits() {
                fn check<T>()
                where
                    T: Copy + Ord + Hash + Debug + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe,
                    T: Add<Duration, Output = T> + AddAssign<Duration>,
                    T: Sub<Duration, Output = T> + SubAssign<Duration> + Sub<T, Output = Duration>,
                {
                }
                check::<Instant>();
                assert!(format!("{:?}", Instant::now()).starts_with("Instant {"));
            }

            #[test]
            fn computes() {
                let (second, now) = (Duration::from_secs(1), Instant::now());
                let later = now + second;
                assert_eq!((later - now, now - later), (second, Duration::ZERO));
                assert_eq!(later.duration_since(now), second);
                assert_eq!(now.duration_since(later), Duration::ZERO);
                assert_eq!(later.checked_duration_since(now), Some(second));
                assert_eq!(now.checked_duration_since(later), None);
                assert_eq!(later.saturating_duration_since(now), second);
                assert_eq!(now.saturating_duration_since(later), Duration::ZERO);
                assert_eq!(now.checked_add(second), Some(later));
                assert_eq!(now.checked_add(Duration::MAX), None);
                assert_eq!(later.checked_sub(second), Some(now));
                assert_eq!(now.checked_sub(Duration::MAX), None);
                assert_eq!(later - second, now);
                let mut instant = now;
                instant += second;
                assert_eq!(instant, later);
                instant -= second;
                assert_eq!(HashSet::from([now, instant, later]).len(), 2);
                assert!(now < later && now.max(later) == later);
                assert!(now.elapsed() <= now.elapsed());
                assert!(catch_unwind(|| now + Duration::MAX).is_err());
                assert!(catch_unwind(|| now - Duration::MAX).is_err());
            }

            #[test]
            fn has_the_rest() {
                let early = UNIX_EPOCH.duration_since(SystemTime::now());
                let error: SystemTimeError = early.unwrap_err();
                assert!(error.duration() > Duration::ZERO);
                let error: TryFromFloatSecsError = Duration::try_from_secs_f32(-1.0).unwrap_err();
                assert!(!error.to_string().is_empty());
            }
        }
    )+};
}

of_both! {
    of_std: std::time;
    of_strands: strands::time;
}

/// Runs `f` on a plain thread, and as a fiber.
fn everywhere(f: fn()) {
    f();
    strands::spawn(f).join().unwrap();
}

#[test]
fn waits_take_every_kind_of_deadline() {
    everywhere(|| {
        let semaphore = Semaphore::new(0);
        let now = Instant::now();
        assert!(semaphore.acquire_deadline(now).is_err());
        assert!(semaphore.acquire_deadline(std::time::Instant::from(now)).is_err());
        assert!(semaphore.acquire_deadline(Deadline::at(now)).is_err());
        assert!(!Notify::new().notified_deadline(Deadline::after(Duration::ZERO)));
        let group = WaitGroup::new();
        let other = group.clone();
        assert!(group.wait_deadline(Deadline::after(Duration::from_micros(100))).is_err());
        semaphore.add_permits(1);
        assert!(semaphore.acquire_deadline(Deadline::never()).is_ok());
        assert!(semaphore.acquire_deadline(None).is_ok());
        assert!(other.wait_deadline(Deadline::never()).is_ok());
    });
}

#[test]
fn deadlines_compare_by_time() {
    let now = Instant::now();
    let [early, late] = [now, now + Duration::from_secs(1)].map(Deadline::from);
    let never = Deadline::never();
    let mut all = [never, late, early];
    all.sort();
    assert_eq!(all, [early, late, never]);
    assert_eq!(never.min(early), early);
    assert_eq!(HashSet::from([early, Deadline::at(now), never]).len(), 2);
    assert_eq!(Deadline::from(std::time::Instant::from(now)), early);
    assert_eq!((late.instant(), never.instant()), (Some(now + Duration::from_secs(1)), None));
    assert!(!never.has_passed() && never.remaining().is_none());
}

/// Several waits in a row have one deadline, whatever each takes of it.
#[test]
fn several_waits_share_a_deadline() {
    everywhere(|| {
        let deadline = Deadline::after(Duration::from_millis(3));
        let (semaphore, notify) = (Semaphore::new(0), Notify::new());
        assert!(semaphore.acquire_deadline(deadline.min(Deadline::after(Duration::ZERO))).is_err());
        deadline.sleep();
        assert!(deadline.has_passed());
        assert!(!notify.notified_deadline(deadline), "no time is left");
        notify.notify_one();
        assert!(notify.notified_deadline(deadline), "what is there is taken");
    });
}

#[test]
fn ticks_are_in_step() {
    everywhere(|| {
        let period = Duration::from_millis(1);
        let start = Instant::now() + period;
        let mut interval = interval_at(start, period);
        for i in 0..5 {
            let due = interval.tick();
            assert_eq!(due, start + period * i);
            assert!(Instant::now() >= due);
        }
    });
}

#[test]
fn a_late_caller_skips() {
    everywhere(|| {
        let period = Duration::from_millis(10);
        // As if it had been made long ago.
        let start = Instant::now().checked_sub(period * 10 + period / 2).unwrap();
        let mut interval = interval_at(start, period);
        assert_eq!(interval.missed_tick_behavior(), MissedTickBehavior::Burst);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        assert_eq!(interval.missed_tick_behavior(), MissedTickBehavior::Skip);
        assert_eq!(interval.period(), period);
        assert_eq!(interval.tick(), start, "the first, late and at once");
        let next = interval.tick();
        assert!(next >= start + period * 11);
        assert_eq!((next - start).as_nanos() % period.as_nanos(), 0, "in the old step");
    });
}

/// Unwinding out of a tick uses none up.
#[test]
fn a_cancelled_tick_is_not_used_up() {
    let runtime = strands::Runtime::builder().workers(1).build().unwrap();
    let (started, starts) = strands::sync::mpsc::channel();
    let sleeper = runtime.spawn(move || {
        let hour = Duration::from_secs(3600);
        let mut hourly = interval_at(Instant::now() + hour, hour);
        let before = format!("{hourly:?}");
        started.send(()).unwrap();
        let cancelled = catch_unwind(AssertUnwindSafe(|| hourly.tick())).is_err();
        (cancelled, before, format!("{hourly:?}"))
    });
    starts.recv().unwrap();
    runtime.shutdown_timeout(Duration::MAX).unwrap();
    let (cancelled, before, after) = sleeper.join().unwrap();
    assert!(cancelled);
    assert_eq!(before, after);
}
