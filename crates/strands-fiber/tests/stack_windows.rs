//! Stacks and their pool as Windows sees them: reserved, committed as they grow, decommitted. What
//! all systems share, and what is special to Unix, is tested in `stack.rs`.

#![cfg(all(windows, not(strands_backend = "thread")))]

mod child;

use std::hint::black_box;
use std::io;
use std::mem::{self, MaybeUninit};

use strands_fiber::arch::{Context, Exit, Word, switch};
use strands_fiber::stack::{GuardKind, MIN_STACK_BYTES, PoolConfig, Stack, StackPool, guard_kind};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_FREE, MEMORY_BASIC_INFORMATION, PAGE_GUARD, PAGE_READWRITE, VirtualQuery,
};

const DEFAULT: usize = 256 * 1024;
const PAGE: usize = 4096;

fn address(stack: &Stack) -> usize {
    stack.bottom().as_ptr().addr()
}

fn place(stack: &Stack) -> (usize, usize) {
    (address(stack), stack.size())
}

fn pool(config: PoolConfig) -> StackPool {
    StackPool::new(config).unwrap()
}

fn query(address: usize) -> MEMORY_BASIC_INFORMATION {
    let mut info = MaybeUninit::zeroed();
    let size = mem::size_of::<MEMORY_BASIC_INFORMATION>();
    // SAFETY: it fills in what it is given, and only looks at the address.
    unsafe {
        assert_ne!(VirtualQuery(std::ptr::without_provenance(address), info.as_mut_ptr(), size), 0);
        info.assume_init()
    }
}

/// The bytes of a stack that are committed and may be touched; None if its range is free.
fn committed((bottom, size): (usize, usize)) -> Option<usize> {
    let (mut at, mut bytes) = (bottom, 0);
    while at < bottom + size {
        let info = query(at);
        if info.State == MEM_FREE {
            return None;
        }
        let end = (info.BaseAddress.addr() + info.RegionSize).min(bottom + size);
        if info.State == MEM_COMMIT && info.Protect == PAGE_READWRITE {
            bytes += end - at;
        }
        at = end;
    }
    Some(bytes)
}

/// Runs a party on `stack` that uses `bytes` of it and more, and exits.
fn use_up(stack: &Stack, bytes: usize) {
    struct Party {
        main: Context,
        own: Context,
        bytes: usize,
    }
    #[inline(never)]
    fn deep(bytes: usize) {
        let mut page = [1u8; PAGE];
        black_box(&mut page);
        if bytes > PAGE {
            deep(bytes - PAGE);
        }
        black_box(&mut page);
    }
    unsafe extern "C" fn run(arg: Word) -> Exit {
        // SAFETY: it is handed the party, whose main context waits.
        unsafe {
            let party = arg.assume_init().cast::<Party>();
            deep((*party).bytes);
            Exit { next: &raw const (*party).main, arg }
        }
    }
    let mut party = Party { main: Context::new(), own: Context::new(), bytes };
    let party = &raw mut party;
    // SAFETY: the stack is not in use, and its party exits before this returns.
    unsafe {
        (*party).own.start(stack.top(), stack, run);
        switch(&raw mut (*party).main, &raw const (*party).own, Word::new(party.cast()));
    }
}

#[test]
fn a_stack_has_the_size_asked_for_and_grows_as_it_is_used() {
    for size in [0, MIN_STACK_BYTES + 1, DEFAULT, DEFAULT + PAGE, 8 << 20] {
        let stack = Stack::new(size).unwrap();
        let expected = size.max(MIN_STACK_BYTES).next_multiple_of(PAGE);
        assert_eq!(stack.size(), expected);
        let (bottom, top) = (address(&stack), stack.top().as_ptr().addr());
        assert_eq!((bottom % PAGE, top % 16), (0, 0));
        assert!(bottom + expected - 1024 <= top && top < bottom + expected);
        assert!(stack.guard_contains(bottom - 1) && !stack.guard_contains(bottom));
        assert_eq!(committed(place(&stack)), Some(8 << 10));
        use_up(&stack, expected / 4);
        let grown = committed(place(&stack)).unwrap();
        assert!(grown >= expected / 4 && (grown < expected || expected < DEFAULT), "{grown}");
        // The guard that moves is right below.
        let guard = query(bottom + expected - grown - 1);
        assert_eq!((guard.State, guard.Protect), (MEM_COMMIT, PAGE_READWRITE | PAGE_GUARD));
        // Again, where it has grown before, and further.
        use_up(&stack, expected / 4);
        assert_eq!(committed(place(&stack)), Some(grown));
        if size >= DEFAULT {
            use_up(&stack, expected / 2 - PAGE * 4);
            assert!(committed(place(&stack)).unwrap() > grown);
        }
    }
}

