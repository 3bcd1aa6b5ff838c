//! A block device in memory with a volatile write cache: what it forgets when the power goes, and how it fails.
//!
//! It holds the bytes that a reader sees, and for every block written since the last flush the bytes that were durable.
//! A power cut gives each of those blocks back or not, by a seeded coin: writes are lost, kept and reordered, and a
//! write of several blocks tears between them. A block itself is atomic, as a sector of a 4 KiB drive is.
//!
//! Faults are armed by verbs and happen once each. A failed flush forgets at once: whoever calls it again is told OK, and
//! the bytes are gone. After a failed write or flush the device is *hollow*: everything seems to work, and nothing more is
//! ever durable, so that whatever is promised from then on is found out at the next cut. Not a thread and not a mount: [`super::fuse`] serves it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::Duration;

use rustix::io::Errno;

use crate::random::Random;

/// The unit of writing: the sector of the drive.
pub const BLOCK_BYTES: usize = 4096;

/// What an operation does to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reading.
    Read,
    /// Writing, into the volatile cache.
    Write,
    /// Making everything written durable.
    Flush,
}

/// A fault that waits for its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trap {
    /// The operation fails with EIO; a failed write writes nothing, a failed flush forgets what it should have saved.
    Fail(Operation),
    /// A write fails with EIO and writes nothing; the device is sound otherwise.
    Refuse,
    /// A write says OK and never happens.
    Lose,
    /// A write goes to the block with this number instead.
    Misdirect(u64),
    /// The operation takes this much longer.
    Delay(Operation, Duration),
}

/// What a power cut did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Blocks written since the last flush.
    pub pending: u64,
    /// Those of them that were lost.
    pub dropped: u64,
}

/// The device. See the module's comment.
#[derive(Debug)]
pub struct Device {
    bytes: Vec<u8>,
    /// What each block written since the last flush held before.
    undo: BTreeMap<u64, Box<[u8]>>,
    is_dead: bool,
    is_hollow: bool,
    trap: Option<(Trap, Option<Range<u64>>)>,
    /// Traps that have gone off.
    sprung: u64,
    random: Random,
    /// Operations so far: reads, writes, flushes.
    counts: [u64; 3],
}

impl Device {
    /// An empty device of `bytes`, whole blocks. Memory is used for what is written only.
    pub fn new(bytes: usize, seed: u64) -> Device {
        assert!(bytes.is_multiple_of(BLOCK_BYTES), "a device is whole blocks");
        Device {
            bytes: vec![0; bytes],
            undo: BTreeMap::new(),
            is_dead: false,
            is_hollow: false,
            trap: None,
            sprung: 0,
            random: Random::new(seed),
            counts: [0; 3],
        }
    }

    /// Its length.
    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The power goes: until [`Device::revive`] every operation fails, and what was not flushed is kept or lost, block by
    /// block. A flush that has returned is never taken back.
    pub fn cut(&mut self) -> Cut {
        self.is_dead = true;
        self.trap = None;
        let undo = std::mem::take(&mut self.undo);
        let mut cut = Cut { pending: undo.len() as u64, dropped: 0 };
        // Some cuts lose nearly everything, some nearly nothing, most something in between.
        let percent = if self.is_hollow { 100 } else { [50, 50, 10, 90][self.random.below(4) as usize] };
        self.is_hollow = false;
        for (block, before) in undo {
            if self.random.below(100) < percent {
                self.block_mut(block).copy_from_slice(&before);
                cut.dropped += 1;
            }
        }
        cut
    }

    /// The power is back.
    pub fn revive(&mut self) {
        self.is_dead = false;
    }

    /// Arms a fault for the next operation that it fits, within `blocks` if given (a flush has none). One at a time.
    pub fn arm(&mut self, trap: Trap, blocks: Option<Range<u64>>) {
        self.trap = Some((trap, blocks));
    }

    /// Takes back a fault that has not happened.
    pub fn disarm(&mut self) {
        self.trap = None;
    }

    /// How many armed faults have happened.
    pub fn sprung(&self) -> u64 {
        self.sprung
    }

    /// Flushes so far.
    pub fn flushes(&self) -> u64 {
        self.counts[Operation::Flush as usize]
    }

