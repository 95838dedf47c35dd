//! What can go wrong at an edge, and what is done about it: one type with three answers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::pos::{Gap, Mark, Pos};

/// A failure, and what is to be done about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    /// It may go away by itself: try again, after `after` at the least. Who says so has kept what
    /// it was given, and goes on with it when it is called again.
    #[error("to be tried again: {why}")]
    Retry {
        /// What is waited at the least. The pipeline waits longer each time that it fails again.
        after: Duration,
        /// What is wrong.
        why: Why,
    },
    /// This record cannot be handled, now or ever. Who says so has forgotten it, and goes on with
    /// those behind it; it goes to the dead letters.
    #[error("the record at {pos} cannot be handled: {why}")]
    Poison {
        /// The record: the position that it was given with.
        pos: Pos,
        /// What is wrong with it.
        why: Why,
    },
    /// The pipeline ends.
    #[error("{0}")]
    Fatal(Why),
}

impl Fault {
    /// To be tried again, as soon as the pipeline's back-off says.
    pub fn retry(why: impl Into<Why>) -> Self {
        Self::Retry { after: Duration::ZERO, why: why.into() }
    }

    /// The record at `pos` cannot be handled.
    pub fn poison(pos: Pos, why: impl Into<Why>) -> Self {
        Self::Poison { pos, why: why.into() }
    }

    /// The pipeline ends.
    pub fn fatal(why: impl Into<Why>) -> Self {
        Self::Fatal(why.into())
    }

    /// What is wrong.
    pub fn why(&self) -> &Why {
        match self {
            Self::Retry { why, .. } | Self::Poison { why, .. } | Self::Fatal(why) => why,
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Why {
    /// In words.
    Said(Arc<str>),
    /// Somebody's error.
    Error(Arc<dyn Error + Send + Sync>),
    /// A source, a stage or a sink panicked, with these words.
    Panicked(Arc<str>),
    /// The source has another record where the last one that was handled stood, or ends before
    /// it: it is not the source that it was.
    Diverged(Mark),
    /// The source cannot give what comes after the last record that was handled.
    Gap(Gap),
    /// Another pipeline has this name or this source id.
    Leased(Arc<str>),
    /// A stage let records go in another order than they came in: the later position first.
    Order {
        /// What it let go last.
        last: Pos,
        /// What came then.
        then: Pos,
    },
    /// It was tried again so often, and failed each time.
    GivenUp {
        /// How often.
        tries: u32,
        /// What was wrong the last time.
        last: Arc<Self>,
    },
    /// A record was poison, and there is nowhere to put dead letters.
    Poison {
        /// The record.
        pos: Pos,
        /// What is wrong with it.
        why: Arc<Self>,
    },
    /// In a part of the pipeline that has a name.
    In {
        /// Its name.
        part: Arc<str>,
        /// What is wrong.
        why: Arc<Self>,
    },
}

impl Why {
    /// Somebody's error.
    pub fn error(error: impl Error + Send + Sync + 'static) -> Self {
        Self::Error(Arc::new(error))
    }

    /// The same, with the part of the pipeline that it is about.
    #[must_use]
    pub fn within(self, part: &str) -> Self {
        match self {
            Self::In { .. } => self,
            why => Self::In { part: part.into(), why: Arc::new(why) },
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(words) => write!(f, "{words}"),
            Self::Error(error) => write!(f, "{error}"),
            Self::Panicked(words) => write!(f, "panicked: {words}"),
            Self::Diverged(mark) => {
                write!(f, "the source has diverged: it has not what it had at {}", mark.pos)
            }
            Self::Gap(gap) => write!(f, "the source has a gap {gap}"),
            Self::Leased(id) => write!(f, "`{id}` is in use by another pipeline"),
            Self::Order { last, then } => {
                write!(f, "a stage let {then} go behind {last}")
            }
            Self::GivenUp { tries, last } => write!(f, "given up after {tries} tries: {last}"),
            Self::Poison { pos, why } => {
                write!(f, "the record at {pos} cannot be handled, and nobody takes it: {why}")
            }
            Self::In { part, why } => write!(f, "{part}: {why}"),
        }
    }
}

impl Error for Why {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Error(error) => Some(&**error),
            Self::GivenUp { last: why, .. } | Self::Poison { why, .. } | Self::In { why, .. } => {
                Some(&**why)
            }
            Self::Said(_)
            | Self::Panicked(_)
            | Self::Diverged(_)
            | Self::Gap(_)
            | Self::Leased(_)
            | Self::Order { .. } => None,
        }
    }
}

impl From<&str> for Why {
    fn from(words: &str) -> Self {
        Self::Said(words.into())
    }
}

impl From<String> for Why {
    fn from(words: String) -> Self {
        Self::Said(words.into())
    }
}

impl From<std::io::Error> for Why {
    fn from(error: std::io::Error) -> Self {
        Self::error(error)
    }
}

impl From<crate::error::Error> for Why {
    fn from(error: crate::error::Error) -> Self {
        Self::error(error)
    }
}
