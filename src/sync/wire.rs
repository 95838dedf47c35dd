//! Messages as bytes: the bodies of frames.
//!
//! All numbers are little-endian. A list is its length as a u32, then its items; an option or a
//! truth is a byte that is 0 or 1; a time is nanoseconds as a u64. **A length is compared with the
//! bytes that are there before anything is made of it.** A body has exactly the bytes of its
//! message: more is refused as less is, and so is a value that means nothing. What a new version
//! adds it may add for those who agreed on that version; within one, a type of frame that is not
//! known is refused, but for those that say that they may be skipped
//! ([`kind::FIRST_OPTIONAL`]).
//!
//! [`Tokens`] are the log's own bytes behind a head of a fixed length, so they go from the log to
//! the socket, and from the socket to the log, as they are.

use std::time::Duration;

use crate::sync::domain::DomainId;
use crate::sync::fact::{Birth, Members};
use crate::sync::link::frame::kind;
use crate::sync::message::{
    Ack, Beat, Breach, But, DOMAINS_MAX, Gap, Hello, Mark, Marks, Message, ORIGINS_MAX, Place,
    Refusal, Schema, Tokens,
};
use crate::sync::origin::{ClusterId, Incarnation, Lane, Origin, TokenLog};
use crate::types::{HybridTime, to_usize};

/// Type of a frame with [`Tokens`].
pub const TOKENS: u8 = kind::BULK;
/// Bytes before the records in a frame with [`Tokens`].
pub const TOKENS_HEAD: usize = LOG_BYTES + 8 + 8 + 8;
const LOG_BYTES: usize = 8 + 8 + 8 + 1;
const PLACE_BYTES: usize = 8 + 16 + 32 + 1;

const HELLO: u8 = kind::FIRST_MESSAGE;
const HAVE: u8 = HELLO + 1;
const WANT: u8 = HELLO + 2;
const UNWANT: u8 = HELLO + 3;
const FROM: u8 = HELLO + 4;
const GAP: u8 = HELLO + 5;
const NEW_INC: u8 = HELLO + 6;
const DIVERGED: u8 = HELLO + 7;
const ACK: u8 = HELLO + 8;
const CREDIT: u8 = HELLO + 9;
const PING: u8 = HELLO + 10;
const BEAT: u8 = HELLO + 11;
const MEMBERS: u8 = HELLO + 12;
const WHO: u8 = HELLO + 13;
const KNOWS: u8 = HELLO + 14;
const JOIN: u8 = HELLO + 15;
const WELCOME: u8 = HELLO + 16;
const BYE: u8 = HELLO + 17;
const REFUSED: u8 = HELLO + 18;
const _: () = assert!(REFUSED < kind::FIRST_OPTIONAL);

/// Why a body is none.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireReject {
    /// A type that this version does not have and that may not be skipped.
    #[error("a message of type {0} is not known in this version")]
    Unknown(u8),
    /// It ends too early, or a length says more than is there, or than may be.
    #[error("a message of type {0} is shorter than it says")]
    Short(u8),
    /// There is more than it has.
    #[error("a message of type {0} is longer than it says")]
    Long(u8),
    /// A value that means nothing.
    #[error("a message of type {0} says something that means nothing")]
    Value(u8),
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// A message.
    Message(Message),
    /// Tokens, borrowed.
    Tokens(Tokens<'a>),
    /// Something that may be skipped and is not known here.
    Skipped,
}

// --- out ---

/// Appends the body of `message` to `out`, and says the type of its frame.
pub fn encode(message: &Message, out: &mut Vec<u8>) -> u8 {
    let mut out = Writer(out);
    match message {
        Message::Hello(hello) => {
            out.hello(hello);
            HELLO
        }
        Message::Have { places, whole } => {
            out.flag(*whole);
            out.list(places, Writer::place);
            HAVE
        }
        Message::Want { origin, ask, at } => {
            out.word(origin.get());
            out.word(*ask);
            out.option(at.as_ref(), Writer::place);
            WANT
        }
        Message::Unwant { origin } => {
            out.word(origin.get());
            UNWANT
        }
        Message::From { ask, at } => {
            out.word(*ask);
            out.place(at);
            FROM
        }
        Message::Gap(gap) => {
            out.place(&gap.floor);
            out.marks(&gap.head);
            out.word(gap.time.bits());
            out.option(gap.birth.as_ref(), |out, birth| out.blob(&birth.encode()));
            GAP
        }
        Message::NewInc { origin, incarnation, birth } => {
            out.word(origin.get());
            out.incarnation(*incarnation);
            out.blob(&birth.encode());
            NEW_INC
        }
        Message::Diverged { at } => {
            out.place(at);
            DIVERGED
        }
        Message::Ack(acks) => {
            out.list(acks, |out, ack| {
                out.log(&ack.log);
                out.word(ack.durable);
                out.word(ack.applied);
            });
            ACK
        }
        Message::Credit { bytes } => {
            out.word(*bytes);
            CREDIT
        }
        Message::Ping { n } => {
            out.word(*n);
            PING
        }
        Message::Beat(beat) => {
            out.beat(beat);
            BEAT
        }
        Message::Members(members) => {
            out.blob(&members.encode());
            MEMBERS
        }
        Message::Who { ask } => {
            out.word(*ask);
            WHO
        }
        Message::Knows { ask, members } => {
            out.word(*ask);
            out.blob(&members.encode());
            KNOWS
        }
        Message::Join { domains } => {
            out.list(domains, |out, domain| out.word(domain.get()));
            JOIN
        }
        Message::Welcome { term, members } => {
            out.word(*term);
            out.blob(&members.encode());
            WELCOME
        }
        Message::Bye => BYE,
        Message::Refused(refusal) => {
            out.refusal(refusal);
            REFUSED
        }
    }
}

