//! Hostile answers against the decoder, in memory: nothing may panic, since a panic ends the process.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use galo_engine::verdict::End;
use monoio::BufResult;
use monoio::buf::{IoBufMut, IoVecBufMut};
use monoio::io::AsyncReadRent;
use monoio::io::stream::Stream;
use monoio_http::common::body::Body;
use monoio_http::h1::codec::decoder::ClientResponseDecoder;
use proptest::prelude::*;

use super::super::answer::{AnswerReader, HEAD_SIZE_MAX};
use super::super::offline::read_answer;
use super::{ANSWER_200, ANSWER_500};

/// Bytes that arrive in pieces of at most so many.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl AsyncReadRent for Pieces<'_> {
    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        let mut piece = &self.rest[..self.size.min(self.rest.len())];
        let (result, buffer) = AsyncReadRent::read(&mut piece, buffer).await;
        if let Ok(count) = result {
            self.rest = &self.rest[count..];
        }
        (result, buffer)
    }

    async fn readv<T: IoVecBufMut>(&mut self, _: T) -> BufResult<usize, T> {
        unreachable!("the decoder reads into one buffer")
    }
}

/// What came of an answer: the status if its head was read, and whether the connection could go on.
type Read = Option<(u16, Option<bool>)>;

fn read(bytes: &[u8], size: usize) -> Read {
    now(async {
        let mut reader = AnswerReader::new(Pieces { rest: bytes, size });
        let head = reader.read_head().await.ok()?;
        let status = head.status;
        Some((status, reader.read_body(head, |_| {}).await.ok()))
    })
}

/// What monoio-http makes of an answer: the status if its head was read, and the body if that came whole.
fn by_monoio_http(bytes: &[u8]) -> Option<(u16, Option<Vec<u8>>)> {
    now(async {
        let mut decoder = ClientResponseDecoder::new(bytes);
        loop {
            let response = decoder.next().await?.ok()?;
            let status = response.status().as_u16();
            if (100..=199).contains(&status) && status != 101 {
                continue;
            }
            let mut payload = response.into_body().with_io(&mut decoder);
            let mut body = Vec::new();
            while let Some(piece) = payload.next_data().await {
                match piece {
                    Ok(piece) => body.extend_from_slice(&piece),
                    Err(_) => return Some((status, None)),
                }
            }
            return Some((status, Some(body)));
        }
    })
}

/// Runs a future that never waits.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("reading from memory never waits"),
    }
}

#[test]
fn a_header_name_of_any_length_is_survived() {
    for size in [1, 63, 64, 65, 8000, HEAD_SIZE_MAX - 30, HEAD_SIZE_MAX, 65_535, 65_536, 70_000, 1 << 20] {
        let answer = format!("HTTP/1.1 200 OK\r\n{}: x\r\nContent-Length: 0\r\n\r\n", "n".repeat(size));
        let expected = (answer.len() <= HEAD_SIZE_MAX).then_some((200, Some(true)));
        for pieces in [1000, usize::MAX] {
            let read = read(answer.as_bytes(), pieces);
            assert_eq!(
                read.map(|(status, _)| status),
                expected.map(|(status, _)| status),
                "name of {size} bytes"
            );
        }
    }
}

#[test]
fn every_byte_in_every_place_of_a_head_is_survived() {
    let mut accepted = 0;
    for byte in 0..=u8::MAX {
        for length in [1, 2, 64, 65, 300] {
            for at in [0, length / 2, length - 1] {
                let mut text = vec![b'x'; length];
                text[at] = byte;
                for (before, after) in [
                    ("HTTP/1.1 200 OK\r\n", ": value\r\n\r\n"),
                    ("HTTP/1.1 200 OK\r\nname: ", "\r\n\r\n"),
                    ("HTTP/1.1 200 ", "\r\nname: value\r\n\r\n"),
                    ("HTTP/1.1 ", "\r\n\r\n"),
                    ("", " 200 OK\r\n\r\n"),
                    ("HTTP/1.1 200 OK\r\nContent-Length: ", "\r\n\r\n"),
                    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: ", "\r\n\r\n"),
                    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "\r\n\r\n"),
                ] {
                    let answer = [before.as_bytes(), &text, after.as_bytes()].concat();
                    accepted += usize::from(read(&answer, usize::MAX).is_some());
                }
            }
        }
    }
    assert!(accepted > 1000, "the loop must reach past the first line: {accepted}");
}

