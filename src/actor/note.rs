//! Notes: what an actor owes, and what it has settled, as records of its turns.
//!
//! A turn that sends a durable message, arms a timer or begins a step *opens* something, and a
//! later turn, of this actor or of another, *closes* it. Both are records of the turns' own
//! frames, so they are there exactly if the events of those turns are. What is open is named by an
//! [`Oid`]: the actor, and a number that counts what this actor has ever opened.
//!
//! ```text
//! 0  tag     u8
//! 1          by tag, little-endian; strings are `bytes u16, UTF-8`
//!    Sent     1  number u64, kind, name (of the receiver), type, archive
//!    Handled  2  stream u128, number u64, how u8 (0 done, 1 given up)
//!    Armed    3  number u64, due u64, every u64, missed u8, key, type, archive
//!    Disarmed 4  number u64
//!    Fired    5  number u64, due u64 (next; 0: it is over)
//!    Began    6  number u64, policy u8, key, type, archive
//!    Ended    7  number u64, how u8 (0 done, 1 panicked, 2 decided in doubt)
//!    Answered 8  id u128, at u64, type, archive
//!    Policy   9  code u8, n u64
//!    Outside 10  number u64, topic, type, archive
//!    Tried   11  count u32, then stream u128, number u64 each
//!    Freed   12  stream u128, number u64
//! ```
//!
//! A `type` is the name of a durable type, the record's version being the type's. Times are
//! milliseconds since the Unix epoch. Numbers, due times and tags that this build does not know are
//! refused: an actor that owes what nobody can read stops.

use crate::types::StreamId;

/// No actor ever counts so far, and one more than that is a number too.
pub(crate) const NUMBER_MAX: u64 = u64::MAX >> 1;

/// Names what an actor has opened: the actor, and its running count.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid {
    /// The stream of the actor that owes it.
    pub stream: StreamId,
    /// 1 for the first thing that this actor ever opened.
    pub number: u64,
}

impl std::fmt::Display for Oid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.stream, self.number)
    }
}

/// What becomes of periods that passed while nobody was there to notice.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Missed {
    /// One firing stands for all of them.
    #[default]
    FireOnce,
    /// Each is fired, one after the other.
    FireEach,
    /// None is fired; the next is the first one that lies ahead.
    Skip,
}

/// A name, a version and an archive: a value of a durable type.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed<'a> {
    pub name: &'a str,
    pub version: u16,
    pub archive: &'a [u8],
}

/// When a step's frames are committed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum StepPolicy {
    /// Before it runs and after: a crash leaves no doubt but about a step that was running.
    #[default]
    Around,
    /// Before it runs; its result waits for the actor's own policy.
    Before,
    /// After it has run: of one that a crash interrupts nothing may be known.
    After,
}

/// One note.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note<'a> {
    Sent { number: u64, kind: &'a str, name: &'a str, command: Packed<'a> },
    Handled { oid: Oid, given_up: bool },
    Armed { number: u64, key: &'a str, rhythm: Rhythm, command: Packed<'a> },
    Disarmed { number: u64 },
    Fired { number: u64, due: u64 },
    Began { number: u64, policy: StepPolicy, key: &'a str, step: Packed<'a> },
    Ended { number: u64, how: Ended },
    Answered { id: u128, at: u64, reply: Packed<'a> },
    Policy { code: u8, n: u64 },
    Outside { number: u64, topic: &'a str, message: Packed<'a> },
    Tried { oids: Oids<'a> },
    Freed { oid: Oid },
}

/// When a timer fires.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rhythm {
    /// Milliseconds since the Unix epoch.
    pub due: u64,
    /// Milliseconds; 0 fires once.
    pub every: u64,
    pub missed: Missed,
}

impl Rhythm {
    /// When it is due next, if it is fired now; 0 if never again.
    pub(crate) fn after(&self, now: u64) -> u64 {
        let Some(next) = self.due.checked_add(self.every).filter(|_| self.every > 0) else {
            return 0;
        };
        match self.missed {
            Missed::FireEach => next,
            Missed::FireOnce | Missed::Skip if next > now => next,
            Missed::FireOnce | Missed::Skip => {
                let periods = (now - self.due) / self.every + 1;
                self.due.saturating_add(periods.saturating_mul(self.every))
            }
        }
    }

    /// It is so late that its author wants it left out.
    pub(crate) fn is_missed(&self, now: u64) -> bool {
        self.missed == Missed::Skip && self.every > 0 && now >= self.due.saturating_add(self.every)
    }
}

/// How a step ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Done,
    Panicked,
    InDoubt,
}

/// Several [`Oid`]s, as they are stored.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Oids<'a>(&'a [[u8; 24]]);

impl Oids<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Oid> {
        self.0.iter().filter_map(|bytes| Reader(bytes).oid())
    }
}

