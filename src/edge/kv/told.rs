//! What a source of KV events gives: an engine's batch as it came, or a cut.

/// A record of a source of KV events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The engine's bytes: [`Batch::decode`](super::Batch::decode) reads them.
    Batch(Vec<u8>),
    /// What was known of this engine's blocks is void. It is a record, so that it is stored, and
    /// reaches whoever reads the store, in its place among the batches.
    Cut(Cut),
}

/// Where a new epoch begins.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Why.
    pub why: Why,
    /// Batches that are missing, where that is known.
    pub lost: Option<u64>,
}

/// Why a new epoch begins.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Why {
    /// It is the first one.
    Begin = 0,
    /// The engine was restarted, or has forgotten our last batch.
    Restarted = 1,
    /// It could not be asked whether it is the one that it was.
    Unproven = 2,
    /// Batches are missing that it does not have either.
    Hole = 3,
}

/// What a record begins with, where records are bytes.
const BATCH: u8 = 0;
const CUT: u8 = 1;

impl Told {
    /// For a log: `0 | payload`, or `1 | why u8 | 0, or 1 | lost u64 LE`.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Batch(payload) => {
                let mut bytes = Vec::with_capacity(payload.len() + 1);
                bytes.push(BATCH);
                bytes.extend_from_slice(payload);
                bytes
            }
            Self::Cut(cut) => {
                let mut bytes = vec![CUT, cut.why as u8, u8::from(cut.lost.is_some())];
                bytes.extend_from_slice(&cut.lost.unwrap_or(0).to_le_bytes());
                bytes
            }
        }
    }

    /// The other way round; `None` where they are none of that.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&BATCH, payload) => Some(Self::Batch(payload.to_vec())),
            (&CUT, [why, known, lost @ ..]) => {
                let why = match why {
                    0 => Why::Begin,
                    1 => Why::Restarted,
                    2 => Why::Unproven,
                    3 => Why::Hole,
                    _ => return None,
                };
                let lost = u64::from_le_bytes(lost.try_into().ok()?);
                let lost = match (known, lost) {
                    (0, 0) => None,
                    (1, lost) => Some(lost),
                    _ => return None,
                };
                Some(Self::Cut(Cut { why, lost }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_comes_back_from_its_bytes_and_from_no_others() {
        let mut all = vec![Told::Batch(Vec::new()), Told::Batch(vec![1, 2, 3])];
        for why in [Why::Begin, Why::Restarted, Why::Unproven, Why::Hole] {
            for lost in [None, Some(0), Some(u64::MAX)] {
                all.push(Told::Cut(Cut { why, lost }));
            }
        }
        for told in all {
            let bytes = told.to_bytes();
            assert_eq!(Told::from_bytes(&bytes).as_ref(), Some(&told));
            if matches!(told, Told::Cut(_)) {
                let longer = [&bytes[..], &[0]].concat();
                assert_eq!(Told::from_bytes(&longer), None);
                for cut in 0..bytes.len() {
                    assert_eq!(Told::from_bytes(&bytes[..cut]), None);
                }
            }
        }
        assert_eq!(Told::from_bytes(&[2]), None);
        assert_eq!(Told::from_bytes(&[1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
