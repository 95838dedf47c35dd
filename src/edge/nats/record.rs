//! A record as a message of JetStream, and back: what its headers say.

use async_nats::HeaderMap;
use async_nats::header::{
    NATS_EXPECTED_LAST_MESSAGE_ID, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID,
};

use super::chain::Condition;
use crate::edge::recall::{About, Key, mark_from_text, mark_to_text};

/// Who has published it.
const SOURCE: &str = "Annals-Source";
/// The input that it came of.
const POS: &str = "Annals-Pos";
/// Its place among the records of that input: 0, 1, 2 ...
const PART: &str = "Annals-Part";
/// `1` for the last of that input, else `0`.
const LAST: &str = "Annals-Last";
/// The hash of that input, in hexadecimal digits.
const HASH: &str = "Annals-Hash";
/// The input before, as `position` or `position/hash`.
const BEFORE: &str = "Annals-Before";
/// A checksum over the records of that input up to this one, in hexadecimal digits.
const SUM: &str = "Annals-Sum";

fn id(source: &str, (pos, part): Key) -> String {
    format!("{source}:{pos}:{part}")
}

/// The headers of a record that `source` publishes.
pub(super) fn headers(about: &About, source: &str, condition: Condition) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id(source, about.key));
    match condition {
        Condition::Sequence(sequence) => {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
        }
        Condition::Behind(key) => {
            headers.insert(NATS_EXPECTED_LAST_MESSAGE_ID, id(source, key));
        }
    }
    headers.insert(SOURCE, source);
    headers.insert(POS, about.key.0.to_string());
    headers.insert(PART, about.key.1.to_string());
    headers.insert(LAST, if about.last { "1" } else { "0" });
    headers.insert(SUM, format!("{:x}", about.sum));
    if let Some(hash) = about.hash {
        headers.insert(HASH, format!("{hash:x}"));
    }
    if let Some(before) = about.before {
        headers.insert(BEFORE, mark_to_text(before));
    }
    headers
}

/// What a message says; `None` where it is none of `source`.
pub(super) fn read(headers: &HeaderMap, source: &str) -> Option<About> {
    let text = |name| headers.get(name).map(async_nats::HeaderValue::as_str);
    if text(SOURCE)? != source {
        return None;
    }
    let pos = text(POS)?.parse().ok()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let hash = match text(HASH) {
        Some(hash) => Some(hex(hash)?),
        None => None,
    };
    let before = match text(BEFORE) {
        Some(before) => Some(mark_from_text(before)?),
        None => None,
    };
    let last = match text(LAST)? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    let key = (pos, text(PART)?.parse().ok()?);
    let sum = hex(text(SUM)?)?;
    Some(About { key, last, hash, before, sum })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::pos::{Mark, Pos};

    #[test]
    fn what_a_message_s_headers_say_is_what_was_published() {
        let key = (Pos { epoch: u64::MAX, seq: 2, part: 3 }, 5);
        for (hash, before) in [
            (None, None),
            (Some(0), Some(Mark { pos: Pos::new(1, 2), hash: None })),
            (Some(u64::MAX), Some(Mark { pos: Pos::new(1, 2), hash: Some(77) })),
        ] {
            for last in [false, true] {
                let about = About { key, last, hash, before, sum: 9 };
                let headers = headers(&about, "me", Condition::Sequence(4));
                assert_eq!(read(&headers, "me"), Some(about));
                assert_eq!(read(&headers, "you"), None);
            }
        }
        assert_eq!(read(&HeaderMap::new(), "me"), None);
    }

    #[test]
    fn each_record_after_the_first_is_to_stand_behind_the_one_before() {
        let key = (Pos::new(1, 7), 0);
        let about = About { key, last: true, hash: None, before: None, sum: 0 };
        let behind = headers(&about, "me", Condition::Behind((Pos::new(1, 6), 2)));
        let text = |name: &str| behind.get(name).map(|value| value.as_str().to_owned());
        assert_eq!(text("Nats-Msg-Id").unwrap(), "me:1.7.0:0");
        assert_eq!(text("Nats-Expected-Last-Msg-Id").unwrap(), "me:1.6.0:2");
        assert_eq!(text("Nats-Expected-Last-Subject-Sequence"), None);
        let first = headers(&about, "me", Condition::Sequence(0));
        let value = first.get("Nats-Expected-Last-Subject-Sequence").unwrap();
        assert_eq!(value.as_str(), "0");
    }
}
