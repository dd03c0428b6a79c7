//! Lines of a pipe or socket, each waited for no longer than a deadline.
//!
//! Waiting is `poll` in the calling thread: no reader thread is needed, and
//! what has arrived can be taken without waiting for more.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A stream and what was read from it beyond the last line handed out.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
}

impl<R: Read + AsFd> Lines<R> {
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
        }
    }

    /// The stream itself, to write to where it goes both ways.
    pub(crate) fn source(&self) -> &R {
        &self.source
    }

    /// The next line without its end, or `None` when the stream has ended.
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline; the part of a line read so far is kept.
    pub(crate) fn next_line(&mut self, deadline: Instant) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return text(line).map(Some);
            }
            if !self.fill(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Everything that has arrived, without waiting for more.
    pub(crate) fn take_arrived(&mut self) -> io::Result<String> {
        let now = Instant::now();
        loop {
            match self.fill(now) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => break,
                Err(error) => return Err(error),
            }
        }
        text(std::mem::take(&mut self.buffer))
    }

    /// Reads and drops everything up to the end of the stream.
    ///
    /// # Errors
    ///
    /// `TimedOut` at the deadline.
    pub(crate) fn skip_to_end(&mut self, deadline: Instant) -> io::Result<()> {
        while self.fill(deadline)? {
            self.buffer.clear();
        }
        Ok(())
    }

    /// Waits for more bytes and buffers them; false at the end of the stream.
    fn fill(&mut self, deadline: Instant) -> io::Result<bool> {
        wait_readable(self.source.as_fd(), deadline)?;
        let mut chunk = [0; 4096];
        let length = match self.source.read(&mut chunk) {
            // A process that was killed with a message to it unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            result => result?,
        };
        self.buffer.extend_from_slice(&chunk[..length]);
        Ok(length > 0)
    }
}

/// Waits until a read (or an accept) on `fd` would not block.
///
/// # Errors
///
/// `TimedOut` at the deadline.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(remaining).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(0) if remaining.is_zero() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
