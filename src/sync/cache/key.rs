//! Keys and values as bytes: what tokens speak of, and what outlives the process.

use std::sync::Arc;

/// A key: something with bytes of its own. Two keys are one where their bytes are.
///
/// Tokens carry these bytes, so all nodes must agree on them: they are part of a domain's schema.
pub trait Key: Send + Sync + 'static {
    /// Hands the bytes to `with`.
    fn with_bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R;

    /// Are these its bytes? Asked at every hit; numbers know a quicker way.
    #[inline]
    fn is(&self, bytes: &[u8]) -> bool {
        self.with_bytes(|own| own == bytes)
    }
}

/// What can be written down and read again: values, for tiers that outlive the process; values and
/// keys, to send them to others.
pub trait Bytes: Sized {
    /// Appends its bytes.
    fn write(&self, out: &mut Vec<u8>);
    /// What was written; `None` if these bytes were not.
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Key for str {
    #[inline]
    fn with_bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
        with(self.as_bytes())
    }
}

impl Key for [u8] {
    #[inline]
    fn with_bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
        with(self)
    }
}

macro_rules! text {
    ($($text:ty),*) => {$(
        impl Key for $text {
            #[inline]
            fn with_bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
                with(self.as_bytes())
            }
        }

        impl Bytes for $text {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_bytes());
            }

            fn read(bytes: &[u8]) -> Option<Self> {
                str::from_utf8(bytes).ok().map(Self::from)
            }
        }
    )*};
}
text!(String, Box<str>, Arc<str>);

macro_rules! raw {
    ($($raw:ty),*) => {$(
        impl Key for $raw {
            #[inline]
            fn with_bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
                with(self)
            }
        }

        impl Bytes for $raw {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self);
            }

            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self::from(bytes))
            }
        }
    )*};
}
raw!(Vec<u8>, Box<[u8]>, Arc<[u8]>);

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Key for $number {
            #[inline]
            fn with_bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
                with(&self.to_le_bytes())
            }

            #[inline]
            fn is(&self, bytes: &[u8]) -> bool {
                Self::read(bytes) == Some(*self)
            }
        }

        impl Bytes for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn read(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self::from_le_bytes)
            }
        }
    )*};
}
number!(u16, u32, u64, u128, i16, i32, i64, i128);

impl<const N: usize> Key for [u8; N] {
    #[inline]
    fn with_bytes<R>(&self, with: impl FnOnce(&[u8]) -> R) -> R {
        with(self)
    }
}

impl<const N: usize> Bytes for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}
