//! #[strands::main] and #[strands::test].
