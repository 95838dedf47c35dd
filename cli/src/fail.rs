//! Why the command could not do what it was asked, and the code that it ends with.

use std::fmt;
use std::io;

use annals::{Error, OpenError};

/// Nothing is wrong.
pub(crate) const GOOD: u8 = 0;
/// Something is wrong with the store.
pub(crate) const FINDINGS: u8 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// It could not be done.
pub(crate) const REFUSED: u8 = 3;

#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads the output any more.
    Closed,
    /// The output cannot be written.
    Output(io::Error),
    /// The library's answer.
    Store(Error),
    /// An argument that clap cannot judge.
    Usage(String),
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Closed => GOOD,
            Self::Usage(_) => USAGE,
            Self::Store(Error::Open(OpenError::Damage(_)) | Error::Read(_)) => FINDINGS,
            Self::Output(_) | Self::Store(_) => REFUSED,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Output(error) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<annals::error::DiskError> for Failure {
    fn from(error: annals::error::DiskError) -> Self {
        Self::Store(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the output is closed"),
            Self::Output(error) => write!(f, "writing to the output: {error}"),
            Self::Usage(what) => f.write_str(what),
            Self::Store(Error::Open(OpenError::Locked { path, owner })) => {
                write!(f, "{} is open in process {owner}; close it first", path.display())
            }
            Self::Store(Error::Open(error @ OpenError::Version { .. })) => {
                write!(f, "{error}: a newer Annals is needed")
            }
            Self::Store(Error::Open(OpenError::Disk(error)))
                if error.source.kind() == io::ErrorKind::PermissionDenied =>
            {
                write!(f, "no permission: {error}")
            }
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}
