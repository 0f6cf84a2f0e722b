//! What can go wrong in the laboratory, in words for the person who runs it.

use std::fmt;
use std::path::Path;

/// A reason why a scene could not be built or did not end as it should.
#[derive(Debug)]
pub struct Fault(String);

/// What every step of the laboratory returns.
pub type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// A fault with its text.
    pub fn new(text: impl Into<String>) -> Self {
        Fault(text.into())
    }

    /// A file operation that failed.
    pub fn file(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Fault(format!("{doing} {}: {error}", path.display()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
