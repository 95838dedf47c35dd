//! A record as a message of JetStream, and back: what its headers say.

use async_nats::HeaderMap;
use async_nats::header::{
    NATS_EXPECTED_LAST_MESSAGE_ID, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID,
};

use super::chain::Condition;
use crate::edge::recall::{About, Key, mark_from_text, mark_to_text};

/// What the sink has to know of it, as words: the position of its input, its place among the
/// records of that, `1` if it is the last of them, a checksum, the hash of the input, the input
/// before (`-` for what there is not), and who has published it. One header, because each costs.
const ABOUT: &str = "Annals";

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
    let hash = about.hash.map_or_else(|| "-".to_owned(), |hash| format!("{hash:x}"));
    let before = about.before.map_or_else(|| "-".to_owned(), mark_to_text);
    let (last, sum) = (u8::from(about.last), about.sum);
    let (pos, part) = about.key;
    headers.insert(ABOUT, format!("{pos} {part} {last} {sum:x} {hash} {before} {source}"));
    headers
}

/// What a message says; `None` where it is none of `source`.
pub(super) fn read(headers: &HeaderMap, source: &str) -> Option<About> {
    let mut words = headers.get(ABOUT)?.as_str().splitn(7, ' ');
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let key = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let last = match words.next()? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    let sum = hex(words.next()?)?;
    let hash = match words.next()? {
        "-" => None,
        hash => Some(hex(hash)?),
    };
    let before = match words.next()? {
        "-" => None,
        before => Some(mark_from_text(before)?),
    };
    (words.next()? == source).then_some(About { key, last, hash, before, sum })
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
