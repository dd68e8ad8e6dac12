//! What a function's table says of an unwinding that comes from one of its calls: its
//! *language-specific data area*, in the format that GCC and LLVM share.
//!
//! The table has a row for each call that may unwind: where it is, where the unwinding lands (0: it
//! passes), and which *action* is chained to that: none or 0, a cleanup; above 0, a catch; below
//! 0, a filter, which with Rust lets nothing pass: it stands on the calls of a cleanup, and in
//! functions that must not be left by a panic. A call without a row must not unwind either; nor will
//! it, if what it calls catches everything.

/// What becomes of an unwinding that comes from a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Landing {
    /// It goes on, perhaps after a cleanup.
    Passes,
    Catch,
    /// The process aborts.
    Filter,
    /// The process aborts; but the compiler has seen that none comes.
    None,
}

/// What has been met between here and the entry of a stack.
#[derive(Default)]
pub(super) struct Seen {
    catch: bool,
    pub(super) cleanup: bool,
    /// An unwinding from here comes to what aborts the process before anything catches it.
    pub(super) aborts: bool,
}

impl Seen {
    /// The next frame, on the way outwards.
    pub(super) fn meet(&mut self, landing: Landing) {
        match landing {
            Landing::Passes => {}
            Landing::Catch => self.catch = true,
            Landing::Filter => {
                self.cleanup = true;
                self.aborts |= !self.catch;
            }
            Landing::None => {
                self.cleanup |= !self.catch;
                self.aborts |= !self.catch;
            }
        }
    }
}

/// Where an unwinding lands that comes from the call at `ip`. It passes also where the table is of a
/// kind that no compiler of Rust or C++ makes.
///
/// # Safety
///
/// `table` is null, or the language-specific data of the function that starts at `function` and has
/// `ip` in it.
pub(super) unsafe fn landing(table: *const u8, function: usize, ip: usize) -> Landing {
    if table.is_null() {
        return Landing::Passes;
    }
    let mut reader = Reader(table);
    // SAFETY: the caller's promise: this is how such a table begins and goes on, and each value is read
    // with the encoding that the table names.
    unsafe {
        if let encoding @ ..=OMITTED_BELOW = reader.byte() {
            // Where landing pads are counted from.
            if reader.encoded(encoding).is_none() {
                return Landing::Passes;
            }
        }
        if let ..=OMITTED_BELOW = reader.byte() {
            reader.uleb128(); // Where the types are that are caught.
        }
        let encoding = reader.byte();
        let length = reader.uleb128();
        let actions = reader.0.wrapping_add(length);
        while reader.0 < actions {
            let start = reader.encoded(encoding);
            let (length, landing_pad) = (reader.encoded(encoding), reader.encoded(encoding));
            let action = reader.uleb128();
            let (Some(start), Some(length), Some(landing_pad)) = (start, length, landing_pad)
            else {
                return Landing::Passes;
            };
            let start = function.wrapping_add(start);
            if ip < start {
                break;
            }
            if ip - start < length {
                if landing_pad == 0 || action == 0 {
                    return Landing::Passes;
                }
                return match Reader(actions.wrapping_add(action - 1)).sleb128() {
                    ..0 => Landing::Filter,
                    0 => Landing::Passes,
                    1.. => Landing::Catch,
                };
            }
        }
    }
    Landing::None
}

/// 0xff stands for a value that is left out.
const OMITTED_BELOW: u8 = 0xfe;

/// Reads a table from its beginning.
struct Reader(*const u8);

// SAFETY of all below: `self.0` is where a value of the kind begins.
impl Reader {
    /// # Safety
    ///
    /// A byte is there.
    unsafe fn byte(&mut self) -> u8 {
        // SAFETY: the caller's promise.
        let byte = unsafe { *self.0 };
        self.0 = self.0.wrapping_add(1);
        byte
    }

    /// The bits of a LEB128 number, how many, and its last byte.
    ///
    /// # Safety
    ///
    /// Such a number is there.
    unsafe fn leb128(&mut self) -> (usize, u32, u8) {
        let (mut value, mut bits) = (0, 0);
        loop {
            // SAFETY: the caller's promise: a number goes on as long as the top bit is set.
            let byte = unsafe { self.byte() };
            if bits < usize::BITS {
                value |= usize::from(byte & 0x7f) << bits;
            }
            bits += 7;
            if byte & 0x80 == 0 {
                return (value, bits, byte);
            }
        }
    }