/// The first bytes of a frame with tokens; behind them come the records as they are.
pub fn encode_tokens(tokens: &Tokens<'_>) -> [u8; TOKENS_HEAD] {
    let mut bytes = Vec::with_capacity(TOKENS_HEAD);
    let mut out = Writer(&mut bytes);
    out.log(&tokens.log);
    out.word(tokens.first);
    out.word(tokens.before);
    out.word(tokens.visible);
    debug_assert_eq!(bytes.len(), TOKENS_HEAD, "the head's length is computed");
    bytes.try_into().unwrap_or([0; TOKENS_HEAD])
}

/// A hello alone, as the links exchange it.
pub fn encode_hello(hello: &Hello) -> Vec<u8> {
    let mut bytes = Vec::new();
    Writer(&mut bytes).hello(hello);
    bytes
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn flag(&mut self, flag: bool) {
        self.byte(u8::from(flag));
    }

    fn short(&mut self, short: u16) {
        self.0.extend_from_slice(&short.to_le_bytes());
    }

    fn word(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    fn count(&mut self, count: usize) {
        // A list or a blob of four billion does not fit into a frame either.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&count.to_le_bytes());
    }

    fn blob(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn list<T>(&mut self, items: &[T], mut one: impl FnMut(&mut Self, &T)) {
        self.count(items.len());
        for item in items {
            one(self, item);
        }
    }

    fn option<T>(&mut self, value: Option<T>, one: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            one(self, value);
        }
    }

    fn time(&mut self, time: Duration) {
        // 584 years; what is older is not proved any better for being told exactly.
        self.word(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn incarnation(&mut self, incarnation: Incarnation) {
        self.word(incarnation.counter);
        self.word(incarnation.nonce);
    }

    fn marks(&mut self, marks: &Marks) {
        for mark in [marks.tokens, marks.values] {
            self.word(mark.seq);
            self.word(mark.hash);
        }
    }

    fn place(&mut self, place: &Place) {
        self.word(place.origin.get());
        self.incarnation(place.incarnation);
        self.marks(&place.marks);
        self.flag(place.diverged);
    }

    fn log(&mut self, log: &TokenLog) {
        self.word(log.origin.get());
        self.incarnation(log.incarnation);
        self.byte(match log.lane {
            Lane::Tokens => 0,
            Lane::Values => 1,
        });
    }

    fn hello(&mut self, hello: &Hello) {
        self.0.extend_from_slice(&hello.cluster.get().to_le_bytes());
        self.word(hello.origin.get());
        self.incarnation(hello.incarnation);
        self.short(hello.protocol);
        self.word(hello.features);
        self.word(hello.time.bits());
        self.word(hello.term);
        self.list(&hello.domains, |out, schema| {
            out.word(schema.domain.get());
            out.word(schema.schema);
        });
    }

    fn beat(&mut self, beat: &Beat) {
        self.word(beat.echo);
        self.incarnation(beat.incarnation);
        self.marks(&beat.head);
        self.word(beat.visible);
        self.option(beat.age, Self::time);
        self.list(&beat.but, |out, but| {
            out.word(but.origin.get());
            out.option(but.age, Writer::time);
        });
        self.list(&beat.marks, |out, (origin, incarnation, visible)| {
            out.word(origin.get());
            out.incarnation(*incarnation);
            out.word(*visible);
        });
        self.word(beat.members);
    }

    fn refusal(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::Cluster => self.byte(0),
            Refusal::Protocol(version) => {
                self.byte(1);
                self.short(*version);
            }
            Refusal::Skew(by) => {
                self.byte(2);
                self.time(*by);
            }
            Refusal::Schema { domain, theirs, ours } => {
                self.byte(3);
                self.word(domain.get());
                self.word(*theirs);
                self.word(*ours);
            }
            Refusal::Fenced(incarnation) => {
                self.byte(4);
                self.incarnation(*incarnation);
            }
            Refusal::Removed => self.byte(5),
            Refusal::Broken(breach) => {
                self.byte(6);
                self.byte(match breach {
                    Breach::Hole => 0,
                    Breach::Damaged => 1,
                    Breach::Turn => 2,
                    Breach::Size => 3,
                });
            }
            Refusal::Sponsor => self.byte(7),
            Refusal::Busy => self.byte(8),
        }
    }
}

// --- in ---

/// What a frame of type `kind` with this body says.
///
/// # Errors
/// See [`WireReject`]: the peer breaks the protocol, and the link is to be closed.
pub fn decode(kind: u8, body: &[u8]) -> Result<Said<'_>, WireReject> {
    if kind == TOKENS {
        return tokens(body).map(Said::Tokens);
    }
    if (kind::FIRST_OPTIONAL..kind::BULK).contains(&kind) {
        return Ok(Said::Skipped);
    }
    let mut body = Reader { kind, left: body };
    let message = message(&mut body)?;
    body.end()?;
    Ok(Said::Message(message))
}

/// A hello alone, as the links exchange it.
///
/// # Errors
/// As [`decode`].
pub fn decode_hello(bytes: &[u8]) -> Result<Hello, WireReject> {
    let mut body = Reader { kind: HELLO, left: bytes };
    let hello = body.hello()?;
    body.end()?;
    Ok(hello)
}

fn tokens(body: &[u8]) -> Result<Tokens<'_>, WireReject> {
    let mut body = Reader { kind: TOKENS, left: body };
    Ok(Tokens {
        log: body.log()?,
        first: body.word()?,
        before: body.word()?,
        visible: body.word()?,
        bytes: body.left,
    })
}

