//! wal-shm