    /// Turns one bit, as a decaying medium does: durable at once.
    pub fn flip(&mut self, byte: u64, bit: u8) {
        let mask = 1 << (bit % 8);
        self.bytes[byte as usize] ^= mask;
        if let Some(before) = self.undo.get_mut(&(byte / BLOCK_BYTES as u64)) {
            before[byte as usize % BLOCK_BYTES] ^= mask;
        }
    }

    /// Bytes as a reader would see them, without the reader.
    pub fn peek(&self, at: u64, len: usize) -> &[u8] {
        &self.bytes[at as usize..at as usize + len]
    }

    /// How long the next operation waits before it happens. The caller sleeps, without holding the device.
    pub(super) fn delay(&mut self, operation: Operation) -> Option<Duration> {
        match self.trap {
            Some((Trap::Delay(of, time), _)) if of == operation => {
                self.spring();
                Some(time)
            }
            _ => None,
        }
    }

    pub(super) fn read(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        self.begin(Operation::Read, at, len)?;
        let end = (at as usize).saturating_add(len).min(self.bytes.len());
        Ok(&self.bytes[(at as usize).min(end)..end])
    }

    pub(super) fn write(&mut self, at: u64, data: &[u8]) -> io::Result<()> {
        if (at as usize).checked_add(data.len()).is_none_or(|end| end > self.bytes.len()) {
            return Err(Errno::NOSPC.into());
        }
        let mut at = at;
        match self.begin(Operation::Write, at, data.len())? {
            Some(Trap::Lose) => return Ok(()),
            Some(Trap::Misdirect(to)) => {
                let last = self.bytes.len() - data.len();
                at = ((to as usize * BLOCK_BYTES).min(last) / BLOCK_BYTES * BLOCK_BYTES) as u64;
            }
            _ => {}
        }
        self.remember(at, data.len());
        self.bytes[at as usize..at as usize + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// Fills with zeroes: what a discard or a hole leaves.
    pub(super) fn zero(&mut self, at: u64, len: usize) -> io::Result<()> {
        if (at as usize).checked_add(len).is_none_or(|end| end > self.bytes.len()) {
            return Err(Errno::NOSPC.into());
        }
        self.begin(Operation::Write, at, len)?;
        self.remember(at, len);
        self.bytes[at as usize..at as usize + len].fill(0);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self.begin(Operation::Flush, 0, 0) {
            Ok(_) => {
                if !self.is_hollow {
                    self.undo.clear();
                }
                Ok(())
            }
            Err(error) if self.is_dead => Err(error),
            Err(error) => {
                for (block, before) in std::mem::take(&mut self.undo) {
                    self.block_mut(block).copy_from_slice(&before);
                }
                Err(error)
            }
        }
    }

    /// Counts the operation and lets it fail if it must; returns the trap that changes what it does.
    fn begin(&mut self, operation: Operation, at: u64, len: usize) -> io::Result<Option<Trap>> {
        self.counts[operation as usize] += 1;
        if self.is_dead {
            return Err(Errno::IO.into());
        }
        let Some((trap, blocks)) = &self.trap else { return Ok(None) };
        let touched = at / BLOCK_BYTES as u64..(at + len as u64).div_ceil(BLOCK_BYTES as u64);
        let meets = blocks.as_ref().is_none_or(|blocks| touched.start < blocks.end && blocks.start < touched.end);
        match trap {
            Trap::Fail(of) if *of == operation && (meets || operation == Operation::Flush) => {
                self.is_hollow = operation != Operation::Read;
                self.spring();
                Err(Errno::IO.into())
            }
            Trap::Refuse if operation == Operation::Write && meets => {
                self.spring();
                Err(Errno::IO.into())
            }
            Trap::Lose | Trap::Misdirect(_) if operation == Operation::Write && meets => Ok(self.spring()),
            _ => Ok(None),
        }
    }

    fn spring(&mut self) -> Option<Trap> {
        self.sprung += 1;
        self.trap.take().map(|(trap, _)| trap)
    }

    fn remember(&mut self, at: u64, len: usize) {
        let blocks = at / BLOCK_BYTES as u64..(at + len as u64).div_ceil(BLOCK_BYTES as u64);
        for block in blocks {
            if !self.undo.contains_key(&block) {
                let before = self.block_mut(block).to_vec().into_boxed_slice();
                self.undo.insert(block, before);
            }
        }
    }

    fn block_mut(&mut self, block: u64) -> &mut [u8] {
        let at = block as usize * BLOCK_BYTES;
        &mut self.bytes[at..at + BLOCK_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;

    fn device() -> Device {
        Device::new(64 * BLOCK_BYTES, 7)
    }

    #[test]
    fn a_flushed_block_survives_every_cut_and_an_unflushed_one_does_not() {
        let mut device = device();
        let (mut kept, mut lost) = (0, 0);
        for round in 0..50_u8 {
            device.write(0, &[round; BLOCK_BYTES]).unwrap();
            device.flush().unwrap();
            device.write(BLOCK, &[round + 100; 2 * BLOCK_BYTES]).unwrap();
            let cut = device.cut();
            assert_eq!(cut.pending, 2);
            assert!(device.read(0, 1).is_err(), "without power nothing answers");
            device.revive();
            assert_eq!(device.read(0, BLOCK_BYTES).unwrap(), [round; BLOCK_BYTES]);
            let is_kept = |block: u64| device.peek(block * BLOCK, 1) == [round + 100];
            kept += u64::from(is_kept(1)) + u64::from(is_kept(2));
            lost += cut.dropped;
        }
        assert!(kept > 20 && lost > 20, "{kept} kept, {lost} lost");
        assert_eq!(kept + lost, 100);
    }

    #[test]
    fn a_failed_flush_forgets_and_the_next_says_ok() {
        let mut device = device();
        device.arm(Trap::Fail(Operation::Flush), None);
        device.write(0, &[1; BLOCK_BYTES]).unwrap();
        assert!(device.flush().is_err());
        assert!(device.flush().is_ok());
        assert_eq!(device.peek(0, 1), [0]);
        assert_eq!(device.sprung(), 1);
    }

    #[test]
    fn after_a_failure_nothing_is_ever_durable() {
        for operation in [Operation::Write, Operation::Flush] {
            let mut device = device();
            device.arm(Trap::Fail(operation), None);
            assert!(device.write(0, &[1; BLOCK_BYTES]).and_then(|()| device.flush()).is_err());
            device.write(BLOCK, &[2; BLOCK_BYTES]).unwrap();
            device.flush().unwrap();
            assert_eq!(device.peek(BLOCK, 1), [2], "as if nothing had happened");
            device.cut();
            assert_eq!(device.peek(BLOCK, 1), [0]);
        }
    }

    #[test]
    fn traps_wait_for_their_blocks() {
        let mut device = device();
        device.arm(Trap::Lose, Some(3..4));
        device.write(0, &[1; BLOCK_BYTES]).unwrap();
        device.write(2 * BLOCK, &[2; 2 * BLOCK_BYTES]).unwrap();
        assert_eq!((device.peek(0, 1), device.peek(2 * BLOCK, 1)), (&[1][..], &[0][..]));
        device.arm(Trap::Misdirect(9), Some(0..1));
        device.write(0, &[3; BLOCK_BYTES]).unwrap();
        assert_eq!((device.peek(0, 1), device.peek(9 * BLOCK, 1)), (&[1][..], &[3][..]));
        device.arm(Trap::Refuse, Some(0..1));
        assert!(device.write(0, &[4; BLOCK_BYTES]).is_err());
        device.write(0, &[5; BLOCK_BYTES]).and_then(|()| device.flush()).unwrap();
        device.cut();
        device.revive();
        assert_eq!(device.peek(0, 1), [5], "sound but for the one write");
        device.arm(Trap::Fail(Operation::Read), Some(5..6));
        assert!(device.read(0, 1).is_ok());
        assert!(device.read(5 * BLOCK + 7, 1).is_err());
    }

    #[test]
    fn a_flip_is_not_undone_by_a_cut() {
        let mut device = device();
        device.write(0, &[0; BLOCK_BYTES]).unwrap();
        device.flip(5, 3);
        device.cut();
        assert_eq!(device.peek(5, 1), [8]);
    }
}
