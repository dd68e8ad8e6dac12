//! A select of sockets allocates nothing, on a fiber and on a plain thread.

#[path = "../../strands-sched/tests/counting/mod.rs"]
mod counting;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use counting::allocations;
use strands_reactor::{Backend, Direction, Source, driver_factory};
use strands_sched::{Builder, Operation, Order, SpawnOptions, select};

#[test]
fn a_select_of_sockets_allocates_nothing() {
    let wait_in_vain = || {
        let sources =
            [(); 40].map(|()| Source::new(TcpListener::bind("127.0.0.1:0").unwrap().into()));
        let ready = sources.each_ref().map(|source| source.select_ready(Direction::Read));
        let operations = ready.each_ref().map(|ready| ready as &dyn Operation);
        let wait = |milliseconds| {
            let soon = Instant::now() + Duration::from_millis(milliseconds);
            assert_eq!(select(&operations, Order::Fair, Some(soon)), None);
        };
        // Here they are registered, and lists grow: long enough to try all of them, and still to wait.
        wait(100);
        assert_eq!(allocations(|| (0..10).for_each(|_| wait(1))), 0);
    };
    wait_in_vain();
    let runtime = Builder::new().workers(1).driver(driver_factory(Backend::Auto)).build().unwrap();
    runtime.run(SpawnOptions::default(), wait_in_vain).unwrap();
    runtime.shutdown(None).unwrap();
}