#[test]
fn sizes_that_cannot_be_are_errors() {
    for size in [usize::MAX, usize::MAX / 2, isize::MAX as usize - 1] {
        assert_eq!(Stack::new(size).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    let error = Stack::new(isize::MAX as usize / 4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("Likely cause"), "{error}");
}

#[test]
fn neighbours_lie_an_odd_number_of_pages_apart_in_different_colours() {
    for size in [MIN_STACK_BYTES, 5 * PAGE, DEFAULT, DEFAULT + PAGE] {
        let mut pool = pool(PoolConfig::default());
        let stacks: Vec<_> = (0..16).map(|_| pool.take(size).unwrap()).collect();
        let stride = address(&stacks[1]) - address(&stacks[0]);
        assert_eq!(stride / PAGE % 2, 1, "stride of {size}");
        let mut colours: Vec<_> =
            stacks.iter().map(|s| address(s) + s.size() - s.top().as_ptr().addr()).collect();
        colours.sort_unstable();
        assert_eq!(colours, (0..16).map(|i| 16 + i * 64).collect::<Vec<_>>());
    }
}

#[test]
fn there_is_one_kind_of_guard() {
    const TEST: &str = "there_is_one_kind_of_guard";
    if child::is(TEST) {
        let error = guard_kind().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("STRANDS_STACK_GUARD"), "{error}");
        return;
    }
    assert_eq!(guard_kind().unwrap(), GuardKind::Mprotect);
    child::pass(TEST, &[("STRANDS_STACK_GUARD", "madvise")]);
}

#[test]
fn a_dropped_stack_gives_memory_back_and_the_last_one_its_addresses() {
    let mut pool = pool(PoolConfig::default());
    let stacks: Vec<_> = (0..16).map(|_| pool.take(DEFAULT).unwrap()).collect();
    drop(pool);
    let places: Vec<_> = stacks.iter().map(place).collect();
    stacks.iter().for_each(|stack| use_up(stack, DEFAULT / 4));
    let mut left = stacks.len();
    for (stack, &place) in stacks.into_iter().zip(&places) {
        assert!(committed(place).unwrap() >= DEFAULT / 4);
        drop(stack);
        left -= 1;
        let after = if left > 0 { Some(0) } else { None };
        assert_eq!(committed(place), after);
    }
}

#[test]
fn a_warm_stack_keeps_its_memory_and_a_cold_one_is_as_good_as_new() {
    let mut pool = pool(PoolConfig::default());
    let stacks: Vec<_> = (0..10).map(|_| pool.take(DEFAULT).unwrap()).collect();
    let kept = pool.take(DEFAULT).unwrap();
    stacks.iter().for_each(|stack| use_up(stack, DEFAULT / 4));
    let places: Vec<_> = stacks.iter().map(place).collect();
    stacks.into_iter().for_each(|stack| pool.give(stack));
    assert_eq!((pool.warm(), pool.cold()), (10, 0));
    assert!(places.iter().all(|&place| committed(place).unwrap() >= DEFAULT / 4));
    let warm = pool.take(DEFAULT).unwrap();
    use_up(&warm, DEFAULT / 2 - PAGE * 4);
    pool.trim();
    pool.trim();
    assert_eq!((pool.warm(), pool.cold()), (0, 9));
    assert_eq!(places.iter().filter(|&&place| committed(place) == Some(0)).count(), 9);
    for _ in 0..9 {
        let stack = pool.take(DEFAULT).unwrap();
        assert!(places.contains(&place(&stack)));
        assert_eq!(committed(place(&stack)), Some(8 << 10));
        use_up(&stack, DEFAULT / 4);
        mem::forget(stack);
    }
    assert_eq!(pool.cold(), 0);
    drop(kept);
}

#[test]
fn ten_thousand_stacks_commit_little() {
    let mut pool = pool(PoolConfig::default());
    let stacks: Vec<_> = (0..10_000).map(|_| pool.take(DEFAULT).unwrap()).collect();
    stacks.iter().for_each(|stack| use_up(stack, 1));
    for stack in stacks.iter().step_by(100) {
        assert!(committed(place(stack)).unwrap() <= 32 << 10);
    }
}
