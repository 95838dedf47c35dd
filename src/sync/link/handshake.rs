//! How two nodes come to trust a connection, as a state machine without I/O.
//!
//! ```text
//!  dialer                                             acceptor
//!  KNOCK      magic, versions, nonce          ->
//!                                             <-      CHALLENGE  version, nonce
//!  PROVE      features, who, mac              ->
//!                                             <-      ACCEPT     features, who, mac   (or REFUSE)
//!  HELLO      window, payload, mac            ->
//!                                             <-      HELLO      window, payload, mac
//! ```
//!
//! A MAC is HMAC-SHA256 over a label, which says the role, and everything that was said before,
//! which has both nonces and, from PROVE on, who is who. So nothing that was ever said can be said
//! again elsewhere, and nothing can be sent back to whom it came from. The dialer proves itself
//! first: **who dials without the secret learns that here is an Annals and which versions it
//! speaks, and no more**; after a wrong proof there is silence.
//!
//! The key is the cluster's shared secret, or under TLS the connection's exported keying material,
//! with the secret if there is one. What is said after the handshake is protected by TLS alone: a
//! shared secret keeps strangers out, not those who can change packets on the way.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::sync::link::frame::{Frame, FrameReject, kind, push};
use crate::sync::origin::{ClusterId, Incarnation, Origin};

/// What a frame of the handshake may have at most, type included, before HELLO.
pub const STRANGER_BYTES_MAX: u32 = 128;
/// What a HELLO may have at most.
pub const HELLO_BYTES_MAX: u32 = 256 << 10;

/// The versions of the protocol that this build speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

const MAGIC: [u8; 8] = *b"ANNLLINK";
const MAC_BYTES: usize = 32;
const KNOCK_BYTES: usize = MAGIC.len() + 2 + 2 + NONCE_BYTES;
const CHALLENGE_BYTES: usize = 2 + NONCE_BYTES;
const WHO_BYTES: usize = 8 + 16 + 8 + 8 + 8;
const PROOF_BYTES: usize = WHO_BYTES + MAC_BYTES;
const REFUSE_BYTES: usize = 1 + 2 + 2 + MAC_BYTES;
const _: () = assert!(PROOF_BYTES < 128 && KNOCK_BYTES < 128 && REFUSE_BYTES < 128);

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
/// Random bytes, never used twice.
pub type Nonce = [u8; NONCE_BYTES];

/// From which version to which.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Versions {
    /// The newest that both speak.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min && newest >= other.min).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// What proves that somebody belongs to the cluster. Never shown.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// From the cluster's secret. It is as strong as that: who sits where a node dials can try
    /// secrets by himself, so take 32 random bytes rather than a word.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self(mac(&Sha256::digest(secret).into(), b"annals link, secret", &[]))
    }

    /// From what only the two ends of a TLS connection have, and the secret if there is one.
    pub fn from_channel(exported: &[u8], secret: &[u8]) -> Self {
        Self(mac(&Sha256::digest(secret).into(), b"annals link, channel", exported))
    }
}

fn hmac(key: &[u8; 32], label: &[u8], said: &[u8]) -> Hmac<Sha256> {
    // To the block's length by zeros, which is what HMAC does with a shorter key.
    let mut block = [0; 64];
    for (place, byte) in block.iter_mut().zip(key) {
        *place = *byte;
    }
    let mut hmac = Hmac::<Sha256>::new(&block.into());
    hmac.update(label);
    hmac.update(&[0]);
    hmac.update(said);
    hmac
}

fn mac(key: &[u8; 32], label: &[u8], said: &[u8]) -> [u8; MAC_BYTES] {
    hmac(key, label, said).finalize().into_bytes().into()
}

/// Who somebody is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Which node.
    pub origin: Origin,
    /// In which of its lives.
    pub incarnation: Incarnation,
    /// What it can do besides what its version says, a bit each.
    pub features: u64,
}

