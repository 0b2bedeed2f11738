//! Frames of the socket, and the blocks of the journal: what decodes must encode to the very same bytes.
//!
//! A reference walks the headers by itself. So a field that is read and not written, a value that two byte patterns stand for, and a
//! frame that ends elsewhere are all found; and so is a reading that depends on how much has arrived.

use galo_wire::journal::{BLOCK_SIZE, Header, Record};
use galo_wire::{
    FRAME_BODY_SIZE_MAX, FRAME_HEADER_SIZE, FrameError, FrameWriter, Kind, Message, decode_frames,
};

/// First byte: where the stream is cut in a second reading. The rest: the stream.
pub fn run(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let (messages, end) = decode(bytes);

    // Frame by frame: a frame that decodes encodes to itself.
    let (mut at, mut again) = (0, Vec::new());
    let reference = loop {
        let Some(header) = bytes.get(at..at + FRAME_HEADER_SIZE) else { break Ok(at) };
        let body_size = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
        let count = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let Some(kind) = Kind::ALL.iter().find(|kind| **kind as u8 == header[4]) else { break Err(()) };
        if header[5] != 0
            || count == 0
            || body_size > FRAME_BODY_SIZE_MAX
            || body_size != count * kind.record_size()
        {
            break Err(());
        }
        let Some(frame) = bytes.get(at..at + FRAME_HEADER_SIZE + body_size) else { break Ok(at) };
        let (records, frame_end) = decode(frame);
        if let Err(error) = frame_end {
            assert!(matches!(error, FrameError::Record { index, .. } if index == records.len()), "{error}");
            again.extend(records);
            break Err(());
        }
        assert_eq!(frame_end, Ok(frame.len()));
        assert_eq!(records.len(), count);
        let mut writer = FrameWriter::default();
        records.iter().for_each(|record| writer.push(*record));
        assert_eq!(writer.take(Vec::new()), frame, "what decodes encodes to itself");
        again.extend(records);
        at += frame.len();
    };
    assert_eq!(end.ok(), reference.ok());
    assert_eq!(messages, again);

    // Cut anywhere: the same beginning, and never an end beyond the cut.
    let cut = bytes.len() * usize::from(*cut) / 256;
    let (first, first_end) = decode(&bytes[..cut]);
    assert!(messages.starts_with(&first), "what has not arrived changes nothing");
    match first_end {
        Ok(used) => assert!(used <= cut),
        Err(error) => assert_eq!(end, Err(error), "an error stays"),
    }
    blocks(bytes);
}

fn decode(bytes: &[u8]) -> (Vec<Message>, Result<usize, FrameError>) {
    let mut messages = Vec::new();
    let end = decode_frames(bytes, |message| messages.push(message));
    (messages, end)
}

/// The journal's codec: as the bytes are, and with the checksum that makes them believed.
fn blocks(bytes: &[u8]) {
    for block in bytes.chunks_exact(BLOCK_SIZE).take(4) {
        let mut sealed = [0; BLOCK_SIZE];
        sealed.copy_from_slice(block);
        let checksum = crc32c::crc32c(&sealed[..BLOCK_SIZE - 4]);
        sealed[BLOCK_SIZE - 4..].copy_from_slice(&checksum.to_le_bytes());
        for bytes in [block, &sealed[..]] {
            if let Some(record) = Record::decode(bytes) {
                assert_eq!(crc32c::crc32c(&bytes[..BLOCK_SIZE - 4]).to_le_bytes(), bytes[BLOCK_SIZE - 4..]);
                assert_eq!(Record::decode(&record.encode()), Some(record));
            }
            if let Ok(header) = Header::decode(bytes) {
                assert!(bytes.starts_with(b"GALOJRNL"));
                assert_eq!(Header::decode(&header.encode()), Ok(header));
            }
        }
    }
    assert_eq!(Record::decode(&bytes[..bytes.len().min(BLOCK_SIZE - 1)]), None, "a record cut short is none");
}
