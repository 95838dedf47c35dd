//! `annals`: looks at a store, verifies it, backs it up and repairs it.
//!
//! Everything but `repair --yes` and `rebuild` reads only, takes no lock, and works on a store
//! that another process has open.
#![deny(clippy::unwrap_used, clippy::indexing_slicing)]

mod act;
mod fail;
mod owed;
mod show;
mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use fail::{Failure, USAGE};

const CODES: &str = "\
Exit codes:
  0  done, and nothing is wrong
  1  something is wrong with the store: findings, or damage in what was to be read
  2  the command line makes no sense
  3  it could not be done: no store there, open in another process, a newer format, no
     permission, an input or output error

Everything but `repair --yes` and `rebuild` only reads and takes no lock: it works on a store that
is open in another process. `--json` prints one document; for dump, tail and history one a line.";

#[derive(Parser)]
#[command(name = "annals", version, about, after_help = CODES)]
struct Arguments {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What a store is: identity, marks, segments, who has it open
    Stat {
        /// The store's folder
        store: PathBuf,
        /// Also count frames, events and actors: reads what no checkpoint covers
        #[arg(long)]
        count: bool,
    },
    /// Read everything and list what is wrong
    Verify {
        /// The store's folder
        store: PathBuf,
    },
    /// Print frames
    Dump {
        /// The store's folder
        store: PathBuf,
        /// Begin at this position
        #[arg(long, default_value_t = 0, value_name = "LSN")]
        from: u64,
        /// Print at most so many frames
        #[arg(long)]
        limit: Option<u64>,
        /// Only frames of actors of this kind
        #[arg(long)]
        kind: Option<String>,
        /// Print payloads whole, in hex
        #[arg(long)]
        hex: bool,
    },
    /// Print the last frames
    Tail {
        /// The store's folder
        store: PathBuf,
        /// Go on printing as the store grows
        #[arg(short, long)]
        follow: bool,
        /// How many of the last frames
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: usize,
    },
    /// Print the events of one actor
    History {
        /// The store's folder
        store: PathBuf,
        /// The actor, as KIND/NAME
        actor: String,
        /// Only events after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// Print payloads whole, in hex
        #[arg(long)]
        hex: bool,
    },
    /// List the actors that have events
    Names {
        /// The store's folder
        store: PathBuf,
        /// Only those of this kind; without it all but Annals' own, such as `annals.cursor`
        #[arg(long)]
        kind: Option<String>,
    },
    /// List what actors owe: messages not handled, timers armed, steps under way; oldest first
    Owed {
        /// The store's folder
        store: PathBuf,
        /// List at most so many
        #[arg(long, default_value_t = 1000)]
        max: usize,
    },
    /// List the cursors: where each is, and how far behind
    Cursors {
        /// The store's folder
        store: PathBuf,
    },
    /// Copy a store, open or not, to a new folder
    Backup {
        /// The store's folder
        store: PathBuf,
        /// The folder to make
        to: PathBuf,
        /// Give files that are not written any more a second name instead of copying them
        #[arg(long)]
        links: bool,
    },
    /// Say what a repair would do; with --yes, do it
    Repair {
        /// The store's folder
        store: PathBuf,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
    /// Drop catalogue, indexes and checkpoints, and make them again
    Rebuild {
        /// The store's folder
        store: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            // A closed output is nobody's trouble.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    let json = arguments.json;
    let done = match arguments.command {
        Command::Stat { store, count } => show::stat(&store, count, json),
        Command::Verify { store } => act::verify(&store, json),
        Command::Dump { store, from, limit, kind, hex } => {
            show::dump(&store, &show::Which { from, limit, kind, hex }, json)
        }
        Command::Tail { store, follow, lines } => show::tail(&store, follow, lines, json),
        Command::History { store, actor, after, hex } => {
            show::history(&store, &actor, (after, hex), json)
        }
        Command::Names { store, kind } => show::names(&store, kind.as_deref(), json),
        Command::Owed { store, max } => owed::owed(&store, max, json),
        Command::Cursors { store } => owed::cursors(&store, json),
        Command::Backup { store, to, links } => act::backup(&store, &to, links, json),
        Command::Repair { store, yes } => act::repair(&store, yes, json),
        Command::Rebuild { store } => act::rebuild(&store, json),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(failure) => {
            text::complain(&failure);
            ExitCode::from(failure.code())
        }
    }
}
