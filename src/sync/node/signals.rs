//! Change tokens: told once that something has changed, here or anywhere.
//!
//! A call back is anybody's code: it runs on a thread of its own, and waits for nobody. Each is
//! run at most once, so what waits is bounded by what was asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use crate::sync::domain::DomainId;
use crate::sync::token::{Token, TokenKind};

type Callback = Box<dyn FnOnce() + Send>;

/// Says whether something has changed since it was asked for. Clones are about the same.
#[derive(Clone)]
pub struct Change {
    state: Arc<State>,
}

struct State {
    changed: AtomicBool,
    inner: Mutex<Inner>,
    came: Condvar,
}

#[derive(Default)]
struct Inner {
    callbacks: Vec<Callback>,
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change").field("is_changed", &self.is_changed()).finish()
    }
}

impl Change {
    /// Has it changed?
    pub fn is_changed(&self) -> bool {
        // Acquire: pairs with the Release in `fire`: who sees it sees what changed.
        self.state.changed.load(Ordering::Acquire)
    }

    /// Calls `then` once, on a thread of the node's: when it changes, or soon if it has.
    pub fn on_change(&self, signals: &Signals, then: impl FnOnce() + Send + 'static) {
        let mut inner = self.state.inner.lock();
        if self.is_changed() {
            drop(inner);
            signals.run(vec![Box::new(then)]);
        } else {
            inner.callbacks.push(Box::new(then));
        }
    }

    /// Waits until it changes, at most that long; `false` if it has not.
    pub fn wait(&self, limit: std::time::Duration) -> bool {
        let mut inner = self.state.inner.lock();
        if !self.is_changed() {
            self.state.came.wait_while_for(&mut inner, |_| !self.is_changed(), limit);
        }
        self.is_changed()
    }
}

/// By domain and key.
type Listed = BTreeMap<(DomainId, Vec<u8>), Weak<State>>;

