//! Paths of the simulated disk: absolute, without dots, and UTF-8.

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

/// An absolute path without dots: what is relative begins at the root.
pub(super) fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(text(name)?),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(clean)
}

/// Directory and name.
pub(super) fn split(path: &Path) -> io::Result<(PathBuf, String)> {
    let path = clean(path)?;
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => Ok((dir.to_owned(), text(name)?.to_owned())),
        _ => Err(io::ErrorKind::IsADirectory.into()),
    }
}

pub(super) fn text(name: &OsStr) -> io::Result<&str> {
    name.to_str().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// A file stands where a directory is to be, or is on the way to it.
pub(super) fn not_free(there: &Path, wanted: &Path) -> io::Error {
    let last = clean(wanted).is_ok_and(|wanted| wanted == there);
    (if last { io::ErrorKind::AlreadyExists } else { io::ErrorKind::NotADirectory }).into()
}