impl Who {
    fn encode(&self) -> [u8; WHO_BYTES] {
        let mut bytes = [0; WHO_BYTES];
        let words = [
            &self.features.to_le_bytes()[..],
            &self.cluster.get().to_le_bytes(),
            &self.origin.get().to_le_bytes(),
            &self.incarnation.counter.to_le_bytes(),
            &self.incarnation.nonce.to_le_bytes(),
        ];
        for (place, byte) in bytes.iter_mut().zip(words.concat()) {
            *place = byte;
        }
        bytes
    }

    fn decode(bytes: &[u8; WHO_BYTES]) -> Option<Self> {
        let (features, rest) = bytes.split_first_chunk::<8>()?;
        let (cluster, rest) = rest.split_first_chunk::<16>()?;
        let (origin, rest) = rest.split_first_chunk::<8>()?;
        let (counter, rest) = rest.split_first_chunk::<8>()?;
        let nonce = rest.first_chunk::<8>()?;
        Some(Self {
            features: u64::from_le_bytes(*features),
            cluster: ClusterId::from_u128(u128::from_le_bytes(*cluster)),
            origin: Origin::from_u64(u64::from_le_bytes(*origin)),
            incarnation: Incarnation {
                counter: u64::from_le_bytes(*counter),
                nonce: u64::from_le_bytes(*nonce),
            },
        })
    }
}

/// Who is at the other end, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Who; its features are those that both have.
    pub who: Who,
    /// The version that both speak.
    pub version: u16,
    /// Bytes that may be shipped to it before it says more.
    pub window: u32,
    /// What its upper layer says of itself.
    pub hello: Vec<u8>,
}

/// Why a connection did not become a link.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameReject),
    /// A frame that does not come here, or not in this form.
    #[error("a frame of type {kind} does not belong here")]
    Unexpected {
        /// Its type.
        kind: u8,
    },
    /// No Annals, or none that speaks this protocol.
    #[error("the other end does not speak this protocol")]
    Stranger,
    /// There is no version that both speak.
    #[error("no common version: here {here}, there {there}")]
    Version {
        /// Spoken by the one who tells it.
        here: Versions,
        /// By the other.
        there: Versions,
    },
    /// A proof that is none.
    #[error("the other end has not proven that it has the secret")]
    Proof,
    /// Another cluster, though it has the same secret.
    #[error("the other end is of another cluster")]
    Cluster,
    /// It is this node itself.
    #[error("this node itself")]
    Myself,
    /// There is a link already, and it is the one to be kept.
    #[error("there is a link already")]
    Duplicate,
    /// It does not take links now.
    #[error("closing, or full")]
    Closing,
}

impl Refusal {
    const fn code(self) -> u8 {
        match self {
            Self::Frame(_) | Self::Unexpected { .. } | Self::Stranger | Self::Proof => 0,
            Self::Version { .. } => 1,
            Self::Cluster => 2,
            Self::Myself => 3,
            Self::Duplicate => 4,
            Self::Closing => 5,
        }
    }

    /// Code and versions: what a REFUSE has before its MAC. `None`: not told.
    fn encode(self) -> Option<[u8; REFUSE_BYTES - MAC_BYTES]> {
        let versions = match self {
            Self::Version { here, .. } => here,
            _ => Versions { min: 0, max: 0 },
        };
        let code = [self.code()];
        let words = [&code[..], &versions.min.to_le_bytes(), &versions.max.to_le_bytes()];
        let bytes = words.concat().try_into().ok()?;
        (self.code() != 0).then_some(bytes)
    }

    fn decode(bytes: [u8; REFUSE_BYTES - MAC_BYTES], ours: Versions) -> Option<Self> {
        let (code, rest) = bytes.split_first()?;
        let (min, rest) = rest.split_first_chunk::<2>()?;
        let max = rest.first_chunk::<2>()?;
        let theirs = Versions { min: u16::from_le_bytes(*min), max: u16::from_le_bytes(*max) };
        Some(match code {
            1 => Self::Version { here: theirs, there: ours },
            2 => Self::Cluster,
            3 => Self::Myself,
            4 => Self::Duplicate,
            5 => Self::Closing,
            _ => return None,
        })
    }
}

/// Who refused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This end did.
    #[error("refused here: {0}")]
    Here(Refusal),
    /// The other end did, and said why.
    #[error("refused by the other end: {0}")]
    There(Refusal),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::Here(refusal)
    }
}

