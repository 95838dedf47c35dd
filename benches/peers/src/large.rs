//! How long Annals takes to open logs of some GB after a kill, and what that takes of memory.

use std::path::Path;

use crate::child::{Order, Task};
use crate::report::OURS;
use crate::run::{blocks, spawn};
use crate::stats::{Unit, median, spread};
use crate::store::Answer;
use crate::support::home::{Home, remove};
use crate::table::markdown;
use crate::work::Scale;

/// What was found with one size.
pub(crate) struct Large {
    gigabytes: u64,
    /// On the disk.
    bytes: u64,
    opens: Vec<f64>,
    /// Anonymous and mapped memory that the open has added, and all that there is after it.
    grown: Vec<f64>,
    resident: Vec<f64>,
}

/// All sizes, one after the other. What does not fit on the disk is left out, with a word.
pub(crate) fn run(gigabytes: &[u64], rounds: u64, scale: Scale, home: &Home) -> Vec<Large> {
    let mut all = Vec::new();
    for size in gigabytes {
        let dir = home.fresh("large");
        match one(*size, rounds, scale, &dir) {
            Ok(large) => all.push(large),
            Err(error) => eprintln!("*** {size} GB are left out: {error}"),
        }
        remove(&dir);
    }
    all
}

fn one(gigabytes: u64, rounds: u64, scale: Scale, dir: &Path) -> Answer<Large> {
    std::fs::create_dir_all(dir)?;
    let room = rustix::fs::statvfs(dir)?;
    let (free, needed) = (room.f_bavail * room.f_frsize, (gigabytes << 30) / 4 * 5);
    if free < needed {
        let (free, needed) = (Unit::Bytes.show(free as f64), Unit::Bytes.show(needed as f64));
        return Err(format!("{needed} are needed, {free} are free").into());
    }
    let task = Task::Fill(gigabytes << 10);
    let order = Order { task, store: OURS.to_owned(), dir: dir.to_owned(), scale };
    spawn(&order)?.figures_and_kill()?;
    let mut large = Large {
        gigabytes,
        bytes: blocks(dir),
        opens: Vec::new(),
        grown: Vec::new(),
        resident: Vec::new(),
    };
    for _ in 0..rounds {
        let found = spawn(&Order { task: Task::Reopen, ..order.clone() })?.figures_and_kill()?;
        for (name, figure) in found {
            match name.as_str() {
                "open" => large.opens.push(figure),
                "grown" => large.grown.push(figure),
                "resident" => large.resident.push(figure),
                _ => {}
            }
        }
    }
    Ok(large)
}

/// Nothing, if nothing was measured.
pub(crate) fn table(all: &[Large]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let head =
        ["log", "on the disk", "open after a kill", "slowest / fastest", "memory added", "RSS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for large in all {
        let shown = |figures: &[f64], unit: Unit| {
            median(figures).map_or_else(String::new, |figure| unit.show(figure))
        };
        rows.push(vec![
            format!("{} GB", large.gigabytes),
            format!("{:.2} GiB", large.bytes as f64 / f64::from(1 << 30)),
            shown(&large.opens, Unit::Seconds),
            spread(&large.opens).map_or_else(String::new, |it| format!("{it:.2}")),
            shown(&large.grown, Unit::Bytes),
            shown(&large.resident, Unit::Bytes),
        ]);
    }
    format!(
        "### Annals: opening more\n\n\
         Log in 10,000 streams of 128-byte events; the process killed 4,000 appends after the \
         last of each life; opened again and again. Warm as far as memory goes.\n\n{}\n",
        markdown(&rows)
    )
}
