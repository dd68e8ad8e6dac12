//! Stacks and their pool, as seen from outside and by the kernel.

#![cfg(all(unix, not(miri)))]

mod child;

use std::fs;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Resource, Rlimit, setrlimit};
use strands_fiber::stack::{GuardKind, MIN_STACK_BYTES, PoolConfig, Stack, StackPool, guard_kind};

const DEFAULT: usize = 256 * 1024;

fn page() -> usize {
    // SAFETY: sysconf has no preconditions.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

fn address(stack: &Stack) -> usize {
    stack.bottom().as_ptr().addr()
}

fn pool(config: PoolConfig) -> StackPool {
    StackPool::new(config).unwrap()
}

/// The kinds of guard that this kernel has.
fn kinds() -> Vec<GuardKind> {
    let mut kinds = vec![GuardKind::Mprotect];
    let config = PoolConfig { guard: Some(GuardKind::Madvise), ..PoolConfig::default() };
    match StackPool::new(config) {
        Ok(_) => kinds.push(GuardKind::Madvise),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            child::skip("guards by madvise: this kernel lacks them");
        }
    }
    kinds
}

/// Whether the kernel can read the byte at `address`.
fn readable(address: usize) -> bool {
    let (_reader, writer) = io::pipe().unwrap();
    let pointer = std::ptr::with_exposed_provenance::<libc::c_void>(address);
    // SAFETY: the kernel checks the address.
    match unsafe { libc::write(writer.as_raw_fd(), pointer, 1) } {
        1 => true,
        _ => {
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
            false
        }
    }
}

fn touch(stack: &Stack) {
    let start = stack.bottom().as_ptr();
    for offset in (0..stack.size()).step_by(page()) {
        // SAFETY: the stack is ours, and offset is below its size.
        unsafe { start.add(offset).write_volatile(1) }
    }
    // SAFETY: the top lies in the stack, above its bottom.
    unsafe { stack.top().as_ptr().sub(1).write_volatile(1) }
}

/// How many pages of the range are in memory; None if part of it is not mapped.
fn resident_pages(start: usize, bytes: usize) -> Option<usize> {
    let mut pages = vec![0; bytes.div_ceil(page())];
    let pointer = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: `pages` has a byte for each page of the range, which the kernel checks.
    match unsafe { libc::mincore(pointer, bytes, pages.as_mut_ptr()) } {
        0 => Some(pages.iter().filter(|&&page| page & 1 == 1).count()),
        _ => None,
    }
}

fn resident(stack: (usize, usize)) -> Option<usize> {
    resident_pages(stack.0, stack.1)
}

fn place(stack: &Stack) -> (usize, usize) {
    (address(stack), stack.size())
}

fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn a_stack_has_the_size_asked_for_and_knows_its_addresses() {
    assert_eq!(mem::size_of::<Stack>(), 2 * mem::size_of::<usize>());
    for size in [0, 1, MIN_STACK_BYTES, MIN_STACK_BYTES + 1, DEFAULT, 8 << 20] {
        let stack = Stack::new(size).unwrap();
        let expected = size.max(MIN_STACK_BYTES).next_multiple_of(page());
        assert_eq!(stack.size(), expected);
        let (bottom, top) = (address(&stack), stack.top().as_ptr().addr());
        assert_eq!(bottom % page(), 0);
        assert_eq!(top % 16, 0);
        assert!(bottom + expected - 1024 < top && top <= bottom + expected);
        assert!(stack.contains(bottom) && stack.contains(bottom + expected - 1));
        assert!(!stack.contains(bottom - 1) && !stack.contains(bottom + expected));
        assert!(stack.guard_contains(bottom - 1) && stack.guard_contains(bottom - page()));
        assert!(!stack.guard_contains(bottom) && !stack.guard_contains(bottom - 2 * page() - 1));
        touch(&stack);
        thread::spawn(move || touch(&stack)).join().unwrap();
    }
}

