//! `thread_local!` takes what std's takes.

strands::thread_local!(static UNTYPED = 1); //~ no rules expected `=`
strands::thread_local!(static mut MUTABLE: u8 = 1); //~ no rules expected `MUTABLE`
strands::thread_local!(const KEY: u8 = 1;); //~ no rules expected keyword `const`
strands::thread_local!(static WITHOUT_VALUE: u8); //~ unexpected end of macro invocation
