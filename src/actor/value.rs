//! What is stored as an rkyv archive: events and states.

use std::fmt;

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator, to_bytes_in};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Error, Fallible};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::ser::{Positional, Writer};
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

/// A type that can be archived and read back.
///
/// Never implemented by hand: whatever derives rkyv's `Archive`, `Serialize` and `Deserialize`
/// has it, and this trait's one purpose is to spare its users the bounds.
///
/// An archive is laid out as if it began at a multiple of 16, whatever it is appended to.
/// Reading is checked: bytes that are no archive of this type are an error, never undefined
/// behaviour. What a check cannot see is that two fields of one type were swapped, or that a
/// variant got another meaning; hence the versions ([`Actor::VERSION`](super::Actor::VERSION)).
///
/// ```
/// use annals::actor::Value;
/// use annals::rkyv::{Archive, Deserialize, Serialize, util::AlignedVec};
///
/// #[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
/// struct Deposited {
///     cents: u64,
/// }
///
/// let mut bytes = AlignedVec::new();
/// Deposited { cents: 5 }.encode(&mut bytes)?;
/// assert_eq!(Deposited::decode(&bytes)?, Deposited { cents: 5 });
/// assert!(Deposited::decode(b"no archive").is_err());
/// # Ok::<(), annals::actor::NotArchive>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be archived",
    note = "derive `annals::rkyv::{{Archive, Serialize, Deserialize}}` for it"
)]
pub trait Value: Send + Sized + 'static {
    /// What the archive's beginning must be aligned to, in bytes: 16 at most.
    const ALIGN: usize;

    /// Appends the archive to `bytes`, whose length must be a multiple of [`Self::ALIGN`].
    ///
    /// # Errors
    /// If the type itself refuses (a `Mutex` that is poisoned, a path that is not UTF-8).
    /// `bytes` may have grown by an unfinished archive.
    fn encode(&self, bytes: &mut AlignedVec<16>) -> Result<(), NotArchive>;

    /// Reads an archive. Where `bytes` are not aligned as they must be, a copy is.
    ///
    /// # Errors
    /// If `bytes` are no archive of this type.
    fn decode(bytes: &[u8]) -> Result<Self, NotArchive>;
}

impl<T> Value for T
where
    T: Archive + Send + 'static,
    T: for<'a, 'b> Serialize<HighSerializer<Tail<'a>, ArenaHandle<'b>, Error>>,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, Error>> + Deserialize<T, HighDeserializer<Error>>,
{
    const ALIGN: usize = {
        let align = align_of::<T::Archived>();
        assert!(align <= 16, "archives align to 16 at most");
        align
    };

    fn encode(&self, bytes: &mut AlignedVec<16>) -> Result<(), NotArchive> {
        debug_assert!(bytes.len().is_multiple_of(Self::ALIGN), "an archive begins where it may");
        let start = bytes.len();
        to_bytes_in::<_, Error>(self, Tail { bytes, start })?;
        Ok(())
    }

    #[inline]
    fn decode(bytes: &[u8]) -> Result<Self, NotArchive> {
        // As the event of a lone frame is. Here an error is an error.
        if bytes.as_ptr().addr().is_multiple_of(16) {
            return match rkyv::from_bytes::<T, Error>(bytes) {
                Ok(value) => Ok(value),
                Err(error) => Err(error.into()),
            };
        }
        decode_unaligned(bytes)
    }
}

/// At another multiple of its own alignment than 16, it may be that something inside asks for
/// more, as a `Vec<u128>` does.
#[inline(never)]
fn decode_unaligned<T>(bytes: &[u8]) -> Result<T, NotArchive>
where
    T: Archive + Value,
    T::Archived:
        for<'a> CheckBytes<HighValidator<'a, Error>> + Deserialize<T, HighDeserializer<Error>>,
{
    if bytes.as_ptr().addr().is_multiple_of(T::ALIGN)
        && let Ok(value) = rkyv::from_bytes::<T, Error>(bytes)
    {
        return Ok(value);
    }
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    Ok(rkyv::from_bytes::<T, Error>(&aligned)?)
}

/// Where an archive is written: the end of a buffer, with positions counted from where the
/// archive begins.
#[derive(Debug)]
pub struct Tail<'a> {
    bytes: &'a mut AlignedVec<16>,
    start: usize,
}

impl Positional for Tail<'_> {
    fn pos(&self) -> usize {
        self.bytes.len() - self.start
    }
}

impl<E> Writer<E> for Tail<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Fallible for Tail<'_> {
    type Error = Error;
}

/// These bytes are no archive of the type, or the value refuses to be one.
#[derive(Clone, PartialEq, Eq)]
pub struct NotArchive {
    reason: Box<str>,
}

impl From<Error> for NotArchive {
    fn from(error: Error) -> Self {
        // The first line says what is wrong, the others where in rkyv it was noticed.
        let text = error.to_string();
        Self { reason: text.lines().next().unwrap_or_default().into() }
    }
}

impl fmt::Debug for NotArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotArchive({:?})", self.reason)
    }
}

impl fmt::Display for NotArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an archive: {}", self.reason)
    }
}

impl std::error::Error for NotArchive {}
