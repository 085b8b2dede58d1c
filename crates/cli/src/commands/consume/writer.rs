//! Standard output, and when its reader has what was written.
//!
//! A record may be acknowledged only after somebody has it. A file or a terminal has what was written to it. A pipe holds up
//! to 64 KiB that its reader may never take: of `sluice consume … | head -3` the reader takes three. So a pipe gets one record
//! at a time, and the record counts as written when the pipe is empty again. (On systems that cannot tell, when it is in the
//! pipe.) Of what could not be written whole, it tells how many bytes were.

use std::io::{self, Write};

use tokio::task::JoinHandle;

/// Writes in the background, one text at a time.
pub(super) struct Writer {
    is_pipe: bool,
    writing: Option<JoinHandle<Result<(), Broken>>>,
}

/// What is written no further.
#[derive(Debug)]
pub(super) struct Broken {
    /// So many bytes of the text were taken for certain.
    pub(super) bytes: usize,
    pub(super) error: io::Error,
}

impl Writer {
    /// To standard output.
    pub(super) fn new() -> Self {
        file_too_large_is_an_error();
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
            let out = io::stdout().lock();
            let of_none = |error| Broken { bytes: 0, error };
            let mut unbuffered = unbuffered(&out).map_err(of_none)?;
            let written = write_all(&mut unbuffered, text.as_bytes());
            match is_pipe {
                // What is in a pipe nobody may ever take.
                true => written
                    .map_err(|broken| of_none(broken.error))
                    .and_then(|()| pipe::wait_taken(&out).map_err(of_none)),
                false => written,
            }
        }));
    }

    /// When what was begun is written, and taken. Never, if nothing is on its way. Cancel-safe.
    pub(super) async fn written(&mut self) -> Result<(), Broken> {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let written = writing.await;
        self.writing = None;
        written.map_err(|error| Broken { bytes: 0, error: io::Error::other(error) })?
    }
}

/// As `Write::write_all`, but tells how much was written before it failed.
fn write_all(out: &mut impl Write, text: &[u8]) -> Result<(), Broken> {
    let mut bytes = 0;
    while bytes < text.len() {
        match out.write(&text[bytes..]) {
            Ok(0) => return Err(Broken { bytes, error: io::ErrorKind::WriteZero.into() }),
            Ok(more) => bytes += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Broken { bytes, error }),
        }
    }
    out.flush().map_err(|error| Broken { bytes: 0, error })
}

/// Standard output itself: a buffer before it does not know what it got rid of.
#[cfg(unix)]
fn unbuffered(out: &io::StdoutLock<'_>) -> io::Result<std::fs::File> {
    use std::os::fd::AsFd as _;
    Ok(out.as_fd().try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
fn unbuffered(_: &io::StdoutLock<'_>) -> io::Result<io::Stdout> {
    Ok(io::stdout())
}

/// A file that may not grow further (`ulimit -f`) fails to be written, instead of ending this process with records in it.
fn file_too_large_is_an_error() {
    #[cfg(unix)]
    {
        /// `SIGXFSZ`, on every system there is.
        const FILE_SIZE: i32 = 25;
        // From now on it is heard, by nobody. Where it cannot be, it ends the process as before.
        let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(FILE_SIZE));
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, in small pieces.
    struct Small(usize);

    impl Write for Small {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let taken = text.len().min(self.0).min(3);
            self.0 -= taken;
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn it_tells_how_much_was_written_before_it_failed() {
        assert!(write_all(&mut Small(10), b"0123456789").is_ok());
        let broken = write_all(&mut Small(7), b"0123456789").expect_err("full");
        assert_eq!((broken.bytes, broken.error.kind()), (7, io::ErrorKind::StorageFull));
    }
}
