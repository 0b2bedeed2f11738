//! Somebody on the aggregator's socket who writes whatever bytes it likes, and reads what comes, or not.
//!
//! The bytes are put together here by the tables of docs/protocol.md and share nothing with the crate that Galo uses, so a
//! layout that changes without the document shows as cases that fail.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::PATIENCE;

/// The version of the protocol that docs/protocol.md describes.
pub(crate) const VERSION: u16 = 6;

pub(crate) const HELLO: u8 = 1;
pub(crate) const ACCEPT: u8 = 2;
pub(crate) const INTENT: u8 = 3;
pub(crate) const COMPLETION: u8 = 4;
pub(crate) const CLAIM: u8 = 5;
pub(crate) const RELEASE: u8 = 6;
pub(crate) const SUMMARY_QUERY: u8 = 7;
pub(crate) const LOOKUP_QUERY: u8 = 8;
pub(crate) const HEALTH_REPORT: u8 = 10;
pub(crate) const READY: u8 = 11;
pub(crate) const PART: u8 = 17;
pub(crate) const GRANT: u8 = 33;
pub(crate) const ACKNOWLEDGEMENT: u8 = 35;
pub(crate) const ASSIGNMENT: u8 = 36;
pub(crate) const WITHDRAWAL: u8 = 37;
pub(crate) const SUMMARY_REPLY: u8 = 38;
pub(crate) const LOOKUP_REPLY: u8 = 39;

/// What only an aggregator sends: number, name, size.
pub(crate) const OF_AGGREGATOR: [(u8, &str, usize); 18] = [
    (GRANT, "Grant", 21),
    (34, "IntentRecorded", 20),
    (ACKNOWLEDGEMENT, "Acknowledgement", 8),
    (ASSIGNMENT, "Assignment", 34),
    (WITHDRAWAL, "Withdrawal", 20),
    (SUMMARY_REPLY, "SummaryReply", 9),
    (LOOKUP_REPLY, "LookupReply", 43),
    (40, "Purged", 4),
    (41, "PurgeReply", 4),
    (42, "Lease", 1),
    (43, "HealthNews", 11),
    (44, "Flush", 4),
    (45, "Yield", 20),
    (48, "PastDecision", 16),
    (49, "SummaryTotal", 17),
    (51, "Notified", 17),
    (52, "Contradiction", 29),
    (53, "Opened", 14),
];

/// A header with these very numbers.
pub(crate) fn header(body_size: u32, kind: u8, reserved: u8, count: u16) -> Vec<u8> {
    [&body_size.to_le_bytes()[..], &[kind, reserved], &count.to_le_bytes()].concat()
}

/// A frame of one record.
pub(crate) fn frame(kind: u8, record: &[&[u8]]) -> Vec<u8> {
    let body = record.concat();
    [header(u32::try_from(body.len()).unwrap_or(u32::MAX), kind, 0, 1), body].concat()
}

/// A hello in this version and role: 0 a gateway, which knows the contest's processors, 1 the aggregator.
pub(crate) fn hello(version: u16, role: u8, instance: u8) -> Vec<u8> {
    hello_of(version, role, instance, if role == 0 { fingerprint(&["default", "fallback"]) } else { 0 })
}

/// Likewise, of a peer that knows these processors.
pub(crate) fn hello_of(version: u16, role: u8, instance: u8, processors: u16) -> Vec<u8> {
    let head = [&version.to_le_bytes()[..], &[role, instance], &[0; 2], &processors.to_le_bytes()];
    frame(HELLO, &[&head.concat(), &[7; 8]])
}