impl<'a> Note<'a> {
    /// Appends it to `bytes`. `false` if a string is longer than 65,535 bytes: then `bytes` may
    /// have grown.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) -> bool {
        let mut to = Writer { bytes, fits: true };
        match self {
            Self::Sent { number, kind, name, command } => {
                to.u8(1).u64(*number).text(kind).text(name).packed(command);
            }
            Self::Handled { oid, given_up } => {
                to.u8(2).oid(*oid).u8(u8::from(*given_up));
            }
            Self::Armed { number, key, rhythm, command } => {
                let missed = match rhythm.missed {
                    Missed::FireOnce => 0,
                    Missed::FireEach => 1,
                    Missed::Skip => 2,
                };
                to.u8(3).u64(*number).u64(rhythm.due).u64(rhythm.every).u8(missed);
                to.text(key).packed(command);
            }
            Self::Disarmed { number } => {
                to.u8(4).u64(*number);
            }
            Self::Fired { number, due } => {
                to.u8(5).u64(*number).u64(*due);
            }
            Self::Began { number, policy, key, step } => {
                to.u8(6).u64(*number).u8(policy.code()).text(key).packed(step);
            }
            Self::Ended { number, how } => {
                let how = match how {
                    Ended::Done => 0,
                    Ended::Panicked => 1,
                    Ended::InDoubt => 2,
                };
                to.u8(7).u64(*number).u8(how);
            }
            Self::Answered { id, at, reply } => {
                to.u8(8).u128(*id).u64(*at).packed(reply);
            }
            Self::Policy { code, n } => {
                to.u8(9).u8(*code).u64(*n);
            }
            Self::Outside { number, topic, message } => {
                to.u8(10).u64(*number).text(topic).packed(message);
            }
            Self::Tried { oids } => {
                let count = u32::try_from(oids.0.len()).unwrap_or(u32::MAX);
                to.u8(11).raw(&count.to_le_bytes());
                for oid in oids.0 {
                    to.raw(oid);
                }
            }
            Self::Freed { oid } => {
                to.u8(12).oid(*oid);
            }
        }
        to.fits
    }

    /// The version that its record has: that of the value in it.
    pub(crate) fn version(&self) -> u16 {
        match self {
            Self::Sent { command: packed, .. }
            | Self::Armed { command: packed, .. }
            | Self::Began { step: packed, .. }
            | Self::Answered { reply: packed, .. }
            | Self::Outside { message: packed, .. } => packed.version,
            Self::Handled { .. }
            | Self::Disarmed { .. }
            | Self::Fired { .. }
            | Self::Ended { .. }
            | Self::Policy { .. }
            | Self::Tried { .. }
            | Self::Freed { .. } => 1,
        }
    }

    /// Reads one. `None` where the bytes are none that this build knows.
    pub(crate) fn decode(version: u16, bytes: &'a [u8]) -> Option<Self> {
        let mut from = Reader(bytes);
        let note = match from.u8()? {
            1 => {
                let (number, kind, name) = (from.number()?, from.text()?, from.text()?);
                Self::Sent { number, kind, name, command: from.packed(version)? }
            }
            2 => Self::Handled { oid: from.oid()?, given_up: from.flag()? },
            3 => {
                let number = from.number()?;
                let (due, every) = (from.u64()?, from.u64()?);
                let missed = match from.u8()? {
                    0 => Missed::FireOnce,
                    1 => Missed::FireEach,
                    2 => Missed::Skip,
                    _ => return None,
                };
                let rhythm = Rhythm { due, every, missed };
                Self::Armed { number, rhythm, key: from.text()?, command: from.packed(version)? }
            }
            4 => Self::Disarmed { number: from.number()? },
            5 => Self::Fired { number: from.number()?, due: from.u64()? },
            6 => {
                let (number, policy) = (from.number()?, StepPolicy::from_code(from.u8()?)?);
                Self::Began { number, policy, key: from.text()?, step: from.packed(version)? }
            }
            7 => {
                let number = from.number()?;
                let how = match from.u8()? {
                    0 => Ended::Done,
                    1 => Ended::Panicked,
                    2 => Ended::InDoubt,
                    _ => return None,
                };
                Self::Ended { number, how }
            }
            8 => Self::Answered { id: from.u128()?, at: from.u64()?, reply: from.packed(version)? },
            9 => Self::Policy { code: from.u8()?, n: from.u64()? },
            10 => Self::Outside {
                number: from.number()?,
                topic: from.text()?,
                message: from.packed(version)?,
            },
            11 => {
                let count = from.take::<4>().map(u32::from_le_bytes)?;
                let (oids, rest) = from.0.as_chunks::<24>();
                if oids.len() as u64 != u64::from(count) || !rest.is_empty() {
                    return None;
                }
                from.0 = rest;
                Self::Tried { oids: Oids(oids) }
            }
            12 => Self::Freed { oid: from.oid()? },
            _ => return None,
        };
        // What holds a value ends with its archive, which takes what is left.
        from.0.is_empty().then_some(note)
    }
}

/// A message that a turn has left for the outside.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutsideMessage<'a> {
    pub topic: &'a str,
    /// Name of its type.
    pub name: &'a str,
    pub archive: &'a [u8],
}

