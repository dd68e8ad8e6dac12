//! The reactor of strands: turns an I/O operation into park and result.
