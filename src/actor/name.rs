//! An actor's name, in the cell itself if it is short: a piece of memory of its own would cost more
//! than most names are long.

use std::fmt;
use std::ops::Deref;

/// Bytes of a name that is kept in place: what 24 bytes leave.
const SHORT_BYTES_MAX: usize = 22;

/// See the [module](self).
pub(crate) enum Name {
    Short { bytes: [u8; SHORT_BYTES_MAX], length: u8 },
    Long(Box<str>),
}

const _: () = assert!(size_of::<Name>() == 24);

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        match (bytes.get_mut(..name.len()), u8::try_from(name.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(name.as_bytes());
                Self::Short { bytes, length }
            }
            (None, _) | (_, Err(_)) => Self::Long(name.into()),
        }
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            // It was text. That it is looked at again costs less than a turn does, and is not done
            // in each.
            Self::Short { bytes, length } => {
                let bytes = bytes.get(..usize::from(*length)).unwrap_or_default();
                std::str::from_utf8(bytes).unwrap_or_default()
            }
            Self::Long(name) => name,
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn a_name_of_any_length_is_kept_as_it_is() {
        let text: String = "actor \u{e4}\u{20ac}\u{1f600} ".chars().cycle().take(100).collect();
        for end in (0..=text.len()).filter(|end| text.is_char_boundary(*end)) {
            let name = Name::from(&text[..end]);
            assert_eq!(&*name, &text[..end]);
            assert_eq!(matches!(name, Name::Short { .. }), end <= 22);
        }
    }
}
