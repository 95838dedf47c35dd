//! The name record: whose stream this is.
//!
//! `kind len u16 LE | kind | name`, both UTF-8 and 1 to 65,535 bytes. It is in the frame with
//! seq 1 and in every snapshot, so that the hash in a frame can be told back, and two names with
//! one hash are noticed.

/// Kinds that begin like this are not actors': what is kept in their streams is Annals' own.
pub const SYSTEM: &str = "annals.";
/// The kind of a durable cursor's stream: each of its frames supersedes the one before.
pub const CURSOR: &str = "annals.cursor";

/// The longest kind or name.
pub const NAME_BYTES_MAX: usize = u16::MAX as usize;

/// The record's payload; `None` where a part is empty or too long.
pub fn encode(kind: &str, name: &str) -> Option<Vec<u8>> {
    let possible = |part: &str| (1..=NAME_BYTES_MAX).contains(&part.len());
    if !possible(kind) || !possible(name) {
        return None;
    }
    let length = u16::try_from(kind.len()).ok()?;
    let mut payload = Vec::with_capacity(2 + kind.len() + name.len());
    payload.extend_from_slice(&length.to_le_bytes());
    payload.extend_from_slice(kind.as_bytes());
    payload.extend_from_slice(name.as_bytes());
    Some(payload)
}

/// Kind and name; `None` where the payload is no name record.
pub fn decode(payload: &[u8]) -> Option<(&str, &str)> {
    let (length, rest) = payload.split_first_chunk::<2>()?;
    let (kind, name) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((str::from_utf8(kind).ok()?, str::from_utf8(name).ok()?))
}

/// Is it the record, or the beginning of one, of a stream of Annals' own?
pub(super) fn is_own(payload: &[u8]) -> bool {
    payload.split_first_chunk::<2>().is_some_and(|(length, rest)| {
        let kind = rest.get(..usize::from(u16::from_le_bytes(*length)));
        kind.is_some_and(|kind| kind.starts_with(SYSTEM.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_and_an_impossible_one_does_not_go_in() {
        let payload = encode("account", "alice").unwrap();
        assert_eq!(decode(&payload), Some(("account", "alice")));
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for (kind, name) in [("", "a"), ("a", ""), (&*long, "a"), ("a", &*long)] {
            assert_eq!(encode(kind, name), None);
        }
        for cut in 0..2 + "account".len() {
            assert_eq!(decode(&payload[..cut]), None, "cut at {cut}");
        }
        assert!(is_own(&encode("annals.cursor", "a").unwrap()));
        for (kind, name) in [("account", "annals.a"), ("annals", ".cursor"), ("ann", "als.x")] {
            assert!(!is_own(&encode(kind, name).unwrap()), "{kind}/{name}");
        }
        assert!(!is_own(&[]) && !is_own(&[0, 0]) && !is_own(&[7, 0, b'a']));
    }
}
