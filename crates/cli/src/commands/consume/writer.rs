//! Standard output, and when its reader has what was written.
//!
//! A record may be acknowledged only after somebody has it. A file or a terminal has what was written to it. A pipe holds up
//! to 64 KiB that its reader may never take: of `sluice consume … | head -3` the reader takes three. So a pipe gets one record
//! at a time, and the record counts as written when the pipe is empty again. (On systems that cannot tell, when it is in the
//! pipe.)

use std::io::{self, Write};

use tokio::task::JoinHandle;

/// Writes in the background, one text at a time.
pub(super) struct Writer {
    is_pipe: bool,
    writing: Option<JoinHandle<io::Result<()>>>,
}

impl Writer {
    /// To standard output.
    pub(super) fn new() -> Self {
        Self { is_pipe: pipe::prepare(&io::stdout()), writing: None }
    }

    /// How many records may be written as one.
    pub(super) fn records_max(&self) -> usize {
        if self.is_pipe { 1 } else { usize::MAX }
    }

    /// Whether its reader may leave at any time.
    pub(super) fn is_pipe(&self) -> bool {
        self.is_pipe
    }

    pub(super) fn is_busy(&self) -> bool {
        self.writing.is_some()
    }

    /// Begins to write; nothing else may be on its way.
    pub(super) fn begin(&mut self, text: String) {
        let is_pipe = self.is_pipe;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()?;
            if is_pipe { pipe::wait_taken(&out) } else { Ok(()) }
        }));
    }

    /// When what was begun is written, and taken. Never, if nothing is on its way. Cancel-safe.
    pub(super) async fn written(&mut self) -> io::Result<()> {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let written = writing.await;
        self.writing = None;
        written.map_err(io::Error::other)?
    }
}

#[cfg(target_os = "linux")]
mod pipe {
    use std::io;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{FileType, fstat};
    use rustix::io::{Errno, ioctl_fionread};
    use rustix::pipe::fcntl_setpipe_size;

    /// The smallest pipe; one with a record in it has no room, so that it can be waited for until it is empty.
    const PIPE_BYTES: usize = 4_096;
    const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    const NOT_EMPTY_PAUSE: Duration = Duration::from_millis(1);

    /// Whether it is a pipe; if so, makes it as small as may be.
    pub(super) fn prepare(out: &impl AsFd) -> bool {
        let is_pipe = fstat(out).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe {
            // One that stays large is looked at more often below.
            let _ = fcntl_setpipe_size(out, PIPE_BYTES);
        }
        is_pipe
    }

    /// Returns when the reader has taken all; fails if it went away before. Blocks its thread, which only writes.
    #[expect(clippy::disallowed_methods, reason = "the kernel tells of room in a pipe, but not that it is empty")]
    pub(super) fn wait_taken(out: &impl AsFd) -> io::Result<()> {
        while ioctl_fionread(out)? > 0 {
            let mut polled = [PollFd::new(out, PollFlags::OUT)];
            match poll(&mut polled, Some(&LOOK_AGAIN)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let seen = polled[0].revents();
            // What the reader took with it when it went, it has.
            if seen.contains(PollFlags::ERR) {
                let left = ioctl_fionread(out)?;
                return if left == 0 { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) };
            }
            if seen.contains(PollFlags::OUT) && ioctl_fionread(out)? > 0 {
                std::thread::sleep(NOT_EMPTY_PAUSE);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use std::io::{Read, Write};

        use super::*;

        #[test]
        fn a_record_is_taken_when_the_pipe_is_empty_again() {
            let (mut reader, mut writer) = io::pipe().expect("a pipe");
            assert!(prepare(&writer));
            writer.write_all(b"0123456789").expect("write");
            let waiting = std::thread::spawn(move || wait_taken(&writer).map(|()| writer));
            let mut taken = [0; 9];
            reader.read_exact(&mut taken).expect("read");
            assert!(!waiting.is_finished(), "a byte is left");
            reader.read_exact(&mut taken[..1]).expect("read");
            assert!(waiting.join().expect("it ends").is_ok());
        }

        #[test]
        fn a_reader_that_goes_takes_what_it_read_and_no_more() {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            prepare(&writer);
            writer.write_all(b"0123456789").expect("write");
            drop(reader);
            assert_eq!(wait_taken(&writer).expect_err("gone").kind(), io::ErrorKind::BrokenPipe);

            let (mut reader, mut writer) = io::pipe().expect("a pipe");
            prepare(&writer);
            writer.write_all(b"0123456789").expect("write");
            reader.read_exact(&mut [0; 10]).expect("read");
            drop(reader);
            assert!(wait_taken(&writer).is_ok());
        }

        #[test]
        fn a_file_is_no_pipe() {
            assert!(!prepare(&std::fs::File::open("/dev/null").expect("open")));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod pipe {
    use std::io;

    pub(super) fn prepare<T>(_: &T) -> bool {
        false
    }

    pub(super) fn wait_taken<T>(_: &T) -> io::Result<()> {
        Ok(())
    }
}