#[test]
fn debug_forms_say_where_and_how_many() {
    let mut pool = pool(PoolConfig::default());
    let stack = pool.take(DEFAULT).unwrap();
    let text = format!("{stack:?}");
    assert!(text.starts_with("Stack { bottom: 0x"), "{text}");
    assert!(text.ends_with(&format!(", size: {DEFAULT} }}")), "{text}");
    pool.give(stack);
    assert_eq!(format!("{pool:?}"), "StackPool { warm: 1, cold: 0, .. }");
}

#[test]
fn sizes_that_cannot_be_are_errors() {
    for size in [usize::MAX, usize::MAX / 2, isize::MAX as usize - 1] {
        assert_eq!(Stack::new(size).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(Stack::new(isize::MAX as usize / 4).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    let mut pool = pool(PoolConfig::default());
    assert_eq!(pool.take(usize::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let error = pool.take(isize::MAX as usize / 4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    if cfg!(all(unix, target_pointer_width = "64")) {
        assert!(error.to_string().contains("as much as a process can address"), "{error}");
    }
    let config = PoolConfig { stack_bytes: usize::MAX, ..PoolConfig::default() };
    assert_eq!(StackPool::new(config).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn neighbours_lie_an_odd_number_of_pages_apart_in_different_colours() {
    for size in [MIN_STACK_BYTES, 5 * page(), 64 << 10, DEFAULT, DEFAULT + page()] {
        let mut pool = pool(PoolConfig::default());
        // The first slab has 16 slots (its bytes allow that for these sizes).
        let stacks: Vec<_> = (0..16).map(|_| pool.take(size).unwrap()).collect();
        let stride = address(&stacks[1]) - address(&stacks[0]);
        assert_eq!(stride / page() % 2, 1, "stride of {size}");
        let mut colours: Vec<_> =
            stacks.iter().map(|s| address(s) + s.size() - s.top().as_ptr().addr()).collect();
        colours.sort_unstable();
        assert_eq!(colours, (0..16).map(|i| i * 64).collect::<Vec<_>>());
    }
}

#[test]
fn guards_of_each_kind_fault_before_and_after_trimming() {
    for kind in kinds() {
        let config = PoolConfig { guard: Some(kind), ..PoolConfig::default() };
        let mut pool = pool(config);
        let stacks: Vec<_> = (0..20).map(|_| pool.take(DEFAULT).unwrap()).collect();
        let all_guarded = |stacks: &[Stack]| {
            for stack in stacks {
                touch(stack);
                let bottom = address(stack);
                assert!(readable(bottom), "{kind:?}");
                assert!(!readable(bottom - 1), "{kind:?}");
                assert!(!readable(bottom - page()), "{kind:?}");
            }
        };
        all_guarded(&stacks);
        // One stays out, so that the slabs are kept.
        let mut stacks = stacks.into_iter();
        let kept = [stacks.next().unwrap(), stacks.next_back().unwrap()];
        let places: Vec<_> = stacks.as_slice().iter().map(place).collect();
        stacks.for_each(|stack| pool.give(stack));
        pool.trim();
        pool.trim();
        assert_eq!((pool.warm(), pool.cold()), (0, 18));
        for place in places {
            assert_eq!(resident(place), Some(0), "discarded");
        }
        let again: Vec<_> = (0..18).map(|_| pool.take(DEFAULT).unwrap()).collect();
        assert_eq!(pool.cold(), 0);
        all_guarded(&again);
        all_guarded(&kept);
    }
}

#[test]
fn the_guard_is_chosen_by_trial() {
    const TEST: &str = "the_guard_is_chosen_by_trial";
    if child::is(TEST) {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split('.').map(|part| part.parse().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version >= (6, 13) {
            assert_eq!(guard_kind().unwrap(), GuardKind::Madvise);
        } else {
            assert_eq!(guard_kind().unwrap(), GuardKind::Mprotect);
            child::skip("guards by madvise: this kernel is older than 6.13");
        }
        let stack = Stack::new(DEFAULT).unwrap();
        assert!(!readable(address(&stack) - 1));
        return;
    }
    child::pass(TEST, &[]);
}

/// Makes the kernel answer `madvise(.., MADV_GUARD_INSTALL)` with `errno`, and do nothing.
#[cfg(all(target_os = "linux", target_endian = "little"))]
fn refuse_guards(errno: u32) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const UNLESS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    // The system call's number is at 0, its third argument at 32 in what the filter sees.
    let mut steps = [
        step(LOAD, 0, 0),
        step(UNLESS_EQUAL, libc::SYS_madvise as u32, 3),
        step(LOAD, 32, 0),
        step(UNLESS_EQUAL, 102, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | errno, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program is valid during the calls, and lets all else pass.
    let result = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
#[cfg(all(target_os = "linux", target_endian = "little"))]
fn a_kernel_that_refuses_or_ignores_guards_gets_mprotect() {
    const TEST: &str = "a_kernel_that_refuses_or_ignores_guards_gets_mprotect";
    if child::is(TEST) {
        let errno = std::env::var("ANSWER").unwrap().parse().unwrap();
        if let Err(error) = refuse_guards(errno) {
            return child::skip(&format!("kernels without guards: no seccomp here ({error})"));
        }
        if std::env::var_os("STRANDS_STACK_GUARD").is_some() {
            let error = guard_kind().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(error.to_string().contains("STRANDS_STACK_GUARD"), "{error}");
            return;
        }
        assert_eq!(guard_kind().unwrap(), GuardKind::Mprotect);
        let config = PoolConfig { guard: Some(GuardKind::Madvise), ..PoolConfig::default() };
        let error = StackPool::new(config).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("PoolConfig::guard"), "{error}");
        assert!(!readable(address(&Stack::new(DEFAULT).unwrap()) - 1));
        return;
    }
    // Success without effect is what qemu 7.2 answers.
    for answer in [libc::EINVAL.to_string(), "0".into()] {
        child::pass(TEST, &[("ANSWER", &answer)]);
        child::pass(TEST, &[("ANSWER", &answer), ("STRANDS_STACK_GUARD", "madvise")]);
    }
}

#[test]
fn the_variable_forces_a_guard() {
    const TEST: &str = "the_variable_forces_a_guard";
    if child::is(TEST) {
        let before = mappings();
        match std::env::var("STRANDS_STACK_GUARD").unwrap().as_str() {
            "mprotect" => {
                assert_eq!(guard_kind().unwrap(), GuardKind::Mprotect);
                let mut pool = pool(PoolConfig::default());
                let stacks: Vec<_> = (0..10).map(|_| pool.take(DEFAULT).unwrap()).collect();
                assert!(mappings() >= before + 2 * 10);
                assert!(!readable(address(&stacks[9]) - 1));
            }
            "madvise" => match guard_kind() {
                Ok(kind) => {
                    assert_eq!(kind, GuardKind::Madvise);
                    let mut pool = pool(PoolConfig::default());
                    let stacks: Vec<_> = (0..10).map(|_| pool.take(DEFAULT).unwrap()).collect();
                    assert!(mappings() < before + 10);
                    assert!(!readable(address(&stacks[9]) - 1));
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
                    assert!(error.to_string().contains("STRANDS_STACK_GUARD"), "{error}");
                    child::skip("guards by madvise: this kernel lacks them");
                }
            },
            unknown => {
                for error in [
                    guard_kind().unwrap_err(),
                    Stack::new(DEFAULT).unwrap_err(),
                    StackPool::new(PoolConfig::default()).unwrap_err(),
                ] {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
                    let message = error.to_string();
                    assert!(message.contains("STRANDS_STACK_GUARD") && message.contains(unknown));
                }
            }
        }
        return;
    }
    for value in ["mprotect", "madvise", "granite"] {
        child::pass(TEST, &[("STRANDS_STACK_GUARD", value)]);
    }
}

#[test]
fn locked_memory_gets_its_guards_by_mprotect() {
    const TEST: &str = "locked_memory_gets_its_guards_by_mprotect";
    if child::is(TEST) {
        guard_kind().unwrap(); // Found out before memory is locked.
        let mut pool = pool(PoolConfig::default());
        // SAFETY: locking memory is always sound.
        if unsafe { libc::mlockall(libc::MCL_FUTURE) } != 0 {
            return child::skip("locked memory: mlockall is not permitted");
        }
        let stack = pool.take(DEFAULT).unwrap();
        touch(&stack);
        assert!(!readable(address(&stack) - 1));
        return;
    }
    child::pass(TEST, &[]);
}

#[test]
fn a_dropped_stack_gives_memory_back_and_the_last_one_its_addresses() {
    const TEST: &str = "a_dropped_stack_gives_memory_back_and_the_last_one_its_addresses";
    if child::is(TEST) {
        let mut pool = pool(PoolConfig::default());
        let stacks: Vec<_> = (0..16).map(|_| pool.take(DEFAULT).unwrap()).collect();
        drop(pool);
        let places: Vec<_> = stacks.iter().map(place).collect();
        stacks.iter().for_each(touch);
        let mut left = stacks.len();
        for (stack, &place) in stacks.into_iter().zip(&places) {
            assert_eq!(resident(place), Some(DEFAULT / page()));
            drop(stack);
            left -= 1;
            let after = if left > 0 { Some(0) } else { None };
            assert_eq!(resident(place), after);
        }
        assert!(places.iter().all(|&place| resident(place).is_none()));

        let single = Stack::new(DEFAULT).unwrap();
        let leaked = Stack::new(DEFAULT).unwrap();
        let places = [place(&single), place(&leaked)];
        drop(single);
        mem::forget(leaked);
        assert_eq!(places.map(resident), [None, Some(0)]);
        return;
    }
    child::pass(TEST, &[]);
}

#[test]
fn the_pool_hands_out_the_last_stack_given() {
    let mut pool = pool(PoolConfig::default());
    let [a, b, c] = [(); 3].map(|()| pool.take(DEFAULT).unwrap());
    let [at_a, at_b, at_c] = [&a, &b, &c].map(address);
    pool.give(b);
    pool.give(c);
    pool.give(a);
    assert_eq!((pool.warm(), pool.cold()), (3, 0));
    let again = [(); 3].map(|()| pool.take(DEFAULT).unwrap());
    assert_eq!(again.each_ref().map(address), [at_a, at_c, at_b]);
    assert_eq!(pool.warm(), 0);
}

#[test]
fn the_pool_keeps_sizes_apart() {
    let mut pool = pool(PoolConfig::default());
    let sizes = [DEFAULT, MIN_STACK_BYTES, 1 << 20, 100 << 20, 70_001];
    let stacks: Vec<_> = sizes.iter().map(|&size| pool.take(size).unwrap()).collect();
    let places: Vec<_> = stacks.iter().map(place).collect();
    stacks.into_iter().for_each(|stack| pool.give(stack));
    assert_eq!(pool.warm(), sizes.len());
    // A size that rounds to the same is the same.
    assert_eq!(place(&pool.take(70_000).unwrap()), places[4]);
    assert_eq!(place(&pool.take(1).unwrap()), places[1]);
    assert_eq!(place(&pool.take(DEFAULT - 1).unwrap()), places[0]);
    assert_eq!(place(&pool.take(100 << 20).unwrap()), places[3]);
    assert_eq!(place(&pool.take(1 << 20).unwrap()), places[2]);
    // A stack from elsewhere is as good as the pool's own.
    let foreign = Stack::new(3 << 20).unwrap();
    let at = address(&foreign);
    pool.give(foreign);
    assert_eq!(address(&pool.take(3 << 20).unwrap()), at);
}

#[test]
fn beyond_the_bound_the_oldest_is_discarded_at_once() {
    for size in [DEFAULT, 1 << 20] {
        let mut pool = pool(PoolConfig { warm_max: 4, ..PoolConfig::default() });
        let stacks: Vec<_> = (0..5).map(|_| pool.take(size).unwrap()).collect();
        stacks.iter().for_each(touch);
        let places: Vec<_> = stacks.iter().map(place).collect();
        stacks.into_iter().for_each(|stack| pool.give(stack));
        assert_eq!((pool.warm(), pool.cold()), (4, 1));
        for &place in &places[1..] {
            assert_eq!(resident(place), Some(size / page()));
        }
        assert_eq!(resident(places[0]), Some(0));
        let again: Vec<_> = (0..5).map(|_| pool.take(size).unwrap()).collect();
        assert_eq!(place(&again[4]), places[0], "warm ones first, then the cold one");
        assert_eq!((pool.warm(), pool.cold()), (0, 0));
    }
}

#[test]
fn trim_discards_what_was_not_used_since_the_last_one() {
    let mut pool = pool(PoolConfig::default());
    let stacks: Vec<_> = (0..10).map(|_| pool.take(DEFAULT).unwrap()).collect();
    let kept = pool.take(DEFAULT).unwrap();
    stacks.iter().for_each(touch);
    let places: Vec<_> = stacks.iter().map(place).collect();
    assert!(!pool.needs_trim());
    stacks.into_iter().for_each(|stack| pool.give(stack));
    assert!(pool.needs_trim());
    pool.trim();
    assert_eq!((pool.warm(), pool.cold()), (10, 0), "all were in use since the trim before");
    let used: Vec<_> = (0..3).map(|_| pool.take(DEFAULT).unwrap()).collect();
    used.into_iter().for_each(|stack| pool.give(stack));
    pool.trim();
    assert_eq!((pool.warm(), pool.cold()), (3, 7));
    assert!(places[..7].iter().all(|&place| resident(place) == Some(0)));
    assert!(places[7..].iter().all(|&place| resident(place) == Some(DEFAULT / page())));
    assert!(pool.needs_trim());
    pool.trim();
    assert_eq!((pool.warm(), pool.cold()), (0, 10), "`kept` keeps the slab");
    assert!(!pool.needs_trim(), "idle is idle");
    pool.trim();
    assert_eq!((pool.warm(), pool.cold()), (0, 10));
    drop(kept);
}

#[test]
fn a_trim_in_slices_discards_no_more_than_a_trim_at_once() {
    let mut pool = pool(PoolConfig::default());
    // Every other one stays in use, so no slab is unmapped.
    let mut kept = vec![];
    for size in [DEFAULT, 1 << 20] {
        let stacks: Vec<_> = (0..200).map(|_| pool.take(size).unwrap()).collect();
        for (i, stack) in stacks.into_iter().enumerate() {
            if i % 2 == 0 { kept.push(stack) } else { pool.give(stack) }
        }
    }
    pool.trim();
    assert_eq!((pool.warm(), pool.cold()), (200, 0));
    assert!(!pool.trim_some(30));
    assert_eq!((pool.warm(), pool.cold()), (170, 30));
    assert!(pool.needs_trim());
    // 60 of the 70 that are left are used after all.
    let used: Vec<_> = (0..60).map(|_| pool.take(DEFAULT).unwrap()).collect();
    used.into_iter().for_each(|stack| pool.give(stack));
    assert!(!pool.trim_some(30));
    assert_eq!((pool.warm(), pool.cold()), (140, 60), "10 of one size, 20 of the other");
    assert!(!pool.trim_some(30));
    assert_eq!((pool.warm(), pool.cold()), (110, 90));
    assert!(pool.trim_some(1000));
    assert_eq!((pool.warm(), pool.cold()), (60, 140), "the 60 were used since the trim began");
    // The next trim has the rest, as nobody took them since.
    let mut calls = 0;
    while pool.needs_trim() {
        pool.trim_some(1);
        calls += 1;
        assert!(calls < 200, "no end of trimming");
    }
    assert!(calls >= 60, "a call did more than it was asked to");
    assert_eq!((pool.warm(), pool.cold()), (0, 200));
    drop(kept);
}

#[test]
fn slabs_are_unmapped_in_slices_too() {
    let mut pool = pool(PoolConfig { warm_max: 0, ..PoolConfig::default() });
    let stacks: Vec<_> = (0..1000).map(|_| pool.take(DEFAULT).unwrap()).collect();
    stacks.into_iter().for_each(|stack| pool.give(stack));
    assert_eq!(pool.cold(), 1000);
    assert!(pool.needs_trim());
    // Slabs of 16, 32 … 512 slots, the last one not used up.
    let mut left = vec![];
    while !pool.trim_some(1) {
        left.push(pool.cold());
        assert!(pool.needs_trim());
    }
    assert_eq!((pool.cold(), pool.needs_trim()), (0, false));
    assert_eq!(left.len(), 5, "one slab a call: {left:?}");
    assert!(left.is_sorted_by(|a, b| a > b), "{left:?}");
}

#[test]
fn trim_unmaps_slabs_in_which_nobody_has_a_stack() {
    const TEST: &str = "trim_unmaps_slabs_in_which_nobody_has_a_stack";
    if child::is(TEST) {
        for size in [DEFAULT, 1 << 20] {
            let mut pool = pool(PoolConfig { warm_max: 100, ..PoolConfig::default() });
            let mut stacks: Vec<_> = (0..1000).map(|_| pool.take(size).unwrap()).collect();
            stacks.iter().for_each(touch);
            let places: Vec<_> = stacks.iter().map(place).collect();
            let mapped = |places: &[(usize, usize)]| {
                places.iter().filter(|&&place| resident(place).is_some()).count()
            };
            // One in the first slab stays in use, one in the second is leaked, one elsewhere is
            // dropped by its user.
            let in_use = stacks.swap_remove(0);
            let leaked = stacks.swap_remove(20);
            let leaked_at = place(&leaked);
            mem::forget(leaked);
            drop(stacks.pop().unwrap());
            stacks.into_iter().for_each(|stack| pool.give(stack));
            assert_eq!((pool.warm(), pool.cold()), (100, 897));
            assert_eq!(mapped(&places), 1000);
            pool.trim();
            pool.trim();
            assert!(!pool.needs_trim());
            assert_eq!(pool.warm(), 0);
            let kept = mapped(&places);
            assert_eq!(pool.cold(), kept - 2, "all that is mapped but in use or leaked is cold");
            assert!(kept <= 16 + 32, "{kept} of two slabs are still mapped");
            assert!(resident(place(&in_use)).is_some() && resident(leaked_at).is_some());
            // The slab goes when its last stack is back.
            pool.give(in_use);
            pool.trim();
            pool.trim();
            let kept = mapped(&places);
            assert!((1..=32).contains(&kept), "{kept} around the leaked one are still mapped");
            assert_eq!(pool.cold(), kept - 1);
            // And all still works.
            let stacks: Vec<_> = (0..1000).map(|_| pool.take(size).unwrap()).collect();
            stacks.iter().for_each(touch);
            let mut distinct: Vec<_> = stacks.iter().map(address).collect();
            distinct.push(leaked_at.0);
            distinct.sort_unstable();
            for pair in distinct.windows(2) {
                assert!(pair[1] - pair[0] > size, "stacks overlap");
            }
            drop(stacks);
            drop(pool);
            assert!(mapped(&places) <= 32);
        }
        return;
    }
    child::pass(TEST, &[]);
}

#[test]
fn a_dropped_pool_leaves_nothing_but_stacks_in_use() {
    const TEST: &str = "a_dropped_pool_leaves_nothing_but_stacks_in_use";
    if child::is(TEST) {
        let mut pool = pool(PoolConfig { warm_max: 50, ..PoolConfig::default() });
        let mut stacks: Vec<_> = (0..200).map(|_| pool.take(DEFAULT).unwrap()).collect();
        stacks.iter().for_each(touch);
        let places: Vec<_> = stacks.iter().map(place).collect();
        let in_use = stacks.remove(100);
        stacks.into_iter().for_each(|stack| pool.give(stack));
        drop(pool);
        let pages: usize = places.iter().filter_map(|&place| resident(place)).sum();
        assert_eq!(pages, DEFAULT / page(), "only the one in use has memory");
        assert_eq!(resident(place(&in_use)), Some(DEFAULT / page()));
        drop(in_use);
        assert!(places.iter().all(|&place| resident(place).is_none()));
        return;
    }
    child::pass(TEST, &[]);
}

#[test]
fn stacks_end_on_other_threads_than_they_came_from() {
    let mut pool = pool(PoolConfig::default());
    let ended = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            let stacks: Vec<_> = (0..50).map(|_| pool.take(DEFAULT).unwrap()).collect();
            let ended = &ended;
            scope.spawn(move || {
                for stack in stacks {
                    touch(&stack);
                    drop(stack);
                    ended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(ended.into_inner(), 200);
    pool.trim();
    assert_eq!((pool.warm(), pool.cold(), pool.needs_trim()), (0, 0, false));
}

#[test]
fn a_hundred_thousand_stacks_fit_the_default_number_of_mappings() {
    const TEST: &str = "a_hundred_thousand_stacks_fit_the_default_number_of_mappings";
    if child::is(TEST) {
        if guard_kind().unwrap() != GuardKind::Madvise {
            return child::skip("100,000 stacks: this kernel lacks guards by madvise");
        }
        let mut pool = pool(PoolConfig::default());
        let before = mappings();
        let stacks: Vec<_> = (0..100_000).map(|_| pool.take(DEFAULT).unwrap()).collect();
        for stack in &stacks {
            // SAFETY: the top lies in the stack, above its bottom.
            unsafe { stack.top().as_ptr().sub(1).write_volatile(1) }
        }
        for stack in stacks.iter().step_by(1000) {
            assert!(!readable(address(stack) - 1));
        }
        let added = mappings() - before;
        assert!(added <= 200, "a slab is one mapping or less, yet there are {added}");
        return;
    }
    child::pass(TEST, &[]);
}

#[test]
fn too_many_mappings_are_an_error_that_names_the_limit() {
    const TEST: &str = "too_many_mappings_are_an_error_that_names_the_limit";
    if child::is(TEST) {
        let limit = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        let Some(limit) = limit.trim().parse().ok().filter(|&limit: &usize| limit < 200_000) else {
            return child::skip("too many mappings: vm.max_map_count is high or unknown");
        };
        let mut pool =
            pool(PoolConfig { guard: Some(GuardKind::Mprotect), ..PoolConfig::default() });
        let mut stacks = Vec::with_capacity(limit);
        let error = loop {
            match pool.take(MIN_STACK_BYTES) {
                Ok(stack) => stacks.push(stack),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("vm.max_map_count"), "{error}");
        assert!(stacks.len() > limit / 3 && stacks.len() <= limit / 2);
        // What is there goes on.
        let stack = stacks.pop().unwrap();
        let at = place(&stack);
        pool.give(stack);
        assert_eq!(place(&pool.take(MIN_STACK_BYTES).unwrap()), at);
        stacks.into_iter().for_each(|stack| pool.give(stack));
        return;
    }
    child::pass(TEST, &[]);
}

#[test]
fn without_room_a_stack_is_an_error_and_nothing_is_lost() {
    const TEST: &str = "without_room_a_stack_is_an_error_and_nothing_is_lost";
    if child::is(TEST) {
        let mut pool = pool(PoolConfig::default());
        let mut stacks = Vec::with_capacity(10_000);
        let status = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = status.split(' ').next().unwrap().parse().unwrap();
        let room = 64 << 20;
        let limit = Some((pages * page() + room) as u64);
        setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
        let fill = |stacks: &mut Vec<Stack>, pool: &mut StackPool| {
            for _ in 0..3 {
                let error = loop {
                    match pool.take(DEFAULT) {
                        Ok(stack) => stacks.push(stack),
                        Err(error) => break error,
                    }
                };
                assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
                assert!(error.to_string().contains("RLIMIT_AS"), "{error}");
            }
            stacks.len()
        };
        let first = fill(&mut stacks, &mut pool);
        let fit = room / (DEFAULT + page());
        assert!(first > fit - 10, "{first} of {fit}: the last slabs are smaller");
        stacks.iter().for_each(touch);
        stacks.drain(..).for_each(|stack| pool.give(stack));
        assert_eq!(pool.warm(), first);
        assert_eq!(fill(&mut stacks, &mut pool), first);
        // Nor after everything was unmapped.
        stacks.drain(..).for_each(|stack| pool.give(stack));
        pool.trim();
        pool.trim();
        assert_eq!((pool.warm(), pool.cold()), (0, 0));
        let again = fill(&mut stacks, &mut pool);
        assert!(again > fit - 10, "{again} of {fit}");
        return;
    }
    child::pass(TEST, &[]);
}
