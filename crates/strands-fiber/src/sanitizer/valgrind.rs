//! valgrind's memcheck, on x86-64, by client requests: an instruction sequence that does nothing
//! elsewhere.
//!
//! Memory below a stack pointer is forbidden to the program. A stack that is registered keeps its
//! contents when the stack pointer moves to another.

use std::arch::asm;

use crate::stack::Stack;

/// `valgrind.h` and `memcheck.h`. Their macros are turned down as they need a C compiler at build.
mod request {
    pub const STACK_REGISTER: usize = 0x1501;
    pub const STACK_DEREGISTER: usize = 0x1502;
    /// Addressable, of known contents.
    pub const MAKE_MEM_DEFINED: usize = 0x4d43_0002;
}

#[derive(Debug, Clone)]
pub struct Party {
    bottom: usize,
    size: usize,
    /// What valgrind calls the stack.
    id: usize,
}

impl Party {
    pub fn new() -> Party {
        Party { bottom: 0, size: 0, id: 0 }
    }

    pub fn on(stack: &Stack) -> Party {
        Party { bottom: stack.bottom().addr().get(), size: stack.size(), id: 0 }
    }

    /// # Safety
    ///
    /// Its stack is mapped, and stays so until it has left for good.
    pub unsafe fn begin(&mut self) {
        self.id = ask([request::STACK_REGISTER, self.bottom, self.bottom + self.size - 1]);
    }

    /// # Safety
    ///
    /// None here.
    #[inline(always)]
    pub unsafe fn leave(_from: &mut Party, _to: &Party, _for_good: bool) {}

    /// # Safety
    ///
    /// None here.
    pub unsafe fn arrive(&mut self, _from: &mut Party) {}

    /// # Safety
    ///
    /// It has left for good.
    pub unsafe fn end(&mut self) {
        ask([request::STACK_DEREGISTER, self.id, 0]);
        // Frames that have returned are forbidden memory, but the next owner may write anywhere. What
        // lies above the first frame is in use still, so the contents cannot be declared unknown.
        ask([request::MAKE_MEM_DEFINED, self.bottom, self.size]);
    }
}

/// Asks valgrind; 0 where the program does not run in it.
fn ask([request, first, second]: [usize; 3]) -> usize {
    let words = [request, first, second, 0, 0, 0];
    let answer;
    // SAFETY: the rotations of `rdi` make a whole turn, and the exchange is of `rbx` with itself.
    // valgrind knows the sequence, and reads `words`.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            inout("rdi") 0_usize => _,
            in("rax") words.as_ptr(),
            inout("rdx") 0_usize => answer,
            options(nostack),
        );
    }
    answer
}
