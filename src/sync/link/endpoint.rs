//! A node's end of all its links: who listens, who dials, which links there are.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::net::Shutdown;

use crate::sync::link::backoff::Backoff;
use crate::sync::link::choose::{Choice, choose};
use crate::sync::link::gate::Gate;
use crate::sync::link::handshake::{Ourselves, Refusal, Refused, VERSIONS, Versions, Who};
use crate::sync::link::peer::{Down, Link, Ready};
use crate::sync::link::shake::{Failed, Shake, Shaken, random_bits};
use crate::sync::link::socket::{connect, end, prepare};
use crate::sync::link::{Above, LinkOptions, Security};
use crate::sync::origin::Origin;
use crate::time::Clock;

/// Who we are to others.
#[derive(Clone, Debug)]
pub struct Local {
    /// Who.
    pub who: Who,
    /// The versions that are spoken.
    pub versions: Versions,
    /// What keeps strangers out.
    pub security: Security,
}

impl Local {
    /// A node that speaks what this build does.
    pub fn new(who: Who, security: Security) -> Self {
        Self { who, versions: VERSIONS, security }
    }
}

/// All links of a node. Closed when it is dropped.
pub struct Endpoint {
    inner: Arc<Inner>,
    listening: Option<(SocketAddr, Arc<TcpListener>)>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({:?})", *self.inner.who.lock())
    }
}

struct Inner {
    local: Local,
    /// Who we are by now.
    who: Mutex<Who>,
    options: LinkOptions,
    above: Arc<dyn Above>,
    clock: Clock,
    table: Mutex<Table>,
    /// A link has come or gone, or an address, or all is over.
    changed: Condvar,
    door: Mutex<Door>,
    numbers: AtomicU64,
    closing: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Which links there are, and whom we dial.
#[derive(Default)]
struct Table {
    links: HashMap<Origin, Link>,
    /// Links with other lives of nodes that are linked, or of this node: to tell them so.
    beside: HashMap<u64, Link>,
    targets: HashMap<String, Arc<Target>>,
    /// Connections in their handshake, so that a close can end them.
    pending: HashMap<u64, Arc<TcpStream>>,
}

/// An address that we dial until somebody says otherwise.
#[derive(Default)]
struct Target {
    dropped: AtomicBool,
    /// Who was there last.
    origin: Mutex<Option<Origin>>,
}

/// Who may stand at the door.
struct Door {
    gate: Gate,
    /// Addresses that we dial.
    known: HashMap<String, HashSet<IpAddr>>,
}

impl Endpoint {
    /// Listens at `listen`, if that is given, and takes links from now on.
    ///
    /// # Errors
    /// The address is not free, or there is no thread to be had; then nothing is left behind.
    pub fn open(
        local: Local,
        options: LinkOptions,
        listen: Option<SocketAddr>,
        above: Arc<dyn Above>,
    ) -> io::Result<Self> {
        let gate = Gate::new(options.strangers_max, options.strangers_per_address_max);
        let inner = Arc::new(Inner {
            who: Mutex::new(local.who),
            local,
            options,
            above,
            clock: Clock::System,
            table: Mutex::default(),
            changed: Condvar::new(),
            door: Mutex::new(Door { gate, known: HashMap::new() }),
            numbers: AtomicU64::new(1),
            closing: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        let mut listening = None;
        if let Some(address) = listen {
            let listener = Arc::new(TcpListener::bind(address)?);
            listening = Some((listener.local_addr()?, Arc::clone(&listener)));
            let all = Arc::clone(&inner);
            inner.spawn("annals-listen", move || all.listen(&listener))?;
        }
        Ok(Self { inner, listening })
    }

    /// Where it listens, with the port that it was given.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listening.as_ref().map(|(address, _)| *address)
    }

    /// Dials `address` (`host:port`) from now on whenever there is no link with whoever is there.
    /// A second call with the same address changes nothing.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn dial(&self, address: &str) -> io::Result<()> {
        let mut table = self.inner.table.lock();
        if table.targets.contains_key(address) || self.inner.is_closing() {
            return Ok(());
        }
        let target = Arc::new(Target::default());
        table.targets.insert(address.to_owned(), Arc::clone(&target));
        drop(table);
        let all = Arc::clone(&self.inner);
        let name = address.to_owned();
        let spawned = self.inner.spawn("annals-dial", move || all.dial_on(&name, &target));
        if spawned.is_err() {
            self.inner.table.lock().targets.remove(address);
        }
        spawned
    }

