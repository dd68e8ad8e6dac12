//! Memory that the kernel refuses: mappings, guards, limits, locked memory.
//!
//! What must hold: whoever asks for one fiber too many is told so, by an error that names the likely
//! limit; a fiber that was accepted runs, later if need be; a guard that cannot be made one way is made
//! the other way, and `describe` says so.
#![cfg(all(target_os = "linux", not(miri)))]

mod faults_support;
mod thread_common;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use faults_support::{
    EMULATED, NO_LOCK, NO_MADVISE_GUARD, NO_SECCOMP, NOT_ROOT, OVERCOMMITS, Rule, Supervisor,
    alone, become_nobody, forbid, in_child, is_emulated, is_root, limit, skip, stack_calls,
};
use libc::{EINVAL, ENOMEM, ENOSYS, EPERM};
use rustix::process::Resource;
use strands::runtime::GuardKind;
use strands::sync::{Condvar, Mutex};
use strands_fiber::stack::{PoolConfig, StackPool, guard_kind};
use strands_reactor::{Backend, driver_factory};
use strands_sched::{Builder, Join, Runtime, SpawnOptions, spawn_on};

/// Between two spawns, so that the workers keep up: who spawns faster than they start fibers is not
/// refused.
const PACE: Duration = Duration::from_micros(50);

const KIB: usize = 1024;
const MIB: u64 = 1024 * 1024;

fn builder(workers: usize) -> Builder {
    Builder::new().workers(workers).driver(driver_factory(Backend::Auto))
}

fn runtime(workers: usize) -> Runtime {
    builder(workers).build().unwrap()
}

/// Where fibers wait until they may go on.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        drop(self.opened.wait_while(self.is_open.lock().unwrap(), |is_open| !*is_open).unwrap());
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// Asks for a fiber that waits at the gate and then has the value `number`.
fn ask(
    runtime: &Runtime,
    gate: &Arc<Gate>,
    number: usize,
    stack_bytes: usize,
) -> io::Result<Join<usize>> {
    let options = SpawnOptions { stack_bytes: Some(stack_bytes), ..SpawnOptions::default() };
    let gate = gate.clone();
    spawn_on(runtime.shared(), options, move || {
        strands::yield_now();
        gate.pass();
        number
    })
}

/// Fibers that were accepted, with the values that they shall have.
#[derive(Default)]
struct Accepted(Vec<(usize, Join<usize>)>);

impl Accepted {
    /// Asks for as many fibers of these sizes. Returns what the refused were told.
    fn ask_for(
        &mut self,
        count: usize,
        sizes: &[usize],
        runtime: &Runtime,
        gate: &Arc<Gate>,
    ) -> Vec<io::Error> {
        let mut refused = Vec::new();
        for number in 0..count {
            match ask(runtime, gate, number, sizes[number % sizes.len()]) {
                Ok(fiber) => self.0.push((number, fiber)),
                Err(error) => refused.push(error),
            }
        }
        refused
    }

    /// Asks until one is refused, and returns what it was told.
    fn ask_until_refused(
        &mut self,
        sizes: &[usize],
        runtime: &Runtime,
        gate: &Arc<Gate>,
    ) -> io::Error {
        loop {
            if let Some(error) = self.ask_for(1, sizes, runtime, gate).pop() {
                return error;
            }
            thread::sleep(PACE);
        }
    }

    fn join(self) {
        for (number, fiber) in self.0 {
            assert_eq!(fiber.join().unwrap(), number);
        }
    }
}

#[track_caller]
fn is_out_of_memory(error: &io::Error) {
    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
    let text = error.to_string();
    assert!(text.contains("Likely cause") || text.contains("max_map_count"), "{text}");
}

/// Spawns work again.
fn works(runtime: &Runtime) {
    let gate = Arc::new(Gate::default());
    gate.open();
    let mut accepted = Accepted::default();
    let refused = accepted.ask_for(50, &[64 * KIB, 16 * KIB], runtime, &gate);
    assert!(refused.is_empty(), "{:?}", refused[0]);
    accepted.join();
}

