//! wal-inproc
