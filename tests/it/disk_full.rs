//! A full disk, for real: on a small tmpfs and on a small ext4 in a file. Needs the right to
//! mount; without it the test says so and passes. (The simulated disk's is in `faults`.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use annals::error::AppendError;
use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{Actor, ActorError, Durability, Error, Handle, Store, StoreOptions, Turn};

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Kept(Vec<u8>);

#[derive(Default)]
struct Shelf {
    items: u64,
}

impl Actor for Shelf {
    type Event = Kept;
    const KIND: &'static str = "shelf";
    fn apply(&mut self, _: &Kept) {
        self.items += 1;
    }
}

struct Keep;
impl Handle<Keep> for Shelf {
    type Reply = u64;
    fn handle(_: Keep, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(Kept(vec![7; 4_000]));
        turn.items
    }
}

struct Count;
impl Handle<Count> for Shelf {
    type Reply = u64;
    fn handle(_: Count, turn: &mut Turn<'_, Self>) -> u64 {
        turn.items
    }
}

fn options(durability: Durability) -> StoreOptions {
    Store::options()
        .durability(durability)
        .ring_bytes(64 << 10)
        .segment_bytes(64 << 10, 256 << 10)
        .frame_bytes_max(8 << 10)
        .snapshot_bytes_max(8 << 10)
        .catalogue(false)
}

/// A mounted file system; unmounted when it is dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.as_os_str()]);
    }
}

fn run(program: &str, arguments: &[impl AsRef<std::ffi::OsStr>]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Appends until the disk is full, makes room, appends again, reopens: nothing that was
/// acknowledged is missing at any point.
fn fill_and_go_on(dir: &Path, durability: Durability, make_room: impl FnOnce()) {
    let store = options(durability).open(dir).unwrap();
    let shelf = store.actor::<Shelf>("a").unwrap();
    let mut kept = 0;
    let refused = loop {
        match shelf.ask(Keep) {
            Ok(items) => kept = items,
            Err(error) => break error,
        }
        assert!(kept < 10_000, "the disk is never full");
    };
    let ActorError::Append(cause) = &refused else { panic!("{refused}") };
    assert!(matches!(**cause, AppendError::DiskFull(_)), "{refused}");
    assert!(kept > 10, "only {kept} before it was full");
    // Refused again, and still nothing is lost.
    assert!(shelf.ask(Keep).is_err());
    assert_eq!(shelf.ask(Count).unwrap(), kept);
    make_room();
    // That there is room again is noticed within a tenth of a second.
    let first = loop {
        match shelf.ask(Keep) {
            Ok(items) => break items,
            Err(error) => assert!(matches!(error, ActorError::Append(_)), "{error}"),
        }
        std::thread::yield_now();
    };
    assert_eq!(first, kept + 1);
    for more in 2..=20 {
        assert_eq!(shelf.ask(Keep).unwrap(), kept + more);
    }
    store.close(Duration::from_secs(10)).unwrap();
    let store = options(durability).open(dir).unwrap();
    assert_eq!(store.actor::<Shelf>("a").unwrap().ask(Count).unwrap(), kept + 20);
}

#[test]
fn a_full_tmpfs_refuses_appends_and_takes_them_again_once_there_is_room() {
    for durability in [Durability::Process, Durability::Power] {
        let home = tempfile::tempdir().unwrap();
        let point = home.path().to_owned();
        let mount = ["-t", "tmpfs", "-o", "size=2m", "annals"].map(Into::into);
        let arguments: Vec<std::ffi::OsString> =
            mount.into_iter().chain([point.clone().into_os_string()]).collect();
        if !run("mount", &arguments) {
            eprintln!("SKIPPED: no right to mount a tmpfs");
            return;
        }
        let _mounted = Mounted(point.clone());
        fill_and_go_on(&point.join("store"), durability, || {
            let arguments = ["-o", "remount,size=16m"].map(Into::into);
            let arguments: Vec<std::ffi::OsString> =
                arguments.into_iter().chain([point.clone().into_os_string()]).collect();
            assert!(run("mount", &arguments), "remount");
        });
    }
}

#[test]
fn a_full_ext4_refuses_appends_and_takes_them_again_once_there_is_room() {
    let home = tempfile::tempdir().unwrap();
    let (image, point) = (home.path().join("image"), home.path().join("point"));
    std::fs::create_dir(&point).unwrap();
    let made = run("truncate", &["-s".as_ref(), "16M".as_ref(), image.as_os_str()])
        && run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_os_str()])
        && run("mount", &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), point.as_os_str()]);
    if !made {
        eprintln!("SKIPPED: no right, or no tools, to mount an ext4 in a file");
        return;
    }
    let _mounted = Mounted(point.clone());
    let ballast = point.join("ballast");
    let filled = run("fallocate", &["-l".as_ref(), "9M".as_ref(), ballast.as_os_str()]);
    assert!(filled, "the ballast does not fit");
    fill_and_go_on(&point.join("store"), Durability::Power, || {
        assert!(run("rm", &[ballast.as_os_str()]), "the ballast stays");
    });
}

#[test]
fn an_error_of_a_full_disk_is_typed_all_the_way_up() {
    fn as_user() -> Result<(), Error> {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let cause = annals::error::DiskError {
            doing: "allocating",
            path: "x".into(),
            source: std::sync::Arc::new(full),
        };
        Err(ActorError::from(AppendError::DiskFull(cause)))?
    }
    let error = as_user().unwrap_err();
    assert!(matches!(&error, Error::Actor(ActorError::Append(_))), "{error}");
    assert!(error.to_string().contains("no room"), "{error}");
}
