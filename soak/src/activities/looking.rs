//! Looks at what all the others do, while they do it.

use strands::debug::{dump, track_locks};

use crate::books::check;
use crate::party::Party;

/// A dump, and at times what it is made into. Who holds what is written down from now on, or no more.
pub fn look(party: &mut Party) {
    if party.rng.u32(..4) == 0 {
        track_locks(party.rng.bool());
    }
    let dump = dump();
    check(!party.is_fiber() || dump.fibers() > 0, || "a dump lacks the fiber that made it".into());
    if party.rng.u32(..16) == 0 {
        check(dump.to_json().ends_with('}'), || "a dump ends early".into());
    }
}