/// How far a handshake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More has to come.
    More,
    /// The other has proven who it is; only the acceptor hears this. It says [`Handshake::accept`]
    /// or [`Handshake::refuse`].
    Proven(Who),
    /// The dialer hears this: the acceptor has proven itself. It goes on by itself, or is dropped.
    Accepted(Who),
    /// Both have said everything.
    Done(Greeting),
}

/// What this end says of itself.
#[derive(Clone, Debug)]
pub struct Ourselves {
    /// Who we are.
    pub who: Who,
    /// What we speak.
    pub versions: Versions,
    /// Bytes that may be shipped to us before we say more.
    pub window: u32,
    /// For the other's upper layer.
    pub hello: Vec<u8>,
}

/// What is awaited.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Awaits {
    Knock,
    Challenge,
    Proof,
    Decision,
    Accept,
    Hello,
    Nothing,
}

/// One end of a handshake.
#[derive(Debug)]
pub struct Handshake {
    ours: Ourselves,
    key: Key,
    nonce: Nonce,
    awaits: Awaits,
    dialer: bool,
    said: Sha256,
    version: u16,
    peer: Option<Who>,
    /// Key of the MACs behind the proofs.
    session: [u8; MAC_BYTES],
}

impl Handshake {
    /// The end that dialled; what it says first goes to `out`.
    pub fn dial(ours: Ourselves, key: Key, nonce: Nonce, out: &mut Vec<u8>) -> Self {
        let versions = ours.versions;
        let mut this = Self::new(ours, key, nonce, Awaits::Challenge);
        let words = [
            &MAGIC[..],
            &versions.min.to_le_bytes(),
            &versions.max.to_le_bytes(),
            &this.nonce.clone(),
        ];
        this.say(kind::KNOCK, &words.concat(), out);
        this
    }

    /// The end that was dialled.
    pub fn answer(ours: Ourselves, key: Key, nonce: Nonce) -> Self {
        Self::new(ours, key, nonce, Awaits::Knock)
    }

    fn new(ours: Ourselves, key: Key, nonce: Nonce, awaits: Awaits) -> Self {
        Self {
            ours,
            key,
            nonce,
            awaits,
            dialer: awaits == Awaits::Challenge,
            said: Sha256::new(),
            version: 0,
            peer: None,
            session: [0; MAC_BYTES],
        }
    }

    /// What a frame may have at most that comes now: counted with its type.
    pub fn bytes_max(&self) -> u32 {
        if self.awaits == Awaits::Hello { HELLO_BYTES_MAX } else { STRANGER_BYTES_MAX }
    }