    /// Dials it no more. A link that is up stays.
    pub fn forget(&self, address: &str) {
        if let Some(target) = self.inner.table.lock().targets.remove(address) {
            target.dropped.store(true, Ordering::Release);
        }
        self.inner.door.lock().known.remove(address);
        self.inner.changed.notify_all();
    }

    /// The addresses that it dials.
    pub fn dialled(&self) -> Vec<String> {
        let mut addresses: Vec<_> = self.inner.table.lock().targets.keys().cloned().collect();
        addresses.sort();
        addresses
    }

    /// The link with a peer, if there is one.
    pub fn link(&self, peer: Origin) -> Option<Link> {
        self.inner.table.lock().links.get(&peer).cloned()
    }

    /// All links that are up, or about to be.
    pub fn links(&self) -> Vec<Link> {
        let table = self.inner.table.lock();
        let all = table.links.values().chain(table.beside.values());
        let mut links: Vec<_> = all.cloned().collect();
        drop(table);
        links.sort_by_key(Link::number);
        links
    }

    /// Goes on under another name, or in another life: for all connections that are made from now
    /// on. Whoever says so ends the links there are.
    pub fn set_who(&self, who: Who) {
        *self.inner.who.lock() = who;
    }

    /// Takes and makes no more connections. Links that are up stay.
    pub fn quiesce(&self) {
        let table = self.inner.table.lock();
        // Release: pairs with the Acquire in `is_closing`.
        self.inner.closing.store(true, Ordering::Release);
        drop(table);
        if let Some((_, listener)) = &self.listening {
            // Whoever is blocked in accept returns. It can only fail if that was done before.
            let _done_before = rustix::net::shutdown(listener, Shutdown::Both);
        }
        self.inner.changed.notify_all();
    }

    /// Takes no more connections, sends on what is parked (for [`LinkOptions::linger_max`] at
    /// most), ends all links and waits for all threads, except the one that calls.
    pub fn close(&self) {
        self.quiesce();
        let inner = &*self.inner;
        let deadline = inner.clock.monotonic() + inner.options.linger_max;
        for link in self.links() {
            link.drain(deadline);
            link.finish(Down::Shutdown);
        }
        loop {
            for stream in inner.table.lock().pending.values() {
                end(stream);
            }
            for link in self.links() {
                link.finish(Down::Shutdown);
            }
            inner.changed.notify_all();
            // Each may have started another before it ended: the list is looked at until it is
            // empty.
            let Some(thread) = inner.threads.lock().pop() else { return };
            if thread.thread().id() != thread::current().id() {
                // A thread that panicked has said so; the others are still waited for.
                drop(thread.join());
            }
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    fn is_closing(&self) -> bool {
        // Acquire: pairs with the Release in `quiesce`; what was opened before it is ended there.
        self.closing.load(Ordering::Acquire)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut threads = self.threads.lock();
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread::Builder::new().name(name.to_owned()).spawn(run)?);
        Ok(())
    }

    // --- who comes ---

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        while !self.is_closing() {
            match listener.accept() {
                Ok((stream, remote)) => self.let_in(stream, remote),
                Err(_) if self.is_closing() => return,
                Err(error) => {
                    // Out of files, most likely: it is better after a moment, or it is not.
                    self.above.failed(None, None, &error.into());
                    let mut table = self.table.lock();
                    self.changed.wait_for(&mut table, self.options.redial_min);
                }
            }
        }
    }