fn message(body: &mut Reader<'_>) -> Result<Message, WireReject> {
    Ok(match body.kind {
        HELLO => Message::Hello(body.hello()?),
        HAVE => {
            let whole = body.flag()?;
            Message::Have { places: body.list(PLACE_BYTES, ORIGINS_MAX, Reader::place)?, whole }
        }
        WANT => Message::Want {
            origin: body.origin()?,
            ask: body.word()?,
            at: body.option(Reader::place)?,
        },
        UNWANT => Message::Unwant { origin: body.origin()? },
        FROM => Message::From { ask: body.word()?, at: body.place()? },
        GAP => Message::Gap(Gap {
            floor: body.place()?,
            head: body.marks()?,
            time: HybridTime::from_bits(body.word()?),
            birth: body.option(Reader::birth)?,
        }),
        NEW_INC => Message::NewInc {
            origin: body.origin()?,
            incarnation: body.incarnation()?,
            birth: body.birth()?,
        },
        DIVERGED => Message::Diverged { at: body.place()? },
        ACK => Message::Ack(body.list(LOG_BYTES + 16, 2 * ORIGINS_MAX, |body| {
            Ok(Ack { log: body.log()?, durable: body.word()?, applied: body.word()? })
        })?),
        CREDIT => Message::Credit { bytes: body.word()? },
        PING => Message::Ping { n: body.word()? },
        BEAT => Message::Beat(body.beat()?),
        MEMBERS => Message::Members(body.members()?),
        WHO => Message::Who { ask: body.word()? },
        KNOWS => Message::Knows { ask: body.word()?, members: body.members()? },
        JOIN => Message::Join {
            domains: body.list(8, DOMAINS_MAX, |body| Ok(DomainId::from_u64(body.word()?)))?,
        },
        WELCOME => Message::Welcome { term: body.word()?, members: body.members()? },
        BYE => Message::Bye,
        REFUSED => Message::Refused(body.refusal()?),
        unknown => return Err(WireReject::Unknown(unknown)),
    })
}