/// Odd numbers of pages, so that each guard has two: std guards its threads' signal stacks by one,
/// and aborts if it cannot.
fn sizes() -> [usize; 4] {
    [5, 17, 65, 257].map(|pages| pages * rustix::param::page_size())
}

/// For each n until the program makes fewer of these calls: asks a new runtime for fibers, with the
/// nth call failing, and with all from the nth on failing until the asking is done. Those accepted
/// shall run, and `check` is called when they have.
fn with_each_failing(
    test: &str,
    rules: &[Rule],
    errnos: &[i32],
    count: usize,
    start: impl Fn() -> Runtime,
    check: impl Fn(&Runtime, &Supervisor),
) {
    let Ok(supervisor) = Supervisor::of(rules) else { return skip(test, NO_SECCOMP) };
    for n in 1.. {
        let mut failed = 0;
        for (last, errno) in errnos.iter().flat_map(|&errno| [(n, errno), (u64::MAX, errno)]) {
            let runtime = start();
            supervisor.fail(n..=last, errno);
            let gate = Arc::new(Gate::default());
            let mut accepted = Accepted::default();
            for _ in 0..count {
                let refused = accepted.ask_for(sizes().len(), &sizes(), &runtime, &gate);
                refused.iter().for_each(is_out_of_memory);
                thread::sleep(PACE);
            }
            // If one call failed, it is made again, and nobody goes on before all have a stack.
            while last == n && runtime.live_fibers().iter().sum::<usize>() < accepted.0.len() {
                thread::yield_now();
            }
            supervisor.stop();
            failed += supervisor.failed();
            gate.open();
            accepted.join();
            check(&runtime, supervisor);
            works(&runtime);
            runtime.shutdown(None).unwrap();
        }
        if failed == 0 {
            assert!(n > sizes().len() as u64, "the program makes no such call");
            return;
        }
    }
}

#[test]
fn while_mapping_fails_accepted_fibers_wait_and_others_are_refused() {
    const TEST: &str = "while_mapping_fails_accepted_fibers_wait_and_others_are_refused";
    in_child(TEST, &["1", "2"], |workers| {
        let start = || runtime(workers.parse().unwrap());
        with_each_failing(TEST, &[stack_calls::map()], &[ENOMEM], 15, start, |_, _| {});
    });
}

#[test]
fn a_fiber_without_a_stack_takes_the_next_that_is_released() {
    const TEST: &str = "a_fiber_without_a_stack_takes_the_next_that_is_released";
    in_child(TEST, &["1", "2"], |workers| {
        let Ok(supervisor) = Supervisor::of(&[stack_calls::map()]) else {
            return skip(TEST, NO_SECCOMP);
        };
        for errno in [ENOMEM, libc::EAGAIN, EPERM] {
            let runtime = runtime(workers.parse().unwrap());
            let gate = Arc::new(Gate::default());
            let mut accepted = Accepted::default();
            // One slab of stacks can be had.
            supervisor.fail(2.., errno);
            let error = accepted.ask_until_refused(&[64 * KIB], &runtime, &gate);
            assert_eq!(error.kind(), ErrorKind::OutOfMemory);
            let text = error.to_string();
            assert!(text.contains("Likely cause"), "{text}");
            assert_eq!(text.contains("filter"), errno == EPERM, "{text}");
            gate.open();
            accepted.join();
            assert!(supervisor.seen() >= 2);
            // All that without another mapping. Now there is room again.
            supervisor.stop();
            works(&runtime);
            runtime.shutdown(None).unwrap();
        }
    });
}

