//! The link to the aggregator: connect, say hello, pump frames both ways, and begin again when it breaks.
//!
//! One task reads, one writes; what gathers while a write is under way leaves with the next one.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use galo_shell::log::{Repeats, SAID_MAX};
use galo_wire::record::{Hello, Role};
use galo_wire::{
    Attached, AttachedError, FRAME_BODY_SIZE_MAX, FRAME_HEADER_SIZE, FrameError, FrameWriter, Message,
    PROTOCOL_VERSION, decode_frames,
};
use monoio::buf::IoBufMut;
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable,
};
use monoio::net::UnixStream;

use crate::core::Core;

/// Two of the largest frames, so that one is always whole after a read.
const READ_SIZE: usize = 2 * (FRAME_BODY_SIZE_MAX + FRAME_HEADER_SIZE);

/// Between two tries to connect: an aggregator that was killed is back within a few of them.
const RETRY: Duration = Duration::from_millis(10);

/// A buffer that all claims of a gateway have been in is not kept beyond that.
const KEPT_SIZE_MAX: usize = 1 << 20;

/// Why the link broke, for the log.
#[derive(Debug, thiserror::Error)]
enum Break {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("closed by the aggregator")]
    Closed,
    #[error("the aggregator does not read what it is sent")]
    Deaf,
    #[error("a bad frame: {0}")]
    Frame(#[from] FrameError),
    #[error("a text that belongs to nothing: {0}")]
    Attached(#[from] AttachedError),
    #[error(
        "the aggregator speaks protocol version {0}, expected {PROTOCOL_VERSION}: \
         gateway and aggregator are of different builds"
    )]
    Version(u16),
    #[error("the aggregator did not say hello first")]
    Rude,
}

/// Keeps the link up for as long as the thread lives.
pub async fn maintain(core: Rc<Core>, socket: &Path, hello: Hello) {
    // A link that breaks is tried again at once, and may break for the same reason each time.
    let mut repeats = Repeats::default();
    loop {
        let (trouble, said_max) = match UnixStream::connect(socket).await {
            Ok(stream) => {
                let broken = converse(stream, &core, hello, &mut repeats).await;
                // Only another build changes that.
                let said_max = if matches!(broken, Break::Version(_)) { 1 } else { SAID_MAX };
                (format!("the link to the aggregator broke: {broken}"), said_max)
            }
            Err(error) => (format!("no aggregator at {}: {error}; trying again", socket.display()), 1),
        };
        if let Some(line) = repeats.line(trouble, said_max) {
            tracing::warn!("{line}");
        }
        monoio::time::sleep(RETRY).await;
    }
}

async fn converse(stream: UnixStream, core: &Rc<Core>, hello: Hello, repeats: &mut Repeats) -> Break {
    // SAFETY: the stream is open and owned here.
    let duplicated = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }.try_clone_to_owned();
    let mut socket = match duplicated {
        Ok(socket) => Some(socket.into()),
        Err(error) => return error.into(),
    };
    let (mut reader, mut writer) = stream.into_split();
    let mut greeting = FrameWriter::default();
    greeting.push(hello);
    if let Err(error) = writer.write_all(greeting.take(Vec::new())).await.0 {
        return error.into();
    }
    let mut greeted = false;
    let mut writer = Some(writer);
    let mut buffer = Vec::with_capacity(READ_SIZE);
    let mut attached = Attached::default();
    let broken = loop {
        let result = read(&mut reader, &mut buffer).await;
        match result {
            Ok(0) if core.is_cut() => break Break::Deaf,
            Ok(0) => break Break::Closed,
            Ok(_) => {}
            Err(error) => break error.into(),
        }
        let mut refusal = None;
        let used = decode_frames(&buffer, |message| match message {
            Message::Hello(theirs) if !greeted => {
                greeted = true;
                if theirs.protocol_version != PROTOCOL_VERSION || theirs.role != Role::Aggregator {
                    refusal = Some(Break::Version(theirs.protocol_version));
                } else if let (Some(writer), Some(socket)) = (writer.take(), socket.take()) {
                    if let Some(line) = repeats.line("connected to the aggregator".to_owned(), SAID_MAX) {
                        tracing::info!("{line}");
                    }
                    monoio::spawn(write_out(writer, Rc::clone(core), core.link_number()));
                    core.connected(socket);
                }
            }
            message if greeted && refusal.is_none() => match attached.take_in(&message) {
                Ok(true) => {
                    core.received(message, &attached);
                    attached.clear();
                }
                Ok(false) => {}
                Err(error) => refusal = Some(error.into()),
            },
            _ => refusal = refusal.take().or(Some(Break::Rude)),
        });
        if let Some(refusal) = refusal {
            break refusal;
        }
        match used {
            Ok(used) => drop(buffer.drain(..used)),
            Err(error) => break error.into(),
        }
    };
    if writer.is_none() {
        core.disconnected();
    }
    broken
}

/// Reads once behind what is in the buffer.
async fn read(reader: &mut OwnedReadHalf<UnixStream>, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    let owned = std::mem::take(buffer);
    let filled = owned.len();
    let (result, slice) = reader.read(owned.slice_mut(filled..)).await;
    *buffer = slice.into_inner();
    result
}

/// Writes for the link of this number, which may be gone before this task has its first turn: a writer that outlived
/// its link would take the next one's frames down a dead socket.
async fn write_out(mut writer: OwnedWriteHalf<UnixStream>, core: Rc<Core>, link_number: u64) {
    let mut spare = Vec::with_capacity(64 << 10);
    loop {
        core.outgoing.lowered().await;
        if core.link_number() != link_number {
            // It may have been raised for the next link's writer.
            core.outgoing.raise();
            return;
        }
        while !core.frames.borrow().is_empty() {
            let bytes = core.frames.borrow_mut().take(spare);
            let (result, returned) = writer.write_all(bytes).await;
            spare = if returned.capacity() > KEPT_SIZE_MAX { Vec::new() } else { returned };
            if core.link_number() != link_number {
                return;
            }
            if let Err(error) = result {
                // The reader sees the same end and says so.
                tracing::debug!("write to the aggregator: {error}");
                if let Err(error) = writer.shutdown().await {
                    tracing::debug!("shutdown: {error}");
                }
                return;
            }
        }
    }
}
