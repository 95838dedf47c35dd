//! The main job: a hospital's log goes through the store while the process is killed again and
//! again, and at the end every case is what it should be.
//!
//! ```text
//! cargo run --release --example workflow
//! ```
//!
//! One actor per patient; what happened to the patient are its commands, of which it refuses some
//! (`case`). A child process feeds them (`child`) and gets `SIGKILL` at random moments; the parent
//! starts the next, which carries on where the last stopped (`lives`). Then every case is compared
//! with a reference that was computed from the file by other code (`proof`, `reference`).
#![expect(clippy::disallowed_methods, reason = "an example reads its own data, and a stopwatch")]

mod case;
mod child;
mod csv;
mod lives;
mod proof;
mod reference;
mod report;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use annals::Durability;

use child::{FEEDERS, Failure, Plan};

const HELP: &str = "\
Feeds a hospital's log to one actor per patient, killing the process on the way.

Usage: workflow [options]
  --scale N            feed every case N times, under new names [1]
  --kills K            how often to kill the process [5]
  --seed S             repeat the random moments of an earlier run
  --durability LEVEL   power: acknowledge what is on disk; process: what outlives a kill [power]
  --dir DIR            where the store goes; must be empty or absent [a temporary directory]
  --keep               leave the store there
  --help";

fn main() -> ExitCode {
    let result = match Arguments::parse() {
        Ok(None) => {
            println!("{HELP}");
            Ok(())
        }
        Ok(Some(arguments)) if arguments.child => {
            arguments.plan().and_then(|plan| child::live(&plan))
        }
        Ok(Some(arguments)) => run(&arguments),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("workflow: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let temporary = match arguments.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("annals-workflow-").tempdir()?),
    };
    let mut plan = arguments.plan()?;
    if let Some(directory) = &temporary {
        plan.dir = directory.path().join("store");
    }
    if plan.dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!("{} is not empty", plan.dir.display()).into());
    }
    let pathways = csv::read(&plan.data)?;
    let rows_once: usize = pathways.iter().map(|pathway| pathway.rows.len()).sum();
    let rows = plan.scale * rows_once as u64;
    let seed = arguments.seed.map_or_else(seed_of_now, Ok)?;
    report::opening(&plan, &pathways, rows, seed);

    let bar = report::bar(rows);
    let lives = lives::run(plan.clone(), arguments.kills, &mut lives::Random(seed), &bar, rows)?;
    bar.finish_and_clear();
    let bar = report::bar(rows).with_message("proof");
    let (proof, store) = proof::prove(&plan, &pathways, &bar)?;
    bar.finish_and_clear();

    report::table(&lives, &proof, rows);
    report::history(&store, &pathways)?;
    child::close(store)?;
    keep_or_remove(arguments, temporary, &plan)
}

fn keep_or_remove(
    arguments: &Arguments,
    temporary: Option<tempfile::TempDir>,
    plan: &Plan,
) -> Result<(), Failure> {
    if arguments.keep {
        if let Some(directory) = temporary {
            // The path is printed; the directory is the user's from now on.
            let _path: PathBuf = directory.keep();
        }
        println!("\nThe store is left in {}", plan.dir.display());
    } else if temporary.is_none() {
        std::fs::remove_dir_all(&plan.dir)?;
    }
    Ok(())
}

fn seed_of_now() -> Result<u64, Failure> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(u64::from(now.subsec_nanos()))
}

/// What was asked for on the command line.
#[derive(Debug)]
struct Arguments {
    scale: u64,
    kills: u32,
    seed: Option<u64>,
    durability: Durability,
    dir: Option<PathBuf>,
    keep: bool,
    /// Hidden: this process is one life.
    child: bool,
    kill_at: Option<u64>,
    linger: bool,
    acked: [u64; FEEDERS],
}

impl Arguments {
    /// `None`: help was asked for.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        use lexopt::prelude::{Long, Short, ValueExt as _};
        let mut arguments = Self {
            scale: 1,
            kills: 5,
            seed: None,
            durability: Durability::Power,
            dir: None,
            keep: false,
            child: false,
            kill_at: None,
            linger: false,
            acked: [0; FEEDERS],
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(None),
                Long("scale") => arguments.scale = parser.value()?.parse()?,
                Long("kills") => arguments.kills = parser.value()?.parse()?,
                Long("seed") => arguments.seed = Some(parser.value()?.parse()?),
                Long("durability") => arguments.durability = parser.value()?.parse()?,
                Long("dir") => arguments.dir = Some(parser.value()?.into()),
                Long("keep") => arguments.keep = true,
                Long("child") => arguments.child = true,
                Long("kill-at") => arguments.kill_at = Some(parser.value()?.parse()?),
                Long("linger") => arguments.linger = true,
                Long("acked") => {
                    for acked in &mut arguments.acked {
                        *acked = parser.value()?.parse()?;
                    }
                }
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(Some(arguments))
    }

    fn plan(&self) -> Result<Plan, Failure> {
        if self.scale == 0 {
            return Err("--scale must be at least 1".into());
        }
        Ok(Plan {
            dir: self.dir.clone().unwrap_or_default(),
            data: proof::data(),
            scale: self.scale,
            durability: self.durability,
            kill_at: self.kill_at,
            linger: self.linger,
            acked: self.acked,
        })
    }
}

/// The other way round: what a child's [`Arguments`] are made of.
fn child_arguments(plan: &Plan) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        vec!["--child".into(), "--dir".into(), plan.dir.clone().into()];
    let mut option = |name: &str, values: &[String]| {
        arguments.push(name.into());
        arguments.extend(values.iter().map(OsString::from));
    };
    option("--scale", &[plan.scale.to_string()]);
    option("--durability", &[plan.durability.to_string()]);
    if let Some(command) = plan.kill_at {
        option("--kill-at", &[command.to_string()]);
    }
    if plan.linger {
        option("--linger", &[]);
    }
    option("--acked", &plan.acked.map(|rows| rows.to_string()));
    arguments
}