#[test]
fn without_any_stack_the_fibers_are_named_and_a_shutdown_ends() {
    const TEST: &str = "without_any_stack_the_fibers_are_named_and_a_shutdown_ends";
    let errors = in_child(TEST, &["1", "2"], |workers| {
        let Ok(supervisor) = Supervisor::of(&[stack_calls::map()]) else {
            return skip(TEST, NO_SECCOMP);
        };
        let runtime = runtime(workers.parse().unwrap());
        supervisor.fail(1.., ENOMEM);
        let dropped = Arc::new(());
        let its = dropped.clone();
        let fiber = spawn_on(runtime.shared(), SpawnOptions::default(), move || drop(its)).unwrap();
        let gate = Arc::new(Gate::default());
        let mut accepted = Accepted::default();
        accepted.ask_until_refused(&sizes(), &runtime, &gate);
        runtime.shutdown(None).unwrap();
        assert!(fiber.join().is_err(), "it was dropped");
        assert_eq!(Arc::strong_count(&dropped), 1);
    });
    for text in errors.iter().filter(|text| !text.contains("SKIPPED")) {
        for part in [" for a stack and no fiber holds one", "spawned at", "Likely cause"] {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
    }
}

#[test]
fn a_fiber_that_never_waits_does_not_keep_others_from_their_stacks() {
    const TEST: &str = "a_fiber_that_never_waits_does_not_keep_others_from_their_stacks";
    alone(TEST, || {
        let Ok(supervisor) = Supervisor::of(&[stack_calls::map()]) else {
            return skip(TEST, NO_SECCOMP);
        };
        let runtime = runtime(1);
        let (gate, open) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
        open.open();
        let busy = {
            let (gate, options) = (gate.clone(), SpawnOptions::default());
            spawn_on(runtime.shared(), options, move || {
                while !*gate.is_open.lock().unwrap() {
                    strands::yield_now();
                }
            })
        };
        while runtime.live_fibers() != [1] {
            thread::yield_now();
        }
        supervisor.fail(1.., ENOMEM);
        let mut accepted = Accepted::default();
        accepted.ask_until_refused(&[16 * KIB], &runtime, &open);
        // When all of them have been refused a stack, memory comes back, and no fiber has ended.
        let all = format!(", {} fiber", accepted.0.len());
        while !runtime.describe().contains(&all) {
            thread::yield_now();
        }
        supervisor.stop();
        accepted.join();
        gate.open();
        busy.unwrap().join().unwrap();
        runtime.shutdown(None).unwrap();
    });
}

#[test]
fn a_stack_that_can_never_be_had_is_refused_at_once() {
    alone("a_stack_that_can_never_be_had_is_refused_at_once", || {
        let runtime = runtime(1);
        let gate = Arc::new(Gate::default());
        for (size, kind) in [
            (usize::MAX, ErrorKind::InvalidInput),
            (usize::MAX / 2, ErrorKind::InvalidInput),
            (isize::MAX as usize / 4, ErrorKind::OutOfMemory),
        ] {
            let error = ask(&runtime, &gate, 0, size).map(drop).unwrap_err();
            assert_eq!(error.kind(), kind, "{size}: {error}");
        }
        works(&runtime);
    });
}

#[test]
fn a_guard_that_madvise_refuses_is_made_by_mprotect() {
    const TEST: &str = "a_guard_that_madvise_refuses_is_made_by_mprotect";
    alone(TEST, || {
        if guard_kind().unwrap() != GuardKind::Madvise {
            return skip(TEST, NO_MADVISE_GUARD);
        }
        let rules = [stack_calls::guard_by_madvise()];
        let (errnos, start) = ([EINVAL, ENOMEM, EPERM], || runtime(2));
        with_each_failing(TEST, &rules, &errnos, 3, start, |runtime, supervisor| {
            let text = runtime.describe();
            let told = text.contains("Madvise, but Mprotect for the");
            assert!(told || supervisor.failed() == 0, "{text}");
        });
    });
}

#[test]
fn a_guard_that_mprotect_refuses_is_tried_again() {
    const TEST: &str = "a_guard_that_mprotect_refuses_is_tried_again";
    alone(TEST, || {
        let rules = [stack_calls::guard_by_mprotect()];
        let start = || builder(2).guard(GuardKind::Mprotect).build().unwrap();
        with_each_failing(TEST, &rules, &[ENOMEM], 3, start, |_, _| {});
    });
}

#[test]
fn the_trial_of_guards_never_keeps_a_runtime_from_starting() {
    const TEST: &str = "the_trial_of_guards_never_keeps_a_runtime_from_starting";
    let cases = [EINVAL, ENOMEM, EPERM, ENOSYS, 0].map(|errno| errno.to_string());
    let mut cases: Vec<_> = cases.iter().map(String::as_str).collect();
    cases.push("no page to try on");
    in_child(TEST, &cases, |case| {
        let installed = match case.parse() {
            Ok(errno) => forbid(&[stack_calls::guard_by_madvise().answer(errno)]),
            Err(_) => Supervisor::of(&[stack_calls::map()])
                .map(|supervisor| supervisor.fail(1..=1, ENOMEM)),
        };
        if installed.is_err() {
            return skip(TEST, NO_SECCOMP);
        }
        let runtime = runtime(2);
        let text = runtime.describe();
        assert!(text.contains("guard: Mprotect (Madvise"), "{text}");
        works(&runtime);
        let error = builder(1).guard(GuardKind::Madvise).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    });
}

/// Each n: memory that is to be given back and is not, which harms nobody.
#[test]
fn giving_memory_back_may_fail() {
    const TEST: &str = "giving_memory_back_may_fail";
    alone(TEST, || {
        let rules = [stack_calls::discard(), stack_calls::unmap(), stack_calls::no_huge_pages()];
        let Ok(supervisor) = Supervisor::of(&rules) else { return skip(TEST, NO_SECCOMP) };
        for n in 1.. {
            for last in [n, u64::MAX] {
                supervisor.fail(n..=last, ENOMEM);
                let config = PoolConfig { warm_max: 4, ..PoolConfig::default() };
                let mut pool = StackPool::new(config).unwrap();
                for _ in 0..2 {
                    let stacks: Vec<_> = (0..8)
                        .flat_map(|_| [16 * KIB, 20 * KIB])
                        .map(|size| {
                            let stack = pool.take(size).unwrap();
                            // SAFETY: the stack is ours.
                            unsafe { stack.bottom().write_bytes(1, stack.size()) }
                            stack
                        })
                        .collect();
                    stacks.into_iter().for_each(|stack| pool.give(stack));
                    pool.trim();
                    pool.trim();
                    assert_eq!((pool.warm(), pool.cold()), (0, 0));
                }
                drop(pool);
            }
            if supervisor.seen() < n {
                return;
            }
        }
    });
}

fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

#[test]
fn limits_on_memory_are_errors_that_name_them() {
    const TEST: &str = "limits_on_memory_are_errors_that_name_them";
    in_child(TEST, &["RLIMIT_AS", "RLIMIT_DATA"], |case| {
        if is_emulated() {
            return skip(TEST, EMULATED);
        }
        let (runtime, gate) = (runtime(2), Arc::new(Gate::default()));
        works(&runtime);
        match case {
            "RLIMIT_AS" => limit(Resource::As, address_space() + 64 * MIB),
            _ => limit(Resource::Data, address_space() + 64 * MIB),
        }
        for round in 0..3 {
            let gate = Arc::new(Gate::default());
            let mut accepted = Accepted::default();
            let sizes = [256 * KIB, 64 * KIB];
            let error = accepted.ask_until_refused(&sizes, &runtime, &gate);
            is_out_of_memory(&error);
            assert!(error.to_string().contains(case), "{error}");
            assert!(round > 0 || accepted.0.len() > 100, "{} fit", accepted.0.len());
            // There is room for other things.
            drop(vec![1_u8; 1_000_000]);
            gate.open();
            accepted.join();
            works(&runtime);
        }
        gate.open();
        runtime.shutdown(None).unwrap();
    });
}

/// `cargo xtask overcommit` makes the kernel do so.
#[test]
fn strict_accounting_is_an_error_that_names_it() {
    const TEST: &str = "strict_accounting_is_an_error_that_names_it";
    alone(TEST, || {
        let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap();
        if mode.trim() != "2" {
            return skip(TEST, OVERCOMMITS);
        }
        let runtime = runtime(2);
        for _ in 0..3 {
            let gate = Arc::new(Gate::default());
            let mut accepted = Accepted::default();
            let error = accepted.ask_until_refused(&[MIB as usize], &runtime, &gate);
            is_out_of_memory(&error);
            assert!(error.to_string().contains("vm.overcommit_memory"), "{error}");
            assert!(accepted.0.len() > 100, "{} fit", accepted.0.len());
            gate.open();
            accepted.join();
            works(&runtime);
        }
        runtime.shutdown(None).unwrap();
    });
}

fn lock_all(flags: i32) -> bool {
    // SAFETY: locking memory is always sound.
    unsafe { libc::mlockall(flags) == 0 }
}

#[test]
fn locked_memory_before_and_after_the_start() {
    const TEST: &str = "locked_memory_before_and_after_the_start";
    in_child(TEST, &["before", "after"], |case| {
        if is_emulated() {
            return skip(TEST, EMULATED);
        }
        let both = libc::MCL_CURRENT | libc::MCL_FUTURE;
        if case == "before" && !lock_all(both) {
            return skip(TEST, NO_LOCK);
        }
        let runtime = runtime(2);
        works(&runtime);
        if case == "after" && !lock_all(both) {
            return skip(TEST, NO_LOCK);
        }
        let gate = Arc::new(Gate::default());
        let mut accepted = Accepted::default();
        assert!(accepted.ask_for(40, &sizes(), &runtime, &gate).is_empty());
        gate.open();
        accepted.join();
        let text = runtime.describe();
        assert!(text.contains("Mprotect"), "{text}");
        runtime.shutdown(None).unwrap();
    });
}

#[test]
fn a_limit_on_locked_memory_is_an_error_that_names_it() {
    const TEST: &str = "a_limit_on_locked_memory_is_an_error_that_names_it";
    alone(TEST, || {
        if is_emulated() {
            return skip(TEST, EMULATED);
        }
        if !is_root() {
            return skip(TEST, NOT_ROOT);
        }
        // Whoever may lock memory without privileges is bound by the limit.
        become_nobody();
        let runtime = runtime(1);
        if !lock_all(libc::MCL_FUTURE) {
            return skip(TEST, NO_LOCK);
        }
        let gate = Arc::new(Gate::default());
        let mut accepted = Accepted::default();
        let error = accepted.ask_until_refused(&[64 * KIB], &runtime, &gate);
        is_out_of_memory(&error);
        assert!(error.to_string().contains("ulimit -l"), "{error}");
        gate.open();
        accepted.join();
        works(&runtime);
        runtime.shutdown(None).unwrap();
    });
}

/// With vm.overcommit_memory 0 or 1 a stack that is not touched is charged to nobody.
#[test]
fn stacks_are_mapped_without_reserving_memory() {
    if is_emulated() {
        return skip("stacks_are_mapped_without_reserving_memory", EMULATED);
    }
    runtime(1)
        .run(SpawnOptions::default(), || {
            let local = 0_u8;
            let address = std::hint::black_box(&raw const local).addr();
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut here = false;
            let flags = maps.lines().find_map(|line| {
                let range = line.split(' ').next().and_then(|word| word.split_once('-'));
                let number = |text| usize::from_str_radix(text, 16).ok();
                if let Some((Some(start), Some(end))) = range.map(|(a, b)| (number(a), number(b))) {
                    here = (start..end).contains(&address);
                }
                line.strip_prefix("VmFlags:").filter(|_| here)
            });
            let flags = flags.expect("a fiber's stack is mapped");
            assert!(flags.split(' ').any(|flag| flag == "nr"), "{flags}");
        })
        .unwrap();
}

/// Each case: so many MiB are left when a runtime starts.
#[test]
fn a_runtime_starts_or_says_why_not_however_little_memory_is_left() {
    let cases: Vec<_> = (1..=20).map(|mib| mib.to_string()).collect();
    let cases: Vec<_> = cases.iter().map(String::as_str).collect();
    const TEST: &str = "a_runtime_starts_or_says_why_not_however_little_memory_is_left";
    if is_emulated() {
        return skip(TEST, EMULATED);
    }
    in_child(TEST, &cases, |case| {
        limit(Resource::As, address_space() + MIB * case.parse::<u64>().unwrap());
        match builder(3).build() {
            Ok(runtime) => {
                let gate = Arc::new(Gate::default());
                gate.open();
                let mut accepted = Accepted::default();
                accepted
                    .ask_for(50, &[64 * KIB], &runtime, &gate)
                    .iter()
                    .for_each(is_out_of_memory);
                limit(Resource::As, u64::MAX);
                accepted.join();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                assert!(error.to_string().contains("ulimit -v"), "{error}");
            }
        }
    });
}
