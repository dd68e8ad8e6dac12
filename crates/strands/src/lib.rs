//! std::thread, a million at a time: fibers for Rust.
