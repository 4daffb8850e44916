//! What was taken from a pipe and is not yet stored.
//!
//! splice(2) moves bytes from the pipe to a file in memory within one system call, so there is no moment at which
//! a killed process would take them with it: they are in the pipe or in the file. The file's offset is the stream's
//! position, and each stored record says up to which position its source has been stored. After a restart the rest
//! of the file is read again, partial line included: nothing is lost and nothing stands twice.

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, SpliceFFlags, fallocate, splice};
use nix::unistd::{Whence, lseek};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// At most so much is taken at once, so that no pipe waits long for another.
const CHUNK_BYTES: usize = 64 * 1024;
/// Stored bytes are given back to the system when there are so many.
const RELEASE_BYTES: u64 = 64 * 1024;

/// The file of one pipe.
#[derive(Debug)]
pub struct Spool {
    file: File,
    /// Position behind the last byte taken from the pipe.
    end: u64,
    /// Position before `pending`.
    stored: u64,
    released: u64,
    pending: Vec<u8>,
}

/// What became of a look into the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes.
    Bytes(usize),
    /// Nothing there now.
    Nothing,
    /// Nothing there, and nobody who could write.
    NoWriter,
}

impl Spool {
    /// Opens or makes the file; `stored` is the position up to which the store has this source.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn open(path: &Path, stored: Option<u64>) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let end = file.metadata()?.len();
        let stored = match stored {
            Some(position) => position.min(end),
            // The store that knew is gone; what is still here was released last or not at all.
            None => match lseek(&file, 0, Whence::SeekData) {
                Ok(data) => data as u64,
                Err(Errno::ENXIO) => end,
                Err(error) => return Err(error.into()),
            },
        };
        let mut spool = Self {
            file,
            end,
            stored,
            released: stored,
            pending: Vec::new(),
        };
        spool.read_on(end)?;
        // The part of a page that was released reads as zeros, which no program printed.
        let zeros = spool.pending.iter().take_while(|byte| **byte == 0).count();
        spool.consume(zeros);
        Ok(spool)
    }

    /// Takes what the pipe has, as much as one turn may.
    ///
    /// # Errors
    /// What splice(2) reports: no memory for the file, or the descriptor is no pipe.
    pub fn take(&mut self, pipe: BorrowedFd<'_>) -> io::Result<Taken> {
        let mut offset = self.end as i64;
        let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
        match splice(
            pipe,
            None,
            &self.file,
            Some(&mut offset),
            CHUNK_BYTES,
            flags,
        ) {
            Ok(0) => Ok(Taken::NoWriter),
            Ok(taken) => {
                self.read_on(self.end + taken as u64)?;
                Ok(Taken::Bytes(taken))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Taken::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    fn read_on(&mut self, end: u64) -> io::Result<()> {
        let start = self.stored + self.pending.len() as u64;
        let known = self.pending.len();
        self.pending.resize(known + (end - start) as usize, 0);
        self.file.read_exact_at(&mut self.pending[known..], start)?;
        self.end = end;
        Ok(())
    }

    /// What is not stored yet.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.pending
    }

    /// Position before the pending bytes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.stored
    }

    /// So many of the pending bytes are stored.
    pub fn consume(&mut self, bytes: usize) {
        self.pending.drain(..bytes);
        self.stored += bytes as u64;
        let surplus = self.stored - self.released;
        if surplus < RELEASE_BYTES {
            return;
        }
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        // A file system that cannot do this keeps the bytes: memory is lost, no line is.
        let _ = fallocate(&self.file, flags, self.released as i64, surplus as i64);
        self.released = self.stored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    fn pipe() -> (File, File) {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn bytes_are_in_the_pipe_or_in_the_file_and_a_restart_goes_on_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool");
        let (reader, mut writer) = pipe();
        let mut spool = Spool::open(&path, None).unwrap();
        assert_eq!(spool.take(reader.as_fd()).unwrap(), Taken::Nothing);
        writer.write_all(b"one\ntwo\nthr").unwrap();
        assert_eq!(spool.take(reader.as_fd()).unwrap(), Taken::Bytes(11));
        spool.consume(4);
        assert_eq!(
            (spool.position(), spool.pending()),
            (4, b"two\nthr".as_slice())
        );
        drop(spool);

        writer.write_all(b"ee\n").unwrap();
        let mut spool = Spool::open(&path, Some(4)).unwrap();
        assert_eq!(spool.pending(), b"two\nthr");
        assert_eq!(spool.take(reader.as_fd()).unwrap(), Taken::Bytes(3));
        assert_eq!(spool.pending(), b"two\nthree\n");
        drop(writer);
        assert_eq!(spool.take(reader.as_fd()).unwrap(), Taken::NoWriter);
    }

    #[test]
    fn stored_bytes_do_not_stay_in_memory() {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("spool");
        let (reader, mut writer) = pipe();
        let mut spool = Spool::open(&path, None).unwrap();
        for _ in 0..64 {
            writer.write_all(&[b'x'; 60_000]).unwrap();
            spool.take(reader.as_fd()).unwrap();
            spool.consume(60_000);
        }
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.len(), 64 * 60_000);
        assert!(
            metadata.blocks() * 512 < 256 * 1024,
            "{} blocks",
            metadata.blocks()
        );

        // Even when nobody remembers the position, no zeros become a message.
        writer.write_all(b"last\n").unwrap();
        spool.take(reader.as_fd()).unwrap();
        drop(spool);
        let spool = Spool::open(&path, None).unwrap();
        assert!(spool.pending().ends_with(b"last\n"));
        assert!(!spool.pending().contains(&0));
    }
}
