//! Barrier.

mirrored! {
    fn has_one_leader_each_time() {
        use imp::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        use imp::sync::Barrier;
        use imp::thread;
        let (barrier, arrived, leaders) = (Barrier::new(5), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    for round in 1..=20 {
                        arrived.fetch_add(1, SeqCst);
                        if barrier.wait().is_leader() {
                            leaders.fetch_add(1, SeqCst);
                        }
                        assert!(arrived.load(SeqCst) >= round * 5, "somebody was let through early");
                        barrier.wait();
                    }
                });
            }
        });
        assert_eq!(leaders.into_inner(), 20);
    }

    fn of_none_or_one_lets_everybody_through() {
        use imp::sync::Barrier;
        static ONE: Barrier = Barrier::new(1);
        assert!(ONE.wait().is_leader());
        let none = Barrier::new(0);
        assert!(none.wait().is_leader() && none.wait().is_leader());
        assert_eq!(format!("{none:?}"), "Barrier { .. }");
        assert_eq!(format!("{:?}", none.wait()), "BarrierWaitResult { is_leader: true }");
    }

    /// That it is `RefUnwindSafe` too is not so of std's on every system.
    fn may_be_used_across_unwinding() {
        use std::panic::UnwindSafe;
        fn check<T: Send + Sync + Unpin>() {}
        fn safe<T: UnwindSafe>() {}
        check::<imp::sync::Barrier>();
        check::<imp::sync::BarrierWaitResult>();
        safe::<imp::sync::BarrierWaitResult>();
    }
}