/// Who wants to know what changes.
pub struct Signals {
    listed: Mutex<Listed>,
    /// Entries of `listed`, so that its lock is left alone where there are none.
    count: AtomicUsize,
    /// Entries are looked through when there are so many.
    sweep_at: AtomicUsize,
    queue: Mutex<Option<Sender<Vec<Callback>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Signals {
    /// With its thread.
    ///
    /// # Errors
    /// It could not be started.
    pub(crate) fn start() -> std::io::Result<Arc<Self>> {
        let (queue, jobs) = unbounded::<Vec<Callback>>();
        let run = move || {
            for callback in jobs.iter().flatten() {
                // A panic of user code has been printed, and costs the call.
                drop(catch_unwind(AssertUnwindSafe(callback)));
            }
        };
        let thread = std::thread::Builder::new().name("annals-signals".to_owned()).spawn(run)?;
        Ok(Arc::new(Self {
            listed: Mutex::default(),
            count: AtomicUsize::new(0),
            sweep_at: AtomicUsize::new(64),
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Is told when `key` changes.
    pub(crate) fn token(&self, domain: DomainId, key: &[u8]) -> Change {
        let mut listed = self.listed.lock();
        if listed.len() >= self.sweep_at.load(Ordering::Relaxed) {
            listed.retain(|_, state| state.strong_count() > 0);
            self.sweep_at.store(listed.len() * 2 + 64, Ordering::Relaxed);
        }
        let entry = listed.entry((domain, key.to_vec())).or_default();
        let state = entry.upgrade().unwrap_or_else(|| {
            let state = State {
                changed: AtomicBool::new(false),
                inner: Mutex::default(),
                came: Condvar::new(),
            };
            let state = Arc::new(state);
            *entry = Arc::downgrade(&state);
            state
        });
        self.count.store(listed.len(), Ordering::SeqCst);
        Change { state }
    }

    /// A token was applied.
    pub(crate) fn apply(&self, token: &Token<'_>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let domain = token.domain;
        match token.kind {
            TokenKind::Key => {
                let changed = {
                    let mut listed = self.listed.lock();
                    let changed = listed.remove(&(domain, token.body.to_vec()));
                    self.count.store(listed.len(), Ordering::SeqCst);
                    changed
                };
                self.fire(changed.into_iter());
            }
            TokenKind::Put => {
                let key = token.body.split_first_chunk::<4>().and_then(|(len, rest)| {
                    rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)
                });
                match key {
                    Some(key) => self.take(|of, it| of == domain && it == key),
                    None => self.flush(&[domain]),
                }
            }
            TokenKind::Prefix => self.take(|of, key| of == domain && key.starts_with(token.body)),
            // Done and Resolved say that it is over: whoever waits looks again.
            TokenKind::Intent => {
                self.take(|of, key| of == domain && intent_names(token.body, key));
            }
            TokenKind::Done | TokenKind::Resolved => self.flush(&[domain]),
            TokenKind::Birth | TokenKind::Join | TokenKind::Leave | TokenKind::Probe => {}
            // Of tags nothing is known here, nor of kinds to come.
            TokenKind::Tag | TokenKind::All | TokenKind::Unknown(_) => {
                let all = domain == DomainId::NONE;
                self.flush(if all { &[] } else { std::slice::from_ref(&domain) });
            }
        }
    }

    /// Everything of these domains may have changed; empty: everything.
    pub(crate) fn flush(&self, domains: &[DomainId]) {
        self.take(|of, _| domains.is_empty() || domains.contains(&of));
    }

    fn take(&self, changed: impl Fn(DomainId, &[u8]) -> bool) {
        let taken: Vec<_> = {
            let mut listed = self.listed.lock();
            let taken = listed.extract_if(.., |(domain, key), _| changed(*domain, key)).collect();
            self.count.store(listed.len(), Ordering::SeqCst);
            taken
        };
        self.fire(taken.into_iter().map(|(_, state)| state));
    }

    fn fire(&self, changed: impl Iterator<Item = Weak<State>>) {
        for state in changed.filter_map(|state| state.upgrade()) {
            let callbacks = {
                let mut inner = state.inner.lock();
                state.changed.store(true, Ordering::Release);
                state.came.notify_all();
                std::mem::take(&mut inner.callbacks)
            };
            if !callbacks.is_empty() {
                self.run(callbacks);
            }
        }
    }

    fn run(&self, callbacks: Vec<Callback>) {
        if let Some(queue) = &*self.queue.lock() {
            // The thread ends after its queue is dropped.
            queue.send(callbacks).unwrap_or_default();
        }
    }

    /// Runs what was fired, and ends the thread.
    pub(crate) fn close(&self) {
        self.queue.lock().take();
        let thread = self.thread.lock().take();
        // A call back may have been the one to close the node.
        if let Some(thread) = thread.filter(|it| it.thread().id() != std::thread::current().id()) {
            drop(thread.join());
        }
    }
}

/// Does an intent name this key?
fn intent_names(body: &[u8], key: &[u8]) -> bool {
    let Some((_, mut rest)) = body.split_first_chunk::<8>() else { return true };
    while let Some((bytes, after)) = rest.split_first_chunk::<4>() {
        let bytes = usize::try_from(u32::from_le_bytes(*bytes)).unwrap_or(usize::MAX);
        let Some((named, after)) = after.split_at_checked(bytes) else { return true };
        if named == key {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::HybridTime;

    fn say(signals: &Signals, kind: TokenKind, domain: DomainId, body: &[u8]) {
        let time = HybridTime::default();
        signals.apply(&Token { seq: 1, time, domain, kind, flags: 0, body });
    }

    #[test]
    fn a_change_is_told_once_to_all_who_asked_for_it_and_to_nobody_else() {
        let signals = Signals::start().unwrap();
        let (users, orders) = (DomainId::of("users"), DomainId::of("orders"));
        let said: [(TokenKind, DomainId, &[u8], bool); 9] = [
            (TokenKind::Key, users, b"17", true),
            (TokenKind::Key, users, b"18", false),
            (TokenKind::Key, orders, b"17", false),
            (TokenKind::Prefix, users, b"1", true),
            (TokenKind::Prefix, users, b"2", false),
            (TokenKind::All, users, b"", true),
            (TokenKind::All, DomainId::NONE, b"", true),
            (TokenKind::All, orders, b"", false),
            (TokenKind::Unknown(77), users, b"17", true),
        ];
        for (kind, domain, body, expected) in said {
            let (change, again) = (signals.token(users, b"17"), signals.token(users, b"17"));
            let (called, calls) = unbounded();
            for change in [&change, &again] {
                let called = called.clone();
                change.on_change(&signals, move || called.send(()).unwrap());
            }
            assert!(!change.is_changed());
            say(&signals, kind, domain, body);
            say(&signals, kind, domain, body);
            assert_eq!(change.is_changed(), expected, "{kind:?} {body:?}");
            assert_eq!(again.is_changed(), expected);
            for _ in 0..2 * u8::from(expected) {
                calls.recv_timeout(Duration::from_secs(30)).unwrap();
            }
            if expected {
                // Who asks too late is called all the same, and a new one is about what is next.
                let late = called.clone();
                change.on_change(&signals, move || late.send(()).unwrap());
                calls.recv_timeout(Duration::from_secs(30)).unwrap();
                assert!(!signals.token(users, b"17").is_changed());
            }
            drop((change, again));
            drop(called);
            signals.flush(&[]);
            assert!(calls.try_recv().is_err(), "once");
        }
        signals.close();
    }

    #[test]
    fn those_that_nobody_holds_any_more_take_no_memory() {
        let signals = Signals::start().unwrap();
        let domain = DomainId::of("users");
        let held = signals.token(domain, b"held");
        for number in 0..100_000_u32 {
            drop(signals.token(domain, &number.to_le_bytes()));
        }
        assert!(signals.count.load(Ordering::SeqCst) < 1_000);
        say(&signals, TokenKind::Key, domain, b"held");
        assert!(held.is_changed());
        signals.close();
    }
}
