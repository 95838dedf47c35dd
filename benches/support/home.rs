//! Where the benches keep their data: on a real disk, and only while they run.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder of this process' own, removed when dropped.
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
}

impl Home {
    /// In `ANNALS_BENCH_DIR`, or beside the build. Not in the system's folder for temporary
    /// files: that may be memory.
    pub(crate) fn new(name: &str) -> Self {
        let parent = std::env::var_os("ANNALS_BENCH_DIR").map_or_else(
            || {
                let beside = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
                let target = beside.unwrap_or_else(|| "target".into());
                // Relative to where `cargo` stands when it builds and runs a bench.
                Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("bench-data")
            },
            PathBuf::from,
        );
        let dir = parent.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("the folder for the benches' data");
        if rustix::fs::statfs(&dir).is_ok_and(|it| it.f_type == libc::TMPFS_MAGIC) {
            eprintln!("*** {} IS MEMORY: what is durable here means nothing", dir.display());
        }
        Self { dir }
    }

    /// A path below that does not exist.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        remove(&path);
        path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// Removes a folder or a file that may be there.
pub(crate) fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("*** {} stays: {error}", path.display());
    }
}
