//! A connection's stream: plain TCP as it is, or TLS as a state machine over it.
//!
//! Plain text costs nothing here but a branch. Under TLS, rustls holds the state and this file moves the bytes: what the
//! socket brings goes through one buffer into rustls, what rustls wants sent goes through another into the socket. Both
//! are kept with the connection; only rustls itself allocates, for each record.
//!
//! "Not sent" under TLS means that the kernel took no byte of a record that carries application data. The end of the
//! client's handshake usually leaves in front of the first request, in one write; those bytes do not count.
//!
//! The peer is not trusted: the handshake's bytes are bounded here and its time by the connect timeout; between two
//! pieces of plaintext at most [`SILENT_SIZE_MAX`] bytes of tickets and the like are read.
//!
//! No `close_notify` is sent: it would be a system call for each connection, and HTTP's framing has told the peer where
//! the last request ended.

use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::time::timeout;
use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};

use super::connection::SendError;
use super::tls::TlsClient;

/// Bytes that the processor may send until the handshake is over. A chain of four certificates takes 6 KiB, with
/// signatures that withstand quantum computers 20.
const HANDSHAKE_SIZE_MAX: usize = 32 * 1024;

/// Bytes that may come without any plaintext among them once the handshake is over: two tickets take 184, and a large
/// one holds a client's certificate.
const SILENT_SIZE_MAX: usize = 64 * 1024;

/// What is read from the socket at once: more than an answer and its tickets.
const READ_SIZE: usize = 4 * 1024;

/// How long a processor that asked for a client's certificate has to say what it thinks of it. In TLS 1.3 that word comes
/// after the client's last one, and with it a request would already have left. A server with tickets sends them at once;
/// only of one without is this waited for in vain, once for each full handshake.
const VERDICT_WAIT_MS: u64 = 250;

/// How a record begins: its kind, its version and its size.
const RECORD_HEADER_SIZE: usize = 5;

/// A processor's stream.
pub(super) enum Stream {
    Plain(TcpStream),
    /// Boxed: rustls's state is 1 KiB that plain connections do not need.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Whether nothing has arrived that asks for an answer to be read: no data, no end of stream, no reset.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(tcp) => matches!(arrived(tcp), Arrived::Nothing),
            Self::Tls(stream) => stream.is_quiet(),
        }
    }

    /// Writes the whole of `request`: one write unless the kernel takes less at once. The buffer comes back.
    pub(super) async fn send(&mut self, request: Vec<u8>) -> (Result<(), SendError>, Vec<u8>) {
        match self {
            Self::Plain(tcp) => write_all(tcp, request, 0).await,
            Self::Tls(stream) => (stream.send(&request).await, request),
        }
    }
}

impl AsyncReadRent for Stream {
    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
        }
    }

    async fn readv<T: IoVecBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        (Err(io::ErrorKind::Unsupported.into()), buffer)
    }
}

/// Writes all of `bytes`, of which the first `free_size` may be sent without anything having been said.
async fn write_all(
    tcp: &mut TcpStream,
    mut bytes: Vec<u8>,
    free_size: usize,
) -> (Result<(), SendError>, Vec<u8>) {
    let size = bytes.len();
    let (result, whole) = tcp.write(bytes).await;
    bytes = whole;
    let mut sent = 0;
    let mut written = result;
    loop {
        match written {
            Ok(0) | Err(_) if sent <= free_size => return (Err(SendError::Nothing), bytes),
            Ok(0) | Err(_) => return (Err(SendError::Partly), bytes),
            Ok(count) => sent += count,
        }
        if sent >= size {
            return (Ok(()), bytes);
        }
        let (result, rest) = tcp.write(bytes.slice(sent..)).await;
        bytes = rest.into_inner();
        written = result;
    }
}

/// What lies in a socket's buffer.
enum Arrived {
    Nothing,
    Bytes,
    /// The stream's end, or an error.
    End,
}

/// One `recv` that peeks costs less than keeping a read pending on each idle connection (an operation submitted and
/// cancelled per attempt), and sees what has arrived up to this moment rather than up to the last pass over the completion
/// queue.
fn arrived(tcp: &TcpStream) -> Arrived {
    let mut byte = [0];
    match receive(tcp, &mut byte, libc::MSG_PEEK) {
        Ok(1..) => Arrived::Bytes,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Arrived::Nothing,
        Ok(0) | Err(_) => Arrived::End,
    }
}

/// Reads what is there without waiting.
fn receive(tcp: &TcpStream, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    let fd = tcp.as_raw_fd();
    // SAFETY: `fd` is open for as long as `tcp` lives, and the buffer outlives the call, which does not block.
    let count =
        unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), flags | libc::MSG_DONTWAIT) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// TLS over one TCP connection.
pub(super) struct TlsStream {
    tcp: TcpStream,
    tls: ClientConnection,
    client: Rc<TlsClient>,
    /// What was read from the socket; rustls has had the first `fed` bytes of it.
    incoming: Vec<u8>,
    fed: usize,
    /// What rustls wants sent.
    outgoing: Vec<u8>,
    records: RecordEnds,
    /// Bytes read since the last plaintext.
    silent_size: usize,
    /// rustls has refused what came. Plaintext that came before that may still be there.
    is_broken: bool,
}

