//! MessagePack, as much of it as a stranger's message needs: a reader over borrowed bytes.
//!
//! It hands out one token at a time and holds nothing itself, so nothing is allocated for what a
//! length claims. A length that the bytes behind it cannot fill is refused where it stands: each
//! element takes a byte at least.

#![expect(clippy::big_endian_bytes, reason = "MessagePack's numbers are big-endian")]

use super::wire::Reject;

/// What stands next. Lengths of arrays and maps are followed by so many tokens (maps: pairs).
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Signed(i64),
    Float(f64),
    /// Not checked to be UTF-8.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Array(usize),
    Map(usize),
    /// An extension: nothing that is read here has one.
    Extension,
}

/// Where the reading is.
#[derive(Copy, Clone, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, length: bytes.len() }
    }

    /// Bytes read so far.
    pub(super) const fn offset(&self) -> usize {
        self.length - self.rest.len()
    }

    /// The next token.
    #[inline]
    pub(super) fn token(&mut self) -> Result<Token<'a>, Reject> {
        let at = self.offset();
        let [first] = self.take::<1>()?;
        Ok(match first {
            0x00..=0x7f => Token::Unsigned(u64::from(first)),
            0x80..=0x8f => self.map(at, u32::from(first & 0x0f))?,
            0x90..=0x9f => self.array(at, u32::from(first & 0x0f))?,
            0xa0..=0xbf => Token::Text(self.slice(usize::from(first & 0x1f))?),
            0xc0 => Token::Nil,
            0xc1 => return Err(Reject::Msgpack { offset: at }),
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4 => {
                let length = self.length_1()?;
                Token::Bytes(self.slice(length)?)
            }
            0xc5 => {
                let length = self.length_2()?;
                Token::Bytes(self.slice(length)?)
            }
            0xc6 => {
                let length = self.length_4()?;
                Token::Bytes(self.slice(length)?)
            }
            0xc7 => {
                let length = self.length_1()?;
                self.extension(length)?
            }
            0xc8 => {
                let length = self.length_2()?;
                self.extension(length)?
            }
            0xc9 => {
                let length = self.length_4()?;
                self.extension(length)?
            }
            0xca => Token::Float(f64::from(f32::from_bits(self.u32()?))),
            0xcb => Token::Float(f64::from_bits(self.u64()?)),
            0xcc => Token::Unsigned(u64::from(self.u8()?)),
            0xcd => Token::Unsigned(u64::from(self.u16()?)),
            0xce => Token::Unsigned(u64::from(self.u32()?)),
            0xcf => Token::Unsigned(self.u64()?),
            0xd0 => signed(i64::from(self.u8()?.cast_signed())),
            0xd1 => signed(i64::from(self.u16()?.cast_signed())),
            0xd2 => signed(i64::from(self.u32()?.cast_signed())),
            0xd3 => signed(self.u64()?.cast_signed()),
            0xd4..=0xd8 => self.extension(1 << (first - 0xd4))?,
            0xd9 => {
                let length = self.length_1()?;
                Token::Text(self.slice(length)?)
            }
            0xda => {
                let length = self.length_2()?;
                Token::Text(self.slice(length)?)
            }
            0xdb => {
                let length = self.length_4()?;
                Token::Text(self.slice(length)?)
            }
            0xdc => {
                let length = u32::from(self.u16()?);
                self.array(at, length)?
            }
            0xdd => {
                let length = self.u32()?;
                self.array(at, length)?
            }
            0xde => {
                let length = u32::from(self.u16()?);
                self.map(at, length)?
            }
            0xdf => {
                let length = self.u32()?;
                self.map(at, length)?
            }
            0xe0..=0xff => Token::Signed(i64::from(first.cast_signed())),
        })
    }

    /// Passes over one value, whatever is in it. Takes no stack for what is nested.
    pub(super) fn skip(&mut self) -> Result<(), Reject> {
        let mut values = 1_u64;
        while values > 0 {
            values -= 1;
            // Each claims no more elements than bytes are left, so the sum stays far from the end
            // of a u64 for any slice there is.
            values = values.saturating_add(match self.token()? {
                Token::Array(length) => length as u64,
                Token::Map(length) => (length as u64).saturating_mul(2),
                _ => 0,
            });
        }
        Ok(())
    }

    fn array(&self, at: usize, length: u32) -> Result<Token<'a>, Reject> {
        let length = length as usize;
        if length > self.rest.len() {
            return Err(Reject::Length { offset: at });
        }
        Ok(Token::Array(length))
    }

    fn map(&self, at: usize, length: u32) -> Result<Token<'a>, Reject> {
        let length = length as usize;
        if length > self.rest.len() / 2 {
            return Err(Reject::Length { offset: at });
        }
        Ok(Token::Map(length))
    }

    /// Its type, one byte, and its bytes.
    fn extension(&mut self, length: usize) -> Result<Token<'a>, Reject> {
        self.slice(length.saturating_add(1))?;
        Ok(Token::Extension)
    }

    fn length_1(&mut self) -> Result<usize, Reject> {
        Ok(usize::from(self.u8()?))
    }

    fn length_2(&mut self) -> Result<usize, Reject> {
        Ok(usize::from(self.u16()?))
    }

    fn length_4(&mut self) -> Result<usize, Reject> {
        Ok(self.u32()? as usize)
    }

    fn u8(&mut self) -> Result<u8, Reject> {
        self.take().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Reject> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Reject> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Reject> {
        self.take().map(u64::from_be_bytes)
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Reject> {
        let at = self.offset();
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Reject::Short { offset: at })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Reject> {
        let at = self.offset();
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or(Reject::Length { offset: at })?;
        self.rest = rest;
        Ok(taken)
    }
}

fn signed<'a>(number: i64) -> Token<'a> {
    match u64::try_from(number) {
        Ok(number) => Token::Unsigned(number),
        Err(_) => Token::Signed(number),
    }
}

/// Writes what [`Reader`] reads, for tests and for those who feed a pipeline by hand.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn array(&mut self, length: usize) {
        self.head(length, 0x90, 0xdc);
    }

    pub(super) fn map(&mut self, length: usize) {
        self.head(length, 0x80, 0xde);
    }

    /// Arrays and maps alike: within a nibble, 16 bits, 32 bits.
    fn head(&mut self, length: usize, small: u8, wide: u8) {
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ 0..=15), _) => self.0.push(small | length),
            (_, Ok(length)) => {
                self.0.push(wide);
                self.0.extend_from_slice(&length.to_be_bytes());
            }
            _ => {
                self.0.push(wide + 1);
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                self.0.extend_from_slice(&length.to_be_bytes());
            }
        }
    }

    pub(super) fn nil(&mut self) {
        self.0.push(0xc0);
    }

    pub(super) fn float(&mut self, number: f64) {
        self.0.push(0xcb);
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// In its shortest form, as msgspec and msgpack write it.
    pub(super) fn unsigned(&mut self, number: u64) {
        match (u8::try_from(number), u16::try_from(number), u32::try_from(number)) {
            (Ok(number @ 0..=0x7f), ..) => self.0.push(number),
            (Ok(number), ..) => self.0.extend_from_slice(&[0xcc, number]),
            (_, Ok(number), _) => {
                self.0.push(0xcd);
                self.0.extend_from_slice(&number.to_be_bytes());
            }
            (.., Ok(number)) => {
                self.0.push(0xce);
                self.0.extend_from_slice(&number.to_be_bytes());
            }
            _ => {
                self.0.push(0xcf);
                self.0.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    /// Texts of up to 255 bytes: names of fields and the like.
    pub(super) fn text(&mut self, text: &str) {
        let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
        match length {
            0..=31 => self.0.push(0xa0 | length),
            _ => self.0.extend_from_slice(&[0xd9, length]),
        }
        self.0.extend_from_slice(text.as_bytes().get(..usize::from(length)).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind, with the bytes that other implementations write for it.
    #[test]
    fn every_form_of_every_token_is_read() {
        for (bytes, token) in [
            (&[0x05][..], Token::Unsigned(5)),
            (&[0xcc, 0xff], Token::Unsigned(255)),
            (&[0xcd, 1, 0], Token::Unsigned(256)),
            (&[0xce, 0, 1, 0, 0], Token::Unsigned(65_536)),
            (&[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Token::Unsigned(u64::MAX)),
            (&[0xff], Token::Signed(-1)),
            (&[0xd0, 0x80], Token::Signed(-128)),
            (&[0xd0, 0x7f], Token::Unsigned(127)),
            (&[0xd1, 0xff, 0], Token::Signed(-256)),
            (&[0xd2, 0xff, 0xff, 0xff, 0], Token::Signed(-256)),
            (&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], Token::Signed(i64::MIN)),
            (&[0xca, 0x3f, 0x80, 0, 0], Token::Float(1.0)),
            (&[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], Token::Float(1.0)),
            (&[0xc0], Token::Nil),
            (&[0xc2], Token::Bool(false)),
            (&[0xc3], Token::Bool(true)),
            (&[0xa1, b'a'], Token::Text(b"a")),
            (&[0xd9, 1, b'a'], Token::Text(b"a")),
            (&[0xda, 0, 1, b'a'], Token::Text(b"a")),
            (&[0xdb, 0, 0, 0, 1, b'a'], Token::Text(b"a")),
            (&[0xc4, 1, 7], Token::Bytes(&[7])),
            (&[0xc5, 0, 1, 7], Token::Bytes(&[7])),
            (&[0xc6, 0, 0, 0, 1, 7], Token::Bytes(&[7])),
            (&[0x91, 1], Token::Array(1)),
            (&[0xdc, 0, 1, 1], Token::Array(1)),
            (&[0xdd, 0, 0, 0, 1, 1], Token::Array(1)),
            (&[0x81, 1, 1], Token::Map(1)),
            (&[0xde, 0, 1, 1, 1], Token::Map(1)),
            (&[0xdf, 0, 0, 0, 1, 1, 1], Token::Map(1)),
            (&[0xd4, 1, 1], Token::Extension),
            (&[0xc7, 1, 1, 1], Token::Extension),
            (&[0xc8, 0, 1, 1, 1], Token::Extension),
            (&[0xc9, 0, 0, 0, 1, 1, 1], Token::Extension),
        ] {
            assert_eq!(Reader::new(bytes).token().unwrap(), token, "{bytes:?}");
            let mut reader = Reader::new(bytes);
            reader.skip().unwrap();
            assert_eq!(reader.offset(), bytes.len(), "{bytes:?}");
            for cut in 0..bytes.len() {
                let cut = &bytes[..cut];
                assert!(Reader::new(cut).skip().is_err(), "{cut:?}");
            }
        }
    }

    #[test]
    fn a_length_that_cannot_be_true_is_refused_before_anything_is_read() {
        let full = [0xff; 4];
        for first in [0xc6, 0xc9, 0xdb, 0xdd, 0xdf] {
            let bytes = [&[first][..], &full, &[0; 64]].concat();
            assert!(Reader::new(&bytes).token().is_err(), "{first:x}");
        }
    }

    /// A million open arrays, one in the other, would end a reader that calls itself.
    #[test]
    fn what_is_nested_deeply_is_skipped_without_a_deep_stack() {
        let bytes = vec![0x91; 1_000_000];
        assert_eq!(Reader::new(&bytes).skip(), Err(Reject::Length { offset: 999_999 }));
        let closed = [&bytes[..], &[0xc0]].concat();
        assert_eq!(Reader::new(&closed).skip(), Ok(()));
    }
}
