//! Tests of the crate as its users see it: files in, bytes and verdicts out.

mod errors;
mod headers;
mod lookups;
mod reload;
mod requests;
mod secrets;
mod shipped;

use std::path::{Path, PathBuf};

use galo_engine::CorrelationId;
use galo_engine::money::AmountCents;
use galo_engine::time::UnixMillis;

use crate::{Members, Payment, Processor, Processors, Secret};

const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";
const DIGITS: &str = "4a7901b87d264d9daa194dc1c7cf60b3";

fn id() -> CorrelationId {
    CorrelationId::parse(ID.as_bytes()).unwrap()
}

/// A folder with secrets in it, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("galo-profile-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let folder = Self(path);
        folder.write("token", "s3cret-token\n");
        folder.write("password", "pass:word\n");
        folder.write("blank", "a b\n");
        folder.write("newline", "\n");
        folder.write("empty", "");
        folder.write("pem", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n");
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    fn parse(&self, text: &str) -> Result<Processors, String> {
        Processors::parse(text, "processors.toml", &self.0).map_err(|errors| errors.to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// A processor of one's own with a few lines added to its head and others to its end.
fn own(head: &str, tables: &str) -> String {
    format!(
        "[[processor]]\nname = \"bank\"\nurl = \"http://bank.test:8001/v1\"\n{head}\n{tables}\n\
         [[processor.outcome]]\nstatus = 200\nverdict = \"processed\"\n"
    )
}

fn one(text: &str) -> Processor {
    one_in(Path::new("."), text)
}

fn one_in(folder: &Path, text: &str) -> Processor {
    let processors =
        Processors::parse(text, "processors.toml", folder).unwrap_or_else(|errors| panic!("{errors}"));
    processors.iter().next().unwrap().clone()
}

fn payment<'a>(cents: u64, members: &'a Members<'a>) -> Payment<'a> {
    Payment {
        correlation_id: id(),
        amount: AmountCents::new(cents).unwrap(),
        requested_at: UnixMillis(1_752_582_896_789),
        members,
    }
}

fn rendered(processor: &Processor, cents: u64, members: &str) -> String {
    let members = Members::read(members).unwrap();
    let token = Secret::new(*b"t0ken");
    let mut buffer = b"left over".to_vec();
    processor.request.render(&payment(cents, &members), Some(&token), &mut buffer).unwrap();
    let text = String::from_utf8(buffer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert_eq!(length, body.len().to_string(), "{text}");
    text
}

fn body(processor: &Processor, cents: u64, members: &str) -> String {
    rendered(processor, cents, members).split_once("\r\n\r\n").unwrap().1.to_owned()
}
