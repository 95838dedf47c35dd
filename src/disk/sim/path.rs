//! Paths of the simulated disk: absolute, without dots, and UTF-8.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path};

/// An absolute path without dots: what is relative begins at the root. Most are so already.
pub(super) fn clean(path: &Path) -> io::Result<Cow<'_, str>> {
    match path.to_str() {
        Some(text) if is_clean(text) => return Ok(Cow::Borrowed(text)),
        _ => {}
    }
    let mut clean = String::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                clean.push('/');
                clean.push_str(text(name)?);
            }
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    if clean.is_empty() {
        clean.push('/');
    }
    Ok(Cow::Owned(clean))
}

/// Surely clean as it stands? Names that begin with a dot are looked at more closely.
fn is_clean(path: &str) -> bool {
    let bytes = path.as_bytes();
    let odd = |pair: &[u8]| matches!(pair, [b'/', b'/' | b'.']);
    bytes.first() == Some(&b'/')
        && (bytes.len() == 1 || bytes.last() != Some(&b'/'))
        && !bytes.windows(2).any(odd)
}

/// Directory and name.
pub(super) fn split(path: &Path) -> io::Result<(Cow<'_, str>, Cow<'_, str>)> {
    let none = || io::Error::from(io::ErrorKind::IsADirectory);
    match clean(path)? {
        Cow::Borrowed(path) => {
            let (dir, name) = halves(path).ok_or_else(none)?;
            Ok((Cow::Borrowed(dir), Cow::Borrowed(name)))
        }
        Cow::Owned(path) => {
            let (dir, name) = halves(&path).ok_or_else(none)?;
            Ok((Cow::Owned(dir.to_owned()), Cow::Owned(name.to_owned())))
        }
    }
}

/// Directory and name of a clean path; `None` for the root.
pub(super) fn halves(path: &str) -> Option<(&str, &str)> {
    let (dir, name) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty())?;
    Some((if dir.is_empty() { "/" } else { dir }, name))
}

/// The path of `name` in `dir`.
pub(super) fn join(dir: &str, name: &str) -> String {
    let slash = if dir == "/" { "" } else { "/" };
    [dir, slash, name].concat()
}

fn text(name: &OsStr) -> io::Result<&str> {
    name.to_str().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// A file stands where a directory is to be, or is on the way to it.
pub(super) fn not_free(there: &str, wanted: &str) -> io::Error {
    let last = there == wanted;
    (if last { io::ErrorKind::AlreadyExists } else { io::ErrorKind::NotADirectory }).into()
}