/// The message in a note, if it is one to the outside.
pub(crate) fn outside_message(version: u16, payload: &[u8]) -> Option<OutsideMessage<'_>> {
    match Note::decode(version, payload)? {
        Note::Outside { topic, message, .. } => {
            Some(OutsideMessage { topic, name: message.name, archive: message.archive })
        }
        _ => None,
    }
}

/// The bytes of an [`Oid`], as `Tried` holds them.
pub(crate) fn oid_bytes(oid: Oid) -> [u8; 24] {
    let mut bytes = [0; 24];
    let (stream, number) = bytes.split_at_mut(16);
    stream.copy_from_slice(&oid.stream.get().to_le_bytes());
    number.copy_from_slice(&oid.number.to_le_bytes());
    bytes
}

/// What was tried, from the bytes of its [`Oid`]s.
pub(crate) fn tried(oids: &[[u8; 24]]) -> Note<'_> {
    Note::Tried { oids: Oids(oids) }
}

impl StepPolicy {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Around => 0,
            Self::Before => 1,
            Self::After => 2,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Around),
            1 => Some(Self::Before),
            2 => Some(Self::After),
            _ => None,
        }
    }
}

/// Bytes in the making.
pub(crate) struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    fits: bool,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, fits: true }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, number: u8) -> &mut Self {
        self.raw(&[number])
    }

    pub(crate) fn u16(&mut self, number: u16) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, number: u64) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    pub(crate) fn u128(&mut self, number: u128) -> &mut Self {
        self.raw(&number.to_le_bytes())
    }

    pub(crate) fn oid(&mut self, oid: Oid) -> &mut Self {
        self.raw(&oid_bytes(oid))
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        match u16::try_from(text.len()) {
            Ok(length) => self.raw(&length.to_le_bytes()).raw(text.as_bytes()),
            Err(_too_long) => {
                self.fits = false;
                self
            }
        }
    }

    /// Bytes with their length before them.
    pub(crate) fn blob(&mut self, bytes: &[u8]) -> &mut Self {
        self.u64(bytes.len() as u64).raw(bytes)
    }

    fn packed(&mut self, packed: &Packed<'_>) -> &mut Self {
        self.text(packed.name).raw(packed.archive)
    }
}

/// Bytes that are being read.
#[derive(Copy, Clone)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// What counts the things that an actor opens.
    fn number(&mut self) -> Option<u64> {
        self.u64().filter(|number| (1..=NUMBER_MAX).contains(number))
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn oid(&mut self) -> Option<Oid> {
        Some(Oid { stream: StreamId::from_u128(self.u128()?), number: self.u64()? })
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u16()?);
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    /// Bytes that have their length before them.
    pub(crate) fn blob(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u64()?).ok()?;
        self.bytes(length)
    }

    /// All that is left.
    fn packed(&mut self, version: u16) -> Option<Packed<'a>> {
        let name = self.text()?;
        let archive = std::mem::take(&mut self.0);
        Some(Packed { name, version, archive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_comes_back_and_no_cut_of_one_passes_for_another_length() {
        let packed = Packed { name: "ship", version: 3, archive: b"" };
        let oid = Oid { stream: StreamId::from_u128(1 << 100), number: 9 };
        let rhythm = |missed| Rhythm { due: 5, every: 7, missed };
        let oids = [oid_bytes(oid), oid_bytes(Oid { number: 10, ..oid })];
        let notes = [
            Note::Sent { number: 1, kind: "k", name: "n", command: packed },
            Note::Handled { oid, given_up: false },
            Note::Handled { oid, given_up: true },
            Note::Armed { number: 2, key: "a", rhythm: rhythm(Missed::FireOnce), command: packed },
            Note::Armed { number: 2, key: "", rhythm: rhythm(Missed::FireEach), command: packed },
            Note::Armed { number: 2, key: "b", rhythm: rhythm(Missed::Skip), command: packed },
            Note::Disarmed { number: 3 },
            Note::Fired { number: 4, due: 11 },
            Note::Began { number: 5, policy: StepPolicy::Before, key: "x", step: packed },
            Note::Ended { number: 6, how: Ended::Done },
            Note::Ended { number: 6, how: Ended::Panicked },
            Note::Ended { number: 6, how: Ended::InDoubt },
            Note::Answered { id: 7, at: 8, reply: packed },
            Note::Policy { code: 1, n: 2 },
            Note::Outside { number: 8, topic: "mail", message: packed },
            tried(&oids),
            Note::Freed { oid },
        ];
        for note in notes {
            let mut bytes = Vec::new();
            assert!(note.encode(&mut bytes));
            assert_eq!(Note::decode(note.version(), &bytes), Some(note));
            for cut in 0..bytes.len() {
                assert_eq!(Note::decode(1, &bytes[..cut]), None, "{note:?} cut at {cut}");
            }
        }
        let long = "x".repeat(1 << 16);
        let note = Note::Sent { number: 1, kind: "k", name: &long, command: packed };
        assert!(!note.encode(&mut Vec::new()));
    }
}
