//! What is wrong with a file of processors: one line for each mistake, with its place.

use std::fmt;
use std::rc::Rc;

/// Longer values are cut in messages.
const SHOWN_LEN_MAX: usize = 80;

/// Where something stands: a file and a line in it, counted from 1; line 0 is the file as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct At {
    pub(crate) file: Rc<str>,
    pub(crate) line: usize,
}

/// One mistake, for people: `processors.toml:3: processor.url = "ftp://x": expected http://host[:port][/prefix]`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Error {
    file: String,
    line: usize,
    text: String,
}

impl Error {
    pub(crate) fn new(at: &At, text: String) -> Self {
        Self { file: at.file.to_string(), line: at.line, text }
    }

    /// A mistake that stands in no file.
    pub(crate) fn without_file(text: String) -> Self {
        Self { file: String::new(), line: 0, text }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.as_str(), self.line) {
            ("", _) => {}
            (file, 0) => write!(f, "{file}: ")?,
            (file, line) => write!(f, "{file}:{line}: ")?,
        }
        // One line each, whatever stands in a value or in a path.
        f.write_str(&self.text.replace(['\n', '\r'], " "))
    }
}

/// All mistakes of one file, in the order of their lines; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Errors(Vec<Error>);

impl Errors {
    pub(crate) fn new(mut errors: Vec<Error>) -> Self {
        assert!(!errors.is_empty(), "a failure has a reason");
        errors.sort();
        errors.dedup();
        Self(errors)
    }

    /// Each mistake.
    pub fn iter(&self) -> impl Iterator<Item = &Error> {
        self.0.iter()
    }
}

impl fmt::Display for Errors {
    /// One line for each mistake, without a newline after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// A text as a message shows it: in quotes, and not too long.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_LEN_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}
