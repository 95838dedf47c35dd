//! Where a pipeline keeps how far it is, if neither its source nor its sink does.

use super::fault::Fault;
use super::pos::{Mark, Pos};

/// Keeps how far a pipeline is, and what its stages knew there.
pub trait Keep {
    /// What was kept last.
    ///
    /// # Errors
    /// `Retry`, `Fatal`.
    fn load(&mut self) -> Result<Option<Kept>, Fault>;

    /// Keeps `kept` instead of what was before: all of it or nothing. It is durable when this
    /// returns.
    ///
    /// # Errors
    /// `Retry`, `Fatal`; what was kept before is kept.
    fn save(&mut self, kept: &Kept) -> Result<(), Fault>;
}

/// How far a pipeline is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The frontier.
    pub mark: Mark,
    /// The last position that was put and settled: a sink that remembers has at least that.
    pub put: Option<Pos>,
    /// What the stages knew at the frontier, if any of them knows anything.
    pub state: Option<Vec<u8>>,
}

/// Version of the bytes.
const VERSION: u8 = 1;
const HAS_PUT: u8 = 1;
const HAS_STATE: u8 = 2;

impl Kept {
    /// For keeping: `1 | flags u8 | mark | position put last | state`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let put = if self.put.is_some() { HAS_PUT } else { 0 };
        let state = if self.state.is_some() { HAS_STATE } else { 0 };
        let mut bytes = vec![VERSION, put | state];
        bytes.extend(self.mark.to_bytes());
        bytes.extend(self.put.unwrap_or_default().to_bytes());
        bytes.extend(self.state.as_deref().unwrap_or_default());
        bytes
    }

    /// The other way round; `None` where they are nothing of the kind.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([version, flags], rest) = bytes.split_first_chunk()?;
        let (mark, rest) = rest.split_first_chunk::<{ Mark::BYTES }>()?;
        let (put, state) = rest.split_first_chunk::<{ Pos::BYTES }>()?;
        let known = *version == VERSION && *flags <= (HAS_PUT | HAS_STATE);
        let has_state = flags & HAS_STATE != 0;
        if !known || (!has_state && !state.is_empty()) {
            return None;
        }
        Some(Self {
            mark: Mark::from_bytes(mark)?,
            put: (flags & HAS_PUT != 0).then(|| Pos::from_bytes(*put)),
            state: has_state.then(|| state.to_vec()),
        })
    }
}

impl<P: Keep + ?Sized> Keep for Box<P> {
    fn load(&mut self) -> Result<Option<Kept>, Fault> {
        (**self).load()
    }

    fn save(&mut self, kept: &Kept) -> Result<(), Fault> {
        (**self).save(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_from_bytes_and_not_from_fewer_or_others() {
        let mark = Mark { pos: Pos::new(3, 9).at_part(2), hash: Some(77) };
        for put in [None, Some(Pos::new(3, 8))] {
            for state in [None, Some(vec![]), Some(vec![1, 2, 3])] {
                let kept = Kept { mark, put, state };
                let bytes = kept.to_bytes();
                assert_eq!(Kept::from_bytes(&bytes).as_ref(), Some(&kept));
                for length in 0..2 + Mark::BYTES + Pos::BYTES {
                    assert_eq!(Kept::from_bytes(&bytes[..length]), None, "{length} bytes");
                }
                for (at, byte) in [(0, 2), (1, 4), (1 + 1 + Pos::BYTES, 9)] {
                    let mut other = bytes.clone();
                    other[at] = byte;
                    assert_eq!(Kept::from_bytes(&other), None, "{byte} at {at}");
                }
            }
        }
    }
}