struct Reader<'a> {
    kind: u8,
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    fn end(&self) -> Result<(), WireReject> {
        if self.left.is_empty() { Ok(()) } else { Err(WireReject::Long(self.kind)) }
    }

    fn array<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], WireReject> {
        let (bytes, left) =
            self.left.split_first_chunk::<BYTES>().ok_or(WireReject::Short(self.kind))?;
        self.left = left;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Result<u8, WireReject> {
        let [byte] = self.array::<1>()?;
        Ok(byte)
    }

    fn flag(&mut self) -> Result<bool, WireReject> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireReject::Value(self.kind)),
        }
    }

    fn short(&mut self) -> Result<u16, WireReject> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn word(&mut self) -> Result<u64, WireReject> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things of `least` bytes each at least, which are there.
    fn count(&mut self, least: usize, most: usize) -> Result<usize, WireReject> {
        let count = to_usize(u64::from(u32::from_le_bytes(self.array()?)));
        let there = count.checked_mul(least).is_some_and(|bytes| bytes <= self.left.len());
        if there && count <= most { Ok(count) } else { Err(WireReject::Short(self.kind)) }
    }

    fn blob(&mut self) -> Result<&'a [u8], WireReject> {
        let bytes = self.count(1, usize::MAX)?;
        let (blob, left) = self.left.split_at_checked(bytes).ok_or(WireReject::Short(self.kind))?;
        self.left = left;
        Ok(blob)
    }

    fn list<T>(
        &mut self,
        least: usize,
        most: usize,
        mut one: impl FnMut(&mut Self) -> Result<T, WireReject>,
    ) -> Result<Vec<T>, WireReject> {
        let count = self.count(least, most)?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(one(self)?);
        }
        Ok(items)
    }

    fn option<T>(
        &mut self,
        one: impl FnOnce(&mut Self) -> Result<T, WireReject>,
    ) -> Result<Option<T>, WireReject> {
        if self.flag()? { one(self).map(Some) } else { Ok(None) }
    }

    fn time(&mut self) -> Result<Duration, WireReject> {
        Ok(Duration::from_nanos(self.word()?))
    }

    fn origin(&mut self) -> Result<Origin, WireReject> {
        Ok(Origin::from_u64(self.word()?))
    }

    fn incarnation(&mut self) -> Result<Incarnation, WireReject> {
        Ok(Incarnation { counter: self.word()?, nonce: self.word()? })
    }

    fn marks(&mut self) -> Result<Marks, WireReject> {
        let tokens = Mark { seq: self.word()?, hash: self.word()? };
        let values = Mark { seq: self.word()?, hash: self.word()? };
        Ok(Marks { tokens, values })
    }

    fn place(&mut self) -> Result<Place, WireReject> {
        Ok(Place {
            origin: self.origin()?,
            incarnation: self.incarnation()?,
            marks: self.marks()?,
            diverged: self.flag()?,
        })
    }

    fn log(&mut self) -> Result<TokenLog, WireReject> {
        let (origin, incarnation) = (self.origin()?, self.incarnation()?);
        let lane = match self.byte()? {
            0 => Lane::Tokens,
            1 => Lane::Values,
            _ => return Err(WireReject::Value(self.kind)),
        };
        Ok(TokenLog { origin, incarnation, lane })
    }

    fn birth(&mut self) -> Result<Birth, WireReject> {
        Birth::decode(self.blob()?).ok_or(WireReject::Value(self.kind))
    }

    fn members(&mut self) -> Result<Members, WireReject> {
        Members::decode(self.blob()?).ok_or(WireReject::Value(self.kind))
    }

    fn hello(&mut self) -> Result<Hello, WireReject> {
        Ok(Hello {
            cluster: ClusterId::from_u128(u128::from_le_bytes(self.array()?)),
            origin: self.origin()?,
            incarnation: self.incarnation()?,
            protocol: self.short()?,
            features: self.word()?,
            time: HybridTime::from_bits(self.word()?),
            term: self.word()?,
            domains: self.list(16, DOMAINS_MAX, |body| {
                Ok(Schema { domain: DomainId::from_u64(body.word()?), schema: body.word()? })
            })?,
        })
    }

    fn beat(&mut self) -> Result<Beat, WireReject> {
        Ok(Beat {
            echo: self.word()?,
            incarnation: self.incarnation()?,
            head: self.marks()?,
            visible: self.word()?,
            age: self.option(Reader::time)?,
            but: self.list(9, ORIGINS_MAX, |body| {
                Ok(But { origin: body.origin()?, age: body.option(Reader::time)? })
            })?,
            marks: self.list(32, ORIGINS_MAX, |body| {
                Ok((body.origin()?, body.incarnation()?, body.word()?))
            })?,
            members: self.word()?,
        })
    }

    fn refusal(&mut self) -> Result<Refusal, WireReject> {
        Ok(match self.byte()? {
            0 => Refusal::Cluster,
            1 => Refusal::Protocol(self.short()?),
            2 => Refusal::Skew(self.time()?),
            3 => Refusal::Schema {
                domain: DomainId::from_u64(self.word()?),
                theirs: self.word()?,
                ours: self.word()?,
            },
            4 => Refusal::Fenced(self.incarnation()?),
            5 => Refusal::Removed,
            6 => Refusal::Broken(match self.byte()? {
                0 => Breach::Hole,
                1 => Breach::Damaged,
                2 => Breach::Turn,
                3 => Breach::Size,
                _ => return Err(WireReject::Value(self.kind)),
            }),
            7 => Refusal::Sponsor,
            8 => Refusal::Busy,
            _ => return Err(WireReject::Value(self.kind)),
        })
    }
}

#[cfg(test)]
mod tests;
