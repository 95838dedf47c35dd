//! What it was measured on, and with what.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

/// Of all packages that this program is built of.
const LOCK: &str = include_str!("../Cargo.lock");

/// The version of a package in `Cargo.lock`; the newest, if there are several.
pub(crate) fn version(package: &str) -> Option<&'static str> {
    version_in(LOCK, package)
}

fn version_in<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut found = None;
    let mut lines = lock.lines();
    while let Some(line) = lines.next() {
        if line == name {
            // They are in ascending order.
            found = lines.next()?.strip_prefix("version = \"")?.strip_suffix('"');
        }
    }
    found
}

/// One line about the machine, in the words of its kernel.
pub(crate) fn describe(dir: &Path) -> String {
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("a processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    let gib = kib.div_ceil(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split_whitespace().next().unwrap_or("?");
    format!(
        "{model}, {cores} processors, {gib} GiB; Linux {}; {}; load when it began: {load}",
        kernel.trim(),
        file_system(dir).unwrap_or_else(|| "a file system".to_owned())
    )
}

/// Type and device of the file system that a folder is on.
fn file_system(dir: &Path) -> Option<String> {
    let number = fs::metadata(dir).ok()?.dev();
    let wanted = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let mounts = read("/proc/self/mountinfo");
    mounts.lines().find_map(|line| mount(line, &wanted))
}

fn mount(line: &str, wanted: &str) -> Option<String> {
    let (place, rest) = line.split_once(" - ")?;
    (place.split(' ').nth(2)? == wanted).then_some(())?;
    let mut words = rest.split(' ');
    Some(format!("{} on {}", words.next()?, words.next()?))
}

/// Bytes that the device under a folder was told to write so far, by whomever; `None` where the
/// file system is on no device of its own.
pub(crate) fn bytes_written(dir: &Path) -> Option<u64> {
    let number = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    sectors_written(&read(&format!("/sys/dev/block/{major}:{minor}/stat"))).map(|it| it * 512)
}

/// Sectors are of 512 bytes here, whatever those of the device are.
fn sectors_written(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(6)?.parse().ok()
}

/// Today, and the compiler that is there now.
pub(crate) fn date() -> String {
    said_by("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).unwrap_or_else(|| "some day".to_owned())
}

pub(crate) fn compiler() -> String {
    said_by("rustc", &["--version"]).unwrap_or_else(|| "rustc".to_owned())
}

fn said_by(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_several_versions_is_the_one() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"a\"\n\
                    version = \"2.0.0\"\n\n[[package]]\nname = \"ab\"\nversion = \"9.0.0\"\n";
        assert_eq!(version_in(lock, "a"), Some("2.0.0"));
        assert_eq!(version_in(lock, "b"), None);
    }

    #[test]
    fn the_seventh_number_is_that_of_the_sectors_written() {
        let stat = "  1 2 3 4   5 6 7000 8 0 9 10\n";
        assert_eq!(sectors_written(stat), Some(7_000));
        assert_eq!(sectors_written(""), None);
    }

    #[test]
    fn a_mount_is_found_by_its_device() {
        let line = "26 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard";
        assert_eq!(mount(line, "254:0").as_deref(), Some("ext4 on /dev/vda"));
        assert_eq!(mount(line, "254:1"), None);
    }
}