    fn let_in(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        let mut door = self.door.lock();
        let known = door.known.values().any(|here| here.contains(&remote.ip()));
        if !door.gate.enter(remote.ip(), known) {
            drop(door);
            drop(stream);
            self.above.failed(Some(remote), None, &Failed::Crowd);
            return;
        }
        drop(door);
        let all = Arc::clone(self);
        let spawned = self.spawn("annals-link", move || {
            let result = all.shake(stream, remote, None);
            all.door.lock().gate.leave(remote.ip(), known);
            match result {
                Ok(ready) => all.serve(ready, None),
                Err(failed) => all.above.failed(Some(remote), None, &failed),
            }
        });
        if let Err(error) = spawned {
            self.door.lock().gate.leave(remote.ip(), known);
            self.above.failed(Some(remote), None, &error.into());
        }
    }

    // --- whom we go to ---

    fn dial_on(self: &Arc<Self>, address: &str, target: &Target) {
        let mut backoff = Backoff::new(self.options.redial_min, self.options.redial_max);
        let over = || self.is_closing() || target.dropped.load(Ordering::Acquire);
        while !over() {
            let origin = *target.origin.lock();
            let mut table = self.table.lock();
            // Looked at under the lock: a close or a `forget` holds it when it says so.
            if over() {
                return;
            }
            if origin.is_some_and(|origin| table.links.contains_key(&origin)) {
                self.changed.wait(&mut table);
                continue;
            }
            drop(table);
            match self.dial_once(address, target) {
                Ok(ready) => {
                    let began = self.clock.monotonic();
                    self.serve(ready, Some(address));
                    // Not one that takes links only to drop them.
                    if self.clock.monotonic().saturating_sub(began) > self.options.redial_max {
                        backoff.reset();
                    }
                }
                Err(failed) if over() => drop(failed),
                Err(failed) => self.above.failed(None, Some(address), &failed),
            }
            self.wait(backoff.next(random_bits()), over);
        }
    }

    /// Waits for `at_most`, or until it is over.
    fn wait(&self, at_most: Duration, over: impl Fn() -> bool) {
        let until = self.clock.monotonic() + at_most;
        let mut table = self.table.lock();
        while !over() {
            let left = until.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return;
            }
            self.changed.wait_for(&mut table, left);
        }
    }

    fn dial_once(&self, address: &str, target: &Target) -> Result<Ready, Failed> {
        let remotes: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        let ips = remotes.iter().map(|remote| remote.ip().to_canonical());
        self.door.lock().known.insert(address.to_owned(), ips.collect());
        let wanted = || !self.is_closing() && !target.dropped.load(Ordering::Acquire);
        let mut failed = Failed::Io {
            kind: io::ErrorKind::NotFound,
            error: format!("{address} has no address"),
        };
        for remote in remotes {
            match connect(&remote, self.options.handshake_max, &self.clock, wanted) {
                Ok(stream) => return self.shake(stream, remote, Some(target)),
                Err(error) => failed = error.into(),
            }
            if !wanted() {
                break;
            }
        }
        Err(failed)
    }

    // --- both ---

    /// The handshake, as dialer if there is a target.
    fn shake(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        target: Option<&Target>,
    ) -> Result<Ready, Failed> {
        prepare(&stream, self.options.stall_max)?;
        let stream = Arc::new(stream);
        // Relaxed: only that it is another each time.
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.table.lock().pending.insert(number, Arc::clone(&stream));
        let who = *self.who.lock();
        let us = who.origin;
        let shake = Shake {
            stream: &stream,
            clock: &self.clock,
            deadline: self.clock.monotonic() + self.options.handshake_max,
            security: &self.local.security,
            ours: Ourselves {
                who,
                versions: self.local.versions,
                window: self.options.window_bytes,
                hello: self.above.hello(),
            },
        };
        let shaken = if self.is_closing() {
            Err(Refusal::Closing.into())
        } else {
            shake.run(target.is_some(), |who| {
                if let Some(target) = target {
                    *target.origin.lock() = Some(who.origin);
                }
                self.admit(who, if target.is_some() { us } else { who.origin })
            })
        };
        self.table.lock().pending.remove(&number);
        let Shaken { greeting, wire, incoming } = shaken?;
        let dialer = if target.is_some() { us } else { greeting.who.origin };
        let stream =
            Arc::into_inner(stream).ok_or(Failed::Refused(Refused::Here(Refusal::Closing)))?;
        Ok(Ready { stream, remote, dialer, wire, incoming, greeting })
    }

