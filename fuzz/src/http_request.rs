//! A client's bytes, cut into pieces: framing, the gate and monoio-http's decoder, and the payments that go past it.
//!
//! Held against httparse for whatever is accepted, and against a strict grammar, far narrower than HTTP's, whose requests must be
//! accepted. Requests that follow each other are read one after the other: the next one begins where the reference says.

use galo_gateway::http::offline::{ReadRequest, read_request};

const REQUEST_SIZE_MAX: usize = 16 * 1024;
const PIPELINE_LEN_MAX: usize = 8;

/// First byte: the pieces' size. The rest: what the client sends.
pub fn run(data: &[u8]) {
    let Some((piece, mut rest)) = data.split_first() else { return };
    let piece_size = usize::from(*piece) + 1;
    for _ in 0..PIPELINE_LEN_MAX {
        let read = read_request(rest, rest.len().max(1));
        let in_pieces = read_request(rest, piece_size);
        match (&read, &in_pieces) {
            // Beyond the budget, how much had arrived decides which of two flaws is named.
            (Err(_), Err(_)) if rest.len() >= REQUEST_SIZE_MAX / 2 => {}
            _ => assert_eq!(read, in_pieces, "pieces of {piece_size} bytes change the reading"),
        }
        let plain = plain_size(rest);
        match read {
            Err(status) => {
                assert!(matches!(status, 400 | 413 | 414 | 417 | 431 | 501 | 505), "status {status}");
                assert_eq!(plain, None, "a plain request was refused with {status}");
                return;
            }
            Ok(None) => {
                assert_eq!(plain, None, "a plain request was waited for");
                assert!(rest.len() < REQUEST_SIZE_MAX, "the budget is over");
                return;
            }
            Ok(Some(request)) => {
                check(&request, rest);
                if let Some(size) = plain {
                    assert_eq!(request.size, size, "a plain request has another end");
                }
                if !request.keep_alive {
                    return;
                }
                rest = &rest[request.size..];
            }
        }
    }
}

/// What was accepted must be what httparse reads, with one length that two readers agree on.
fn check(request: &ReadRequest, bytes: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut other = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(head_size)) = other.parse(bytes) else {
        panic!("accepted, and httparse reads no head");
    };
    assert_eq!(other.method, Some(request.method.as_str()));
    let target = other.path.expect("a whole head has a target");
    if target.starts_with('/') {
        // A fragment is the client's own business, and goes no further.
        assert_eq!(target.split('#').next(), Some(request.target.as_str()));
    }
    let mut theirs: Vec<(String, Vec<u8>)> = other
        .headers
        .iter()
        .map(|header| (header.name.to_ascii_lowercase(), header.value.to_vec()))
        .collect();
    let mut ours = request.headers.clone();
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs);

    let all = |name: &str| -> Vec<&[u8]> {
        let named = theirs.iter().filter(|(other, _)| other == name);
        named.map(|(_, value)| value.as_slice()).collect()
    };
    let (lengths, encodings) = (all("content-length"), all("transfer-encoding"));
    let (body, body_size) = match (lengths.as_slice(), encodings.as_slice()) {
        ([], []) => (Vec::new(), 0),
        ([length], []) => {
            assert!(!length.is_empty() && length.iter().all(u8::is_ascii_digit), "a length is digits");
            let size: usize =
                std::str::from_utf8(length).expect("digits").parse().expect("within the budget");
            (bytes[head_size..head_size + size].to_vec(), size)
        }
        ([], [encoding]) => {
            assert!(encoding.eq_ignore_ascii_case(b"chunked"), "an encoding that nobody reads");
            unchunk(&bytes[head_size..]).expect("accepted chunks are whole")
        }
        _ => panic!("two ways to tell where the body ends"),
    };
    assert_eq!(request.body, body);
    // With or without the codec, a payment's body is the same.
    let is_payment = other.method == Some("POST") && target == "/payments" && encodings.is_empty();
    assert_eq!(request.payment, is_payment.then_some(body));
    assert_eq!(request.size, head_size + body_size);
    assert!(request.size <= REQUEST_SIZE_MAX);
}

/// A body in the plainest of chunks, and the bytes that they take.
fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line_size = bytes[at..].windows(2).position(|pair| pair == b"\r\n")?;
        let digits = std::str::from_utf8(&bytes[at..at + line_size]).ok()?;
        let plain =
            !digits.is_empty() && digits.len() <= 7 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let size = plain.then(|| usize::from_str_radix(digits, 16).ok()).flatten()?;
        at += line_size + 2;
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size;
        if bytes.get(at..at + 2)? != b"\r\n" {
            return None;
        }
        at += 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

/// The size of the plain request that `bytes` begin with: one that every server must take.
fn plain_size(bytes: &[u8]) -> Option<usize> {
    let head_end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_end]).ok()?;
    let head_size = head_end + 4;
    if head_size > 8_000 || !head.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n')) {
        return None;
    }
    let mut lines = head.split("\r\n");
    let target = lines.next()?.strip_prefix("POST ")?.strip_suffix(" HTTP/1.1")?;
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    if target.len() > 1_000
        || !target.starts_with('/')
        || !target.bytes().all(|byte| is_letter(byte) || byte == b'/')
    {
        return None;
    }
    let (mut count, mut hosts, mut length, mut is_chunked) = (0, 0, None, false);
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        let is_name = !name.is_empty()
            && name.len() <= 100
            && name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
        if !is_name || value.contains(['\r', '\n']) {
            return None;
        }
        count += 1;
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "content-length" => {
                let is_plain =
                    (1..=4).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_digit());
                if !is_plain || length.replace(value.parse::<usize>().ok()?).is_some() {
                    return None;
                }
            }
            "transfer-encoding" if value == "chunked" && !is_chunked => is_chunked = true,
            "transfer-encoding" | "expect" => return None,
            _ => {}
        }
    }
    if hosts != 1 || count > 60 {
        return None;
    }
    let body_size = match (length, is_chunked) {
        (Some(_), true) => return None,
        (Some(length), false) => (bytes.len() - head_size >= length).then_some(length)?,
        (None, true) => unchunk(&bytes[head_size..])?.1,
        (None, false) => 0,
    };
    (head_size + body_size <= REQUEST_SIZE_MAX).then_some(head_size + body_size)
}