    /// Takes one frame; what is to be said goes to `out`, also beside an error.
    ///
    /// # Errors
    /// The connection is to be closed, once `out` is sent.
    pub fn step(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<Progress, Refused> {
        if frame.kind == kind::REFUSE {
            return Err(self.refused(frame.body));
        }
        let awaits = std::mem::replace(&mut self.awaits, Awaits::Nothing);
        let unexpected = Refused::Here(Refusal::Unexpected { kind: frame.kind });
        match (awaits, frame.kind) {
            (Awaits::Knock, kind::KNOCK) => self.knocked(frame.body, out),
            (Awaits::Challenge, kind::CHALLENGE) => self.challenged(frame.body, out),
            (Awaits::Proof, kind::PROVE) => self.proven(frame.body, out),
            (Awaits::Accept, kind::ACCEPT) => self.accepted(frame.body, out),
            (Awaits::Hello, kind::HELLO) => self.greeted(frame.body),
            (
                Awaits::Knock
                | Awaits::Challenge
                | Awaits::Proof
                | Awaits::Decision
                | Awaits::Accept
                | Awaits::Hello
                | Awaits::Nothing,
                _,
            ) => Err(unexpected),
        }
    }

    fn knocked(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Progress, Refused> {
        self.hear(kind::KNOCK, body);
        let theirs = exact::<KNOCK_BYTES>(body, kind::KNOCK)
            .ok()
            .and_then(|body| body.strip_prefix(&MAGIC))
            .and_then(|rest| {
                let (min, rest) = rest.split_first_chunk::<2>()?;
                let max = rest.first_chunk::<2>()?;
                Some(Versions { min: u16::from_le_bytes(*min), max: u16::from_le_bytes(*max) })
            })
            .ok_or(Refusal::Stranger)?;
        let Some(version) = self.ours.versions.common(theirs) else {
            let refusal = Refusal::Version { here: self.ours.versions, there: theirs };
            self.refuse(refusal, out);
            return Err(refusal.into());
        };
        self.version = version;
        let words = [&version.to_le_bytes()[..], &self.nonce.clone()];
        self.say(kind::CHALLENGE, &words.concat(), out);
        self.awaits = Awaits::Proof;
        Ok(Progress::More)
    }

    fn challenged(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Progress, Refused> {
        let body = exact::<CHALLENGE_BYTES>(body, kind::CHALLENGE)?;
        self.hear(kind::CHALLENGE, body);
        let version = body.first_chunk::<2>().map_or(0, |version| u16::from_le_bytes(*version));
        if self.ours.versions.common(Versions { min: version, max: version }).is_none() {
            let there = Versions { min: version, max: version };
            return Err(Refusal::Version { here: self.ours.versions, there }.into());
        }
        self.version = version;
        self.prove(kind::PROVE, out);
        self.awaits = Awaits::Accept;
        Ok(Progress::More)
    }

    fn proven(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Progress, Refused> {
        let who = self.check(kind::PROVE, body)?;
        self.awaits = Awaits::Decision;
        self.peer = Some(who);
        match self.stranger(&who) {
            None => Ok(Progress::Proven(who)),
            Some(refusal) => {
                self.refuse(refusal, out);
                Err(refusal.into())
            }
        }
    }

    /// Of another cluster, or ourselves. (Another life of this node is none of either: the two are
    /// to meet, so that one of them hears that there is the other.)
    fn stranger(&self, who: &Who) -> Option<Refusal> {
        let ours = self.ours.who;
        if who.cluster != ours.cluster {
            return Some(Refusal::Cluster);
        }
        let same = (who.origin, who.incarnation) == (ours.origin, ours.incarnation);
        same.then_some(Refusal::Myself)
    }

    /// The acceptor takes who has proven itself.
    pub fn accept(&mut self, out: &mut Vec<u8>) {
        debug_assert_eq!(self.awaits, Awaits::Decision, "nobody has proven anything");
        if self.awaits == Awaits::Decision {
            self.prove(kind::ACCEPT, out);
            self.greet(out);
        }
    }

    /// Says why it goes no further, to one who may know.
    pub fn refuse(&mut self, refusal: Refusal, out: &mut Vec<u8>) {
        self.awaits = Awaits::Nothing;
        let proven = self.peer.is_some();
        let Some(bytes) = refusal.encode() else { return };
        if !proven && !matches!(refusal, Refusal::Version { .. }) {
            return;
        }
        let mac = if proven { self.refusal(&bytes) } else { [0; MAC_BYTES] };
        push(out, kind::REFUSE, &[&bytes[..], &mac].concat());
    }

    fn accepted(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<Progress, Refused> {
        let who = self.check(kind::ACCEPT, body)?;
        if let Some(refusal) = self.stranger(&who) {
            return Err(refusal.into());
        }
        self.peer = Some(who);
        self.greet(out);
        Ok(Progress::Accepted(who))
    }

    /// Both proofs are said: what follows has a key of its own.
    fn greet(&mut self, out: &mut Vec<u8>) {
        self.session = mac(&self.key.0, b"session", &self.said.clone().finalize());
        let mut body = self.ours.window.to_le_bytes().to_vec();
        body.extend_from_slice(&self.ours.hello);
        let mac = mac(&self.session, label(kind::HELLO, self.dialer), &body);
        body.extend_from_slice(&mac);
        push(out, kind::HELLO, &body);
        self.awaits = Awaits::Hello;
    }

    fn greeted(&mut self, body: &[u8]) -> Result<Progress, Refused> {
        let (said, theirs) = body.split_last_chunk::<MAC_BYTES>().ok_or(Refusal::Proof)?;
        let label = label(kind::HELLO, !self.dialer);
        hmac(&self.session, label, said)
            .verify_slice(theirs)
            .map_err(|_other| Refused::Here(Refusal::Proof))?;
        let (window, hello) = said.split_first_chunk::<4>().ok_or(Refusal::Proof)?;
        let who = self.peer.ok_or(Refusal::Proof)?;
        Ok(Progress::Done(Greeting {
            who: Who { features: who.features & self.ours.who.features, ..who },
            version: self.version,
            window: u32::from_le_bytes(*window),
            hello: hello.to_vec(),
        }))
    }

    /// What the other end's refusal says; before anything is proven it is only a hint.
    fn refused(&mut self, body: &[u8]) -> Refused {
        let awaits = std::mem::replace(&mut self.awaits, Awaits::Nothing);
        let unexpected = Refused::Here(Refusal::Unexpected { kind: kind::REFUSE });
        let Ok(body) = exact::<REFUSE_BYTES>(body, kind::REFUSE) else { return unexpected };
        let Some((said, theirs)) = body.split_last_chunk::<MAC_BYTES>() else { return unexpected };
        let Ok(said) = <&[u8; REFUSE_BYTES - MAC_BYTES]>::try_from(said) else { return unexpected };
        let Some(refusal) = Refusal::decode(*said, self.ours.versions) else { return unexpected };
        let version = matches!(refusal, Refusal::Version { .. });
        match awaits {
            Awaits::Challenge if version => Refused::There(refusal),
            Awaits::Accept => {
                let transcript = self.said.clone().finalize();
                let said = [&transcript[..], said].concat();
                match hmac(&self.key.0, b"refuse", &said).verify_slice(theirs) {
                    Ok(()) => Refused::There(refusal),
                    Err(_other) => Refused::Here(Refusal::Proof),
                }
            }
            _ => unexpected,
        }
    }

    fn refusal(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let transcript = self.said.clone().finalize();
        mac(&self.key.0, b"refuse", &[&transcript[..], bytes].concat())
    }

    /// Says who we are, and proves it.
    fn prove(&mut self, kind: u8, out: &mut Vec<u8>) {
        let who = self.ours.who.encode();
        self.hear(kind, &who);
        let label = label(kind, self.dialer);
        let mac = mac(&self.key.0, label, &self.said.clone().finalize());
        push(out, kind, &[&who[..], &mac].concat());
    }

    /// Who the other says to be, if it has proven it.
    fn check(&mut self, kind: u8, body: &[u8]) -> Result<Who, Refusal> {
        let body = exact::<PROOF_BYTES>(body, kind)?;
        let (who, theirs) = body.split_first_chunk::<WHO_BYTES>().ok_or(Refusal::Proof)?;
        self.hear(kind, who);
        let label = label(kind, !self.dialer);
        hmac(&self.key.0, label, &self.said.clone().finalize())
            .verify_slice(theirs)
            .map_err(|_other| Refusal::Proof)?;
        Who::decode(who).ok_or(Refusal::Proof)
    }

    fn say(&mut self, kind: u8, body: &[u8], out: &mut Vec<u8>) {
        self.hear(kind, body);
        push(out, kind, body);
    }

    /// Takes what was said, by whomever, into what the proofs are about.
    fn hear(&mut self, kind: u8, body: &[u8]) {
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.said.update([kind]);
        self.said.update(bytes.to_le_bytes());
        self.said.update(body);
    }
}

/// What a MAC is for: which frame, by which end.
const fn label(kind: u8, dialer: bool) -> &'static [u8] {
    match (kind, dialer) {
        (kind::HELLO, true) => b"hello of the dialer",
        (kind::HELLO, false) => b"hello of the acceptor",
        (_, true) => b"proof of the dialer",
        (_, false) => b"proof of the acceptor",
    }
}

fn exact<const BYTES: usize>(body: &[u8], kind: u8) -> Result<&[u8; BYTES], Refusal> {
    body.try_into().map_err(|_other_length| Refusal::Unexpected { kind })
}

#[cfg(test)]
mod tests;
