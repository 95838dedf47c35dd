//! How a pipeline is put together.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::batch::{Batch, batch};
use super::dead::{Dead, Graves, Letters};
use super::dedup::{Dedup, dedup};
use super::drive::Drive;
use super::fault::{Fault, Why};
use super::gauge::Gauges;
use super::handle::{Handle, run_here, spawn};
use super::keep::Keep;
use super::options::Options;
use super::pos::Pos;
use super::rate::{Rate, rate};
use super::run::Run;
use super::sink::Sink;
use super::source::Source;
use super::stage::Stage;
use super::stages::{Filter, FlatMap, Map, TryMap, filter, flat_map, map, try_map};
use super::then::{Named, Pass, Then};

/// A source, and stages behind it. See [`from`].
#[derive(Debug)]
pub struct Pipe<S, C> {
    source: S,
    chain: C,
}

/// Begins a pipeline with its source.
///
/// ```
/// use annals::edge;
/// use std::time::Duration;
///
/// let (lines, taken) = (["3", "4", "x", "5"], edge::channel::bounded(16));
/// let pipeline = edge::from(edge::iter(lines))
///     .try_map(|pos, line: &&str| line.parse::<u32>().map_err(|error| edge::bad(pos, error.to_string())))
///     .filter(|number| *number != 4)
///     .batch(10, Duration::from_millis(5))
///     .into(taken.0)
///     .dead_letters(edge::call(|_, dead: &edge::Dead<&str>| {
///         assert_eq!(dead.item, Some("x"));
///         Ok(())
///     }))
///     .spawn("numbers")?;
/// pipeline.join()?;
/// assert_eq!(taken.1.try_iter().map(|(_, batch)| batch).collect::<Vec<_>>(), [[3, 5]]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn from<S: Source>(source: S) -> Pipe<S, Pass<S::Item>> {
    Pipe { source, chain: Pass::default() }
}

/// A pipe with one stage more, which has a name.
type WithNamed<S, C, N> = Pipe<S, Then<C, Named<<C as Stage>::Out, <N as Stage>::Out>>>;

impl<S: Source, C: Stage<In = S::Item>> Pipe<S, C> {
    /// Another stage behind those that there are.
    pub fn then<N: Stage<In = C::Out>>(self, next: N) -> Pipe<S, Then<C, N>> {
        Pipe { source: self.source, chain: Then::new(self.chain, next) }
    }

    /// A stage that has a name, by which it can be [exchanged](Handle::swap) later.
    pub fn named<N>(self, name: &str, next: N) -> WithNamed<S, C, N>
    where
        N: Stage<In = C::Out> + Send + 'static,
        N::In: 'static,
        N::Out: 'static,
    {
        self.then(Named::new(name, next))
    }

    /// One record of each. See [`map`].
    pub fn map<Out, F: FnMut(C::Out) -> Out>(self, act: F) -> Pipe<S, Then<C, Map<C::Out, F>>> {
        self.then(map(act))
    }

    /// Only some. See [`filter`].
    pub fn filter<F: FnMut(&C::Out) -> bool>(self, act: F) -> Pipe<S, Then<C, Filter<C::Out, F>>> {
        self.then(filter(act))
    }

    /// None or several of each. See [`flat_map`].
    pub fn flat_map<Outs: IntoIterator, F: FnMut(C::Out) -> Outs>(
        self,
        act: F,
    ) -> Pipe<S, Then<C, FlatMap<C::Out, F>>> {
        self.then(flat_map(act))
    }

    /// One record of each, by what may fail. See [`try_map`].
    pub fn try_map<Out, F>(self, act: F) -> Pipe<S, Then<C, TryMap<C::Out, F>>>
    where
        F: FnMut(Pos, &C::Out) -> Result<Out, Fault>,
    {
        self.then(try_map(act))
    }

    /// Several as one. See [`batch`].
    pub fn batch(self, max: usize, time: Duration) -> Pipe<S, Then<C, Batch<C::Out>>> {
        self.then(batch(max, time))
    }