/// What stands for the processors with these names and the numbers from 0: both halves of a CRC-32C, one upon the other.
pub(crate) fn fingerprint(names: &[&str]) -> u16 {
    let mut sum = u32::MAX;
    for (number, name) in (0_u8..).zip(names) {
        for byte in [&[number], name.as_bytes(), b"\n"].concat() {
            sum ^= u32::from(byte);
            for _ in 0..8 {
                sum = sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
    }
    let [a, b, c, d] = (!sum).to_le_bytes();
    u16::from_le_bytes([a ^ c, b ^ d]).max(1)
}

/// An id's 16 bytes.
pub(crate) fn id_bytes(id: &str) -> Vec<u8> {
    let digits: Vec<u32> = id.chars().filter_map(|digit| digit.to_digit(16)).collect();
    let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte * 16 + digit);
    digits.chunks(2).filter_map(|pair| u8::try_from(byte(pair)).ok()).collect()
}

/// See the module's documentation.
pub(crate) struct Peer {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Peer {
    pub(crate) fn connect(socket: &Path) -> Result<Self, String> {
        let connect = || -> std::io::Result<UnixStream> {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream = connect().map_err(|error| format!("{}: {error}", socket.display()))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Connects, says hello as a gateway of this number, and reads the answer.
    pub(crate) fn greeted(socket: &Path, instance: u8) -> Result<Self, String> {
        let mut peer = Self::connect(socket)?;
        peer.send(&hello(VERSION, 0, instance))?;
        match peer.next()? {
            Some((HELLO, _)) => Ok(peer),
            other => Err(format!("a hello is answered with {other:?}")),
        }
    }

    /// Writes; an error if the other side has gone.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("write: {error}"))
    }

    /// The next record of one frame, with its kind; `None` at the end of the stream. Records of a batch come one by one.
    pub(crate) fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, String> {
        loop {
            if let Some((kind, record)) = self.pop() {
                return Ok(Some((kind, record)));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(size) => self.unread.extend_from_slice(&buffer[..size]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(format!("read: {error}")),
            }
        }
    }

    fn pop(&mut self) -> Option<(u8, Vec<u8>)> {
        let (header, rest) = self.unread.split_first_chunk::<8>()?;
        let [size_0, size_1, size_2, size_3, kind, _, count_0, count_1] = *header;
        let body_size = u32::from_le_bytes([size_0, size_1, size_2, size_3]);
        let count = u16::from_le_bytes([count_0, count_1]);
        let record_size = (body_size / u32::from(count.max(1))) as usize;
        let record = rest.get(..record_size)?.to_vec();
        self.unread.drain(..8 + record_size);
        if count > 1 {
            let left = header_of_rest(body_size, record_size, kind, count);
            self.unread.splice(..0, left);
        }
        Some((kind, record))
    }

    /// Reads until a record of this kind comes.
    pub(crate) fn until(&mut self, wanted: u8) -> Result<Vec<u8>, String> {
        let start = Instant::now();
        loop {
            match self.next()? {
                Some((kind, record)) if kind == wanted => return Ok(record),
                // Others may come for ever.
                Some(_) if start.elapsed() < PATIENCE => {}
                Some(_) => return Err(format!("no record of kind {wanted} within {PATIENCE:?}")),
                None => return Err(format!("closed instead of a record of kind {wanted}")),
            }
        }
    }

    /// Reads until so many records of this kind have come, and returns the last byte of each that is not `expected`.
    pub(crate) fn count(&mut self, wanted: u8, mut count: usize, expected: u8) -> Result<Vec<u8>, String> {
        let (start, mut others) = (Instant::now(), Vec::new());
        loop {
            let mut used = 0;
            while let Some((header, rest)) = self.unread[used..].split_first_chunk::<8>() {
                let [size_0, size_1, size_2, size_3, kind, _, count_0, count_1] = *header;
                let size = u32::from_le_bytes([size_0, size_1, size_2, size_3]) as usize;
                let len = usize::from(u16::from_le_bytes([count_0, count_1])).max(1);
                let Some(records) = rest.get(..size) else { break };
                used += 8 + size;
                if kind == wanted {
                    count = count.saturating_sub(len);
                    let last = records.chunks(size / len).filter_map(|record| record.last().copied());
                    others.extend(last.filter(|last| *last != expected));
                }
            }
            self.unread.drain(..used);
            if count == 0 {
                return Ok(others);
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("{count} records of kind {wanted} are missing after {PATIENCE:?}"));
            }
            let mut buffer = [0; 65_536];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(format!("closed before {count} records of kind {wanted}")),
                Ok(size) => self.unread.extend_from_slice(&buffer[..size]),
                Err(error) => return Err(format!("read: {error}")),
            }
        }
    }

    /// Reads until the other side closes; gives what came.
    pub(crate) fn until_closed(&mut self) -> Result<Vec<(u8, Vec<u8>)>, String> {
        let (start, mut records) = (Instant::now(), Vec::new());
        while let Some(record) = self.next()? {
            records.push(record);
            if start.elapsed() > PATIENCE {
                return Err(format!("not closed within {PATIENCE:?}; it sent {} records", records.len()));
            }
        }
        Ok(records)
    }

    /// How long a write may take before it is an error.
    pub(crate) fn limit_writes(&self, limit: Duration) -> Result<(), String> {
        self.stream.set_write_timeout(Some(limit)).map_err(|error| error.to_string())
    }
}

fn header_of_rest(body_size: u32, record_size: usize, kind: u8, count: u16) -> Vec<u8> {
    header(body_size - u32::try_from(record_size).unwrap_or(body_size), kind, 0, count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_and_batches_are_read_record_by_record() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut peer = Peer { stream: ours, unread: Vec::new() };
        let mut theirs = theirs;
        theirs.write_all(&[header(16, ACKNOWLEDGEMENT, 0, 2), vec![1; 8], vec![2; 8]].concat()).unwrap();
        theirs.write_all(&hello_of(1, 1, 0, 0x0302)).unwrap();
        drop(theirs);
        let records = peer.until_closed().unwrap();
        let kinds: Vec<u8> = records.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [ACKNOWLEDGEMENT, ACKNOWLEDGEMENT, HELLO]);
        assert_eq!(records[1].1, [2; 8]);
        assert_eq!(records[2].1, [1, 0, 1, 0, 0, 0, 2, 3, 7, 7, 7, 7, 7, 7, 7, 7]);
    }

    #[test]
    fn a_fingerprint_is_a_crc_32c_folded() {
        assert_eq!(fingerprint(&["default", "fallback"]), 0x8fd3);
        assert_ne!(fingerprint(&["default", "fallback"]), fingerprint(&["fallback", "default"]));
        assert_ne!(fingerprint(&["default"]), fingerprint(&["default", "fallback"]));
        assert_eq!(fingerprint(&[]), 1, "never nought");
    }

    #[test]
    fn an_id_is_its_bytes_in_the_order_of_its_digits() {
        let id = id_bytes("00010203-0405-0607-0809-0a0b0c0d0eff");
        assert_eq!(id, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
    }
}