    /// May this one become a link, as things stand?
    fn admit(&self, who: &Who, dialer: Origin) -> Result<(), Refusal> {
        if self.is_closing() {
            return Err(Refusal::Closing);
        }
        let held = self.table.lock().links.get(&who.origin).cloned();
        held.map_or(Ok(()), |held| match self.choose(&held, who, dialer) {
            Choice::Held => Err(Refusal::Duplicate),
            Choice::Offered | Choice::Beside => Ok(()),
        })
    }

    fn choose(&self, held: &Link, who: &Who, dialer: Origin) -> Choice {
        let us = self.who.lock().origin;
        match choose(us, (held.who(), held.dialer()), (who, dialer)) {
            // The one that is to be kept may be dead, and only the other end knows it yet.
            Choice::Held if !held.still_there() => Choice::Offered,
            choice => choice,
        }
    }

    /// Takes its place in the table, when whoever had it is gone.
    fn install(&self, link: &Link) -> Result<(), Refusal> {
        let deadline = self.clock.monotonic() + self.options.handshake_max;
        let us = self.who.lock().origin;
        let mut table = self.table.lock();
        loop {
            if self.is_closing() {
                return Err(Refusal::Closing);
            }
            if link.origin() == us {
                table.beside.insert(link.number(), link.clone());
                return Ok(());
            }
            let Some(held) = table.links.get(&link.origin()).cloned() else { break };
            let choice = MutexGuard::unlocked(&mut table, || {
                let choice = self.choose(&held, link.who(), link.dialer());
                if choice == Choice::Offered {
                    held.finish(Down::Replaced);
                }
                choice
            });
            match choice {
                Choice::Held => return Err(Refusal::Duplicate),
                Choice::Offered => {}
                Choice::Beside => {
                    table.beside.insert(link.number(), link.clone());
                    return Ok(());
                }
            }
            let left = deadline.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return Err(Refusal::Closing);
            }
            if table.links.get(&link.origin()).is_some_and(|now| now.number() == held.number()) {
                self.changed.wait_for(&mut table, left);
            }
        }
        table.links.insert(link.origin(), link.clone());
        Ok(())
    }

    /// The whole life of a link, by its reader's thread.
    fn serve(self: &Arc<Self>, ready: Ready, dialled: Option<&str>) {
        // Relaxed: only that it is another each time.
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (link, incoming, greeting) = Link::new(number, ready, &self.options, &self.clock);
        if let Err(refusal) = self.install(&link) {
            link.close(&refusal.to_string());
            self.above.failed(Some(link.remote()), dialled, &refusal.into());
            return;
        }
        let (all, writer) = (Arc::clone(self), link.clone());
        let spawned = self.spawn("annals-link-out", move || writer.write_on(&*all.above));
        match spawned {
            Ok(()) => {
                self.above.up(&link, &greeting);
                let why = link.read_on(&*self.above, incoming);
                self.above.down(&link, &why);
            }
            Err(error) => {
                link.finish(Down::Shutdown);
                self.above.failed(Some(link.remote()), dialled, &error.into());
            }
        }
        let mut table = self.table.lock();
        if table.beside.remove(&link.number()).is_none() {
            table.links.remove(&link.origin());
        }
        drop(table);
        self.changed.notify_all();
    }
}