    /// Each only once. See [`dedup`].
    pub fn dedup<Key: Hash, F: FnMut(&C::Out) -> Key>(
        self,
        max: usize,
        key: F,
    ) -> Pipe<S, Then<C, Dedup<C::Out, F>>> {
        self.then(dedup(max, key))
    }

    /// No more than so many a second. See [`rate`].
    pub fn rate(self, per_second: u32, burst: usize) -> Pipe<S, Then<C, Rate<C::Out>>> {
        self.then(rate(per_second, burst))
    }

    /// Ends the pipeline with its sink.
    pub fn into<K: Sink<Item = C::Out>>(self, sink: K) -> Pipeline<S, C, K> {
        let Self { source, chain } = self;
        Pipeline { source, chain, sink, letters: None, keep: None, options: Options::default() }
    }
}

/// A pipeline that does not run yet.
pub struct Pipeline<S: Source, C, K> {
    source: S,
    chain: C,
    sink: K,
    letters: Option<Box<dyn Letters<S::Item>>>,
    keep: Option<Box<dyn Keep + Send>>,
    options: Options,
}

impl<S: Source + fmt::Debug, C: fmt::Debug, K: fmt::Debug> fmt::Debug for Pipeline<S, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, chain, sink, .. } = self;
        let mut debug = f.debug_struct("Pipeline");
        debug.field("source", source).field("chain", chain).field("sink", sink);
        debug.finish_non_exhaustive()
    }
}

impl<S, C, K> Pipeline<S, C, K>
where
    S: Source,
    C: Stage<In = S::Item>,
    K: Sink<Item = C::Out>,
{
    /// Records that cannot be handled go to `sink`, as the source gave them, and count as done
    /// when they are settled there. Each record is copied, and the copy kept until it is settled.
    #[must_use]
    pub fn dead_letters<D>(mut self, sink: D) -> Self
    where
        D: Sink<Item = Dead<S::Item>> + Send + 'static,
        S::Item: Clone + Send + 'static,
    {
        self.letters = Some(Box::new(Graves::new(sink)));
        self
    }

    /// Keeps how far it is, and what its stages know, in `keep`: for sinks that do not remember,
    /// and stages that do.
    #[must_use]
    pub fn keep(mut self, keep: impl Keep + Send + 'static) -> Self {
        self.keep = Some(Box::new(keep));
        self
    }

    /// What is to be otherwise than by [`Options::default`].
    #[must_use]
    pub fn set(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(&mut self.options);
        self
    }

    /// Without a thread of its own.
    pub(super) fn run(self, name: Arc<str>, gauges: Arc<Gauges>) -> Run<S, C, K> {
        let mut drive = Drive::new(self.chain, self.sink);
        drive.bury(self.letters, self.options.on_poison);
        Run::new(name, (self.source, drive), self.keep, self.options, gauges)
    }

    /// Runs it on this thread, until its source has no more and all is settled.
    ///
    /// # Errors
    /// Why it went down.
    pub fn run_to_end(self, name: &str) -> Result<(), Why> {
        let (name, gauges) = (Arc::<str>::from(name), Arc::<Gauges>::default());
        let options = self.options.clone();
        let run = self.run(Arc::clone(&name), Arc::clone(&gauges));
        run_here(run, (name, gauges), options).map(drop)
    }

    /// Starts it, on a thread of its own. `name` is what it is called in its handle, in `tracing`
    /// and in `metrics`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn spawn(self, name: &str) -> Result<Handle, Fault>
    where
        S: Send + 'static,
        S::Item: Send,
        C: Send + 'static,
        C::Out: Send,
        K: Send + 'static,
    {
        let (name, gauges) = (Arc::<str>::from(name), Arc::<Gauges>::default());
        let options = self.options.clone();
        let run = self.run(Arc::clone(&name), Arc::clone(&gauges));
        spawn(run, (name, gauges), options)
    }
}