#[test]
fn every_status_is_survived() {
    for status in 0..1000 {
        let read =
            read(format!("HTTP/1.1 {status:03} X\r\nContent-Length: 0\r\n\r\n").as_bytes(), usize::MAX);
        match status {
            0..=100 | 102..=199 => assert_eq!(read, None, "{status}"),
            _ => assert_eq!(read, Some((status, Some(true))), "{status}"),
        }
    }
}

/// With empty lines before a head, or lines that end in LF alone, it is not sure what the status belongs to.
#[test]
fn what_may_not_be_the_head_that_it_seems_has_no_status() {
    for answer in [
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\n\nHTTP/1.1 500 X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\n\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\nHTTP/1.1 500 X\r\n\r\n",
    ] {
        for piece in [1, 2, 19, 26, usize::MAX] {
            assert_eq!(read(answer.as_bytes(), piece), None, "{answer:?}");
        }
    }
}

#[test]
fn a_chunk_says_its_size_in_hexadecimal_digits_and_nothing_else() {
    let chunked = |chunks: &str| {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        read(answer.as_bytes(), usize::MAX).and_then(|(_, kept)| kept)
    };
    let with_line = |line: &str| chunked(&format!("{line}\r\nabcdefghij\r\n0\r\n\r\n"));
    for line in ["a", "A", "0a", "000000000000000a"] {
        assert_eq!(with_line(line), Some(true), "{line:?}");
    }
    for line in
        ["", "+a", "-a", "0xa", "a;b=c", "a ", " a", "a\r", "a\n", "0000000000000000a", "9", "b", "4000"]
    {
        assert_eq!(with_line(line), None, "{line:?}");
    }
    assert_eq!(chunked("00\r\n\r\n"), Some(true));
    for last in ["\r\n\r\n", "0\r\n\n", "0\n\r\n", "0\r\nname: x\r\n\r\n"] {
        assert_eq!(chunked(last), None, "{last:?}");
    }
}

#[test]
fn answers_without_an_end_are_cut_off() {
    let endless = "x".repeat(1 << 20);
    for (start, expected) in [
        ("", None),
        ("HTTP/1.1 200 OK\r\nname: ", None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", Some((200, None))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", Some((200, None))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff0\r\n", Some((200, None))),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", Some((200, None))),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", Some((200, None))),
    ] {
        assert_eq!(read([start, &endless].concat().as_bytes(), usize::MAX), expected, "{start:?}");
    }
    let many = "HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000);
    assert_eq!(read(many.as_bytes(), usize::MAX), None);
    let many =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "1\r\nx\r\n".repeat(100_000));
    assert_eq!(read(many.as_bytes(), usize::MAX), Some((200, None)));
    let zeros = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", "0".repeat(100_000));
    assert_eq!(read(zeros.as_bytes(), usize::MAX), Some((200, None)));
    let headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(97));
    assert_eq!(read(headers.as_bytes(), usize::MAX), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    /// Good answers with bytes changed, cut out, doubled and cut short, in pieces of any size.
    #[test]
    fn damaged_answers_are_survived(
        which in 0..4_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 0..6),
        piece in prop::sample::select(vec![1, 2, 3, 7, 100, usize::MAX]),
    ) {
        let mut answer = [
            ANSWER_200.to_owned(),
            ANSWER_500.to_owned(),
            format!("HTTP/1.1 100 Continue\r\n\r\n{ANSWER_200}{ANSWER_500}"),
            "HTTP/1.1 204 No Content\r\nConnection: close\r\nSet-Cookie: a=b\r\n\r\n".to_owned(),
        ][which].clone().into_bytes();
        for (at, kind, byte) in changes {
            let at = at.index(answer.len());
            match kind {
                0 => answer[at] = byte,
                1 if answer.len() > 1 => { answer.remove(at); }
                2 => answer.insert(at, byte),
                _ => answer.truncate(at.max(1)),
            }
        }
        // No panic is the property; that the pieces' size changes nothing is the other.
        let ours = read_answer(&answer, piece);
        prop_assert_eq!(ours.end, read_answer(&answer, usize::MAX).end);
        // What is read at all, another reader reads likewise.
        let theirs = by_monoio_http(&answer);
        if ours.end != End::UNANSWERED {
            prop_assert_eq!(theirs.as_ref().map(|(status, _)| *status), Some(ours.end.status));
        }
        if let Some(body) = ours.body {
            prop_assert_eq!(theirs.and_then(|(_, body)| body), Some(body));
        }
    }

    /// Bytes that were never an answer.
    #[test]
    fn noise_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..300), is_body in any::<bool>()) {
        let start = if is_body { "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" } else { "HTTP/1.1 2" };
        read(&[start.as_bytes(), &bytes].concat(), 64);
        read(&bytes, 64);
    }
}