impl TlsStream {
    /// Does the handshake. Whatever fails, no application data has left.
    pub(super) async fn connect(tcp: TcpStream, client: Rc<TlsClient>) -> io::Result<Box<Self>> {
        let tls = client.connection().map_err(|error| {
            client.note(&error);
            io::Error::from(io::ErrorKind::InvalidData)
        })?;
        let mut stream = Box::new(Self {
            tcp,
            tls,
            client,
            incoming: Vec::with_capacity(READ_SIZE),
            fed: 0,
            outgoing: Vec::with_capacity(1024),
            records: RecordEnds::default(),
            silent_size: 0,
            is_broken: false,
        });
        stream.shake_hands().await?;
        let client = &stream.client;
        client.handshakes_total.set(client.handshakes_total.get() + 1);
        if stream.tls.handshake_kind() == Some(HandshakeKind::Resumed) {
            client.resumed_total.set(client.resumed_total.get() + 1);
        }
        stream.silent_size = 0;
        Ok(stream)
    }

    async fn shake_hands(&mut self) -> io::Result<()> {
        let mut was_asked = false;
        while self.tls.is_handshaking() {
            self.flush().await.inspect_err(|_| self.client.note_cut_off())?;
            self.client.was_asked_for_certificate();
            self.read_handshake().await?;
            was_asked |= self.client.was_asked_for_certificate();
        }
        if was_asked && self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) {
            self.flush().await.inspect_err(|_| self.client.note_cut_off())?;
            // Waits for readiness, since a read that is given up may have taken bytes with it.
            let verdict_wait = Duration::from_millis(VERDICT_WAIT_MS);
            if timeout(verdict_wait, self.tcp.readable(false)).await.is_ok() {
                self.read_handshake().await?;
            }
        }
        // Otherwise the client's last word waits in rustls and leaves together with the request.
        Ok(())
    }

    async fn read_handshake(&mut self) -> io::Result<()> {
        match self.fill().await {
            Ok(1..) if self.silent_size <= HANDSHAKE_SIZE_MAX => {}
            Ok(1..) => {
                self.client.note(&rustls::Error::General("a handshake without an end".to_owned()));
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(0) | Err(_) => {
                self.client.note_cut_off();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        if self.feed().is_err() {
            // So that the processor can say why in its log, too. Whether it hears that changes nothing.
            self.flush().await.unwrap_or_default();
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    /// Sends what rustls wants sent.
    async fn flush(&mut self) -> io::Result<()> {
        self.outgoing.clear();
        self.take_sendable();
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let (result, outgoing) = self.tcp.write_all(std::mem::take(&mut self.outgoing)).await;
        self.outgoing = outgoing;
        result.map(drop)
    }

    fn take_sendable(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.outgoing).expect("a vector takes all");
        }
    }

    async fn send(&mut self, request: &[u8]) -> Result<(), SendError> {
        assert!(!self.tls.is_handshaking(), "a connection is handed out after its handshake");
        self.outgoing.clear();
        self.take_sendable();
        let handshake_size = self.outgoing.len();
        io::Write::write_all(&mut self.tls.writer(), request).map_err(|_| SendError::Nothing)?;
        self.take_sendable();
        let outgoing = std::mem::take(&mut self.outgoing);
        let (result, outgoing) = write_all(&mut self.tcp, outgoing, handshake_size).await;
        self.outgoing = outgoing;
        result
    }

    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        loop {
            // What came before a mistake counts: plaintext first.
            let fed = self.feed();
            let size = match self.tls.reader().into_first_chunk() {
                // `close_notify`.
                Ok([]) => return (Ok(0), buffer),
                Ok(mut chunk) => {
                    let (result, buffer) = AsyncReadRent::read(&mut chunk, buffer).await;
                    if let Ok(count) = result {
                        io::BufRead::consume(&mut self.tls.reader(), count);
                    }
                    self.silent_size = 0;
                    return (result, buffer);
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return (Err(error), buffer),
                Err(_) if fed.is_err() || self.silent_size > SILENT_SIZE_MAX => {
                    return (Err(io::ErrorKind::InvalidData.into()), buffer);
                }
                Err(_) => self.fill().await,
            };
            match size {
                Ok(1..) => {}
                // Without `close_notify`: nobody can say whether this was meant to be all.
                Ok(0) => return (Err(io::ErrorKind::UnexpectedEof.into()), buffer),
                Err(error) => return (Err(error), buffer),
            }
        }
    }

    /// Tickets that arrive behind an answer are no news: rustls keeps them. Anything else is, half a record included,
    /// since it may be the beginning of an answer that nobody asked for.
    fn is_quiet(&mut self) -> bool {
        loop {
            if self.feed().is_err() || !self.reads_on() || self.silent_size > SILENT_SIZE_MAX {
                return false;
            }
            match arrived(&self.tcp) {
                Arrived::Nothing => return self.records.is_between(),
                Arrived::End => return false,
                Arrived::Bytes => {}
            }
            self.fed = 0;
            self.incoming.resize(READ_SIZE, 0);
            let Ok(count @ 1..) = receive(&self.tcp, &mut self.incoming, 0) else { return false };
            self.incoming.truncate(count);
            self.silent_size += count;
        }
    }

    /// Reads from the socket, once all that was read before has been fed.
    async fn fill(&mut self) -> io::Result<usize> {
        if self.fed < self.incoming.len() {
            // The peer spoke after its `close_notify`, or before the handshake's end was known.
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.clear();
        self.fed = 0;
        let (result, incoming) = self.tcp.read(incoming).await;
        self.incoming = incoming;
        if let Ok(count) = result {
            self.silent_size += count;
        }
        result
    }

    /// Gives rustls what was read, until there is plaintext to be taken, or the end.
    fn feed(&mut self) -> Result<(), ()> {
        while !self.is_broken && self.fed < self.incoming.len() && self.reads_on() {
            let mut rest = &self.incoming[self.fed..];
            let size = rest.len();
            let result = self.tls.read_tls(&mut rest);
            let count = size - rest.len();
            self.records.pass(&self.incoming[self.fed..self.fed + count]);
            self.fed += count;
            let result = match result {
                Ok(1..) => self.tls.process_new_packets().map(drop),
                Ok(0) | Err(_) => Err(rustls::Error::General("a record that does not fit".to_owned())),
            };
            if let Err(error) = result {
                self.client.note(&error);
                self.is_broken = true;
            }
        }
        if self.is_broken { Err(()) } else { Ok(()) }
    }

    /// Whether there is neither plaintext nor an end that must be looked at first.
    fn reads_on(&mut self) -> bool {
        let first = self.tls.reader().into_first_chunk();
        first.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Follows the records' headers, to know where one ends.
#[derive(Default)]
struct RecordEnds {
    header: [u8; RECORD_HEADER_SIZE],
    header_size: usize,
    /// Bytes of the present record that are still to come.
    left: usize,
}

impl RecordEnds {
    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let count = bytes.len().min(RECORD_HEADER_SIZE - self.header_size);
                let (header, rest) = bytes.split_at(count);
                self.header[self.header_size..self.header_size + count].copy_from_slice(header);
                self.header_size += count;
                bytes = rest;
                if self.header_size == RECORD_HEADER_SIZE {
                    self.left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
                    self.header_size = 0;
                }
            }
            let count = bytes.len().min(self.left);
            self.left -= count;
            bytes = &bytes[count..];
        }
    }

    const fn is_between(&self) -> bool {
        self.left == 0 && self.header_size == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{self, Driver, RingFlags};

    /// A peer that goes away: before anything, or while more is being written than the kernel holds.
    #[test]
    fn only_what_may_be_sent_freely_leaves_nothing_sent() {
        const SIZE: usize = 32 << 20;
        for driver in [Driver::Uring(RingFlags::Plain), Driver::Epoll] {
            for (free_size, reads, expected) in [
                (0, true, SendError::Partly),
                (1000, true, SendError::Partly),
                // All that left was the handshake's.
                (SIZE, true, SendError::Nothing),
                (0, false, SendError::Nothing),
            ] {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap();
                let (gone, has_gone) = std::sync::mpsc::channel();
                let (connected, is_connected) = std::sync::mpsc::channel();
                let peer = std::thread::spawn(move || {
                    let mut stream = listener.accept().unwrap().0;
                    is_connected.recv().unwrap();
                    if reads {
                        io::Read::read_exact(&mut stream, &mut [0; 100_000]).unwrap();
                    } else {
                        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    }
                    drop(stream);
                    gone.send(()).unwrap();
                });
                let result = driver::run(driver, async {
                    let mut tcp = TcpStream::connect_addr(address).await.unwrap();
                    connected.send(()).unwrap();
                    if !reads {
                        has_gone.recv().unwrap();
                        // Looking would take the socket's error away: on loopback the reset is here by now.
                    }
                    write_all(&mut tcp, vec![0; SIZE], free_size).await
                });
                assert_eq!(result.unwrap().0, Err(expected), "{driver:?}, {free_size} free, {reads}");
                peer.join().unwrap();
            }
        }
    }

    #[test]
    fn ends_of_records_are_found_however_they_are_cut() {
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for size in [0_u16, 1, 300, 5, 0, 17] {
            bytes.extend_from_slice(&[23, 3, 3]);
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend(std::iter::repeat_n(0xff, usize::from(size)));
            ends.push(bytes.len());
        }
        for piece_size in [1, 2, 3, 7, 64, 1000] {
            for end in 0..=bytes.len() {
                let mut records = RecordEnds::default();
                bytes[..end].chunks(piece_size).for_each(|piece| records.pass(piece));
                assert_eq!(records.is_between(), ends.contains(&end), "{end} in pieces of {piece_size}");
            }
        }
    }
}