    /// # Safety
    ///
    /// Such a number is there.
    unsafe fn uleb128(&mut self) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.leb128().0 }
    }

    /// # Safety
    ///
    /// Such a number is there.
    unsafe fn sleb128(&mut self) -> isize {
        // SAFETY: the caller's promise.
        let (value, bits, last) = unsafe { self.leb128() };
        let sign = if last & 0x40 != 0 && bits < usize::BITS { usize::MAX << bits } else { 0 };
        (value | sign).cast_signed()
    }

    /// A number in one of DWARF's encodings (`DW_EH_PE_*`). None for those of addresses, which
    /// no row has.
    ///
    /// # Safety
    ///
    /// A number in this encoding is there.
    unsafe fn encoded(&mut self, encoding: u8) -> Option<usize> {
        // SAFETY: the caller's promise.
        unsafe {
            match encoding {
                0x00 => Some(usize::from_ne_bytes(self.bytes())),
                0x01 => Some(self.uleb128()),
                0x02 => Some(usize::from(u16::from_ne_bytes(self.bytes()))),
                0x03 => Some(u32::from_ne_bytes(self.bytes()) as usize),
                0x04 => Some(u64::from_ne_bytes(self.bytes()) as usize),
                _ => None,
            }
        }
    }

    /// # Safety
    ///
    /// So many bytes are there.
    unsafe fn bytes<const N: usize>(&mut self) -> [u8; N] {
        // SAFETY: the caller's promise.
        std::array::from_fn(|_| unsafe { self.byte() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_were_written() {
        // The examples of the DWARF standard.
        let unsigned: [(&[u8], usize); 4] =
            [(&[2], 2), (&[127], 127), (&[0x80, 1], 128), (&[57 + 0x80, 100], 12857)];
        for (bytes, value) in unsigned {
            let mut reader = Reader(bytes.as_ptr());
            // SAFETY: such a number is there.
            assert_eq!(unsafe { reader.uleb128() }, value);
            assert_eq!(reader.0, bytes.as_ptr_range().end);
        }
        let signed: [(&[u8], isize); 6] = [
            (&[2], 2),
            (&[0x7e], -2),
            (&[127 + 0x80, 0], 127),
            (&[1 + 0x80, 0x7f], -127),
            (&[0x80, 0x7f], -128),
            (&[0x7f + 0x80, 0x7e], -129),
        ];
        for (bytes, value) in signed {
            // SAFETY: such a number is there.
            assert_eq!(unsafe { Reader(bytes.as_ptr()).sleb128() }, value);
        }
    }

    #[test]
    fn each_kind_of_row_is_told_from_the_others() {
        // Start, length, landing pad, action: nothing, a cleanup, a catch, a filter, a gap.
        // Then a gap before a row, and an action that is a cleanup.
        let rows =
            [[0, 10, 0, 0], [10, 10, 90, 0], [20, 10, 91, 1], [30, 10, 92, 3], [50, 10, 93, 5]];
        let mut table = vec![0xff, 0xff, 0x01, 20];
        table.extend(rows.iter().flatten());
        // A catch of type 1 with nothing after it; a filter; a cleanup.
        table.extend([1, 0, 0x7f, 0, 0, 0]);
        // SAFETY: this is such a table.
        let landing_at = |ip| unsafe { landing(table.as_ptr(), 1000, ip) };
        use Landing::{Catch, Filter, None, Passes};
        let expected = [
            (0, Passes),
            (9, Passes),
            (10, Passes),
            (25, Catch),
            (30, Filter),
            (40, None),
            (50, Passes),
            (60, None),
        ];
        for (place, expected) in expected {
            assert_eq!(landing_at(1000 + place), expected, "at {place}");
        }
        // SAFETY: there is none.
        assert_eq!(unsafe { landing(std::ptr::null(), 0, 0) }, Passes);
    }

    #[test]
    fn rows_are_read_in_every_encoding_of_numbers() {
        /// A table with one row, and a catch, whose numbers are `bytes` long.
        fn table(encoding: u8, bytes: usize) -> Vec<u8> {
            // Landing pads are counted from 7 here; the types are 99 bytes further on.
            let mut table = vec![0x01, 7, 0x00, 99, encoding, 3 * bytes as u8 + 1];
            for number in [20u64, 10, 91] {
                let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
                table.extend(match cfg!(target_endian = "little") {
                    true => &little[..bytes],
                    false => &big[8 - bytes..],
                });
            }
            table.extend([1, 1, 0]);
            table
        }
        use Landing::{Catch, None, Passes};
        let encodings = [(0x00, size_of::<usize>()), (0x01, 1), (0x02, 2), (0x03, 4), (0x04, 8)];
        for (encoding, bytes) in encodings {
            let table = table(encoding, bytes);
            for (place, expected) in [(19, None), (20, Catch), (29, Catch), (30, None)] {
                // SAFETY: this is such a table.
                let landing = unsafe { landing(table.as_ptr(), 1000, 1000 + place) };
                assert_eq!(landing, expected, "{encoding:#x} at {place}");
            }
        }
        // Relative to the place of the number itself: no row is.
        // SAFETY: as above.
        assert_eq!(unsafe { landing(table(0x1b, 4).as_ptr(), 1000, 1025) }, Passes);
    }

    #[test]
    fn a_call_that_cannot_unwind_forbids_nothing_beyond_a_catch() {
        use Landing::{Catch, Filter, None, Passes};
        let cleanup = |frames: &[Landing]| {
            let mut seen = Seen::default();
            frames.iter().for_each(|frame| seen.meet(*frame));
            seen.cleanup
        };
        assert!(!cleanup(&[Passes, Catch, None, Passes]));
        assert!(cleanup(&[Passes, None, Catch]), "the catch does not come to it");
        assert!(cleanup(&[Catch, Filter]), "it is in the midst of a cleanup all the same");
    }
}
