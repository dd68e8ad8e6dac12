//! Mutex, Condvar and channels of strands, over one wait queue.
