//! A domain here: its marks, its holds, its freshness, and the caches that remember things of it.
//!
//! **The order of application**: what is not visible yet is held first, then generations rise,
//! then entries are removed. A load that ends in between is stopped by whichever came before it:
//! it puts under the lock under which its stripe's generation rises, and asks for holds there.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use crate::sync::cache::events::{CacheStats, Why};
use crate::sync::cache::hold::{Holds, What};
use crate::sync::cache::marks::Marks;
use crate::sync::cache::version::Version;
use crate::sync::freshness::Freshness;
use crate::types::HybridTime;

/// A cache, as tokens see it.
pub(crate) trait Remembers: Send + Sync + fmt::Debug {
    /// Generation up, then remove.
    fn forget(&self, key: &[u8], version: Option<Version>, why: Why);
    /// Generation up: no load that has begun is remembered.
    fn raise(&self, key: &[u8]);
    /// Takes a value that was sent, or forgets the key.
    fn put(&self, key: &[u8], value: &[u8], version: Version);
    /// Tells of a token that spoke of more than a key.
    fn tell(&self, what: &[u8], why: Why);
    /// Its domain's name, and what it has counted.
    fn stats(&self) -> (String, CacheStats);
}

/// A domain here.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) marks: Marks,
    pub(crate) holds: Holds,
    freshness: RwLock<Arc<Freshness>>,
    caches: RwLock<Vec<Weak<dyn Remembers>>>,
}

impl Scope {
    pub(crate) fn new(freshness: Arc<Freshness>) -> Arc<Self> {
        Arc::new(Self {
            marks: Marks::default(),
            holds: Holds::default(),
            freshness: RwLock::new(freshness),
            caches: RwLock::new(Vec::new()),
        })
    }

    pub(crate) fn freshness(&self) -> Arc<Freshness> {
        Arc::clone(&self.freshness.read())
    }

    pub(crate) fn set_freshness(&self, freshness: Arc<Freshness>) {
        *self.freshness.write() = freshness;
    }

    pub(crate) fn add(&self, cache: Weak<dyn Remembers>) {
        let mut caches = self.caches.write();
        caches.retain(|other| other.strong_count() > 0);
        caches.push(cache);
    }

    /// Under no lock: who is told may call the cache, or build another.
    pub(crate) fn each(&self, each: impl Fn(&dyn Remembers)) {
        let (mut first, mut others) = (None, Vec::new());
        for cache in self.caches.read().iter().filter_map(Weak::upgrade) {
            // Most domains have one cache, and a token of one needs no memory.
            match first {
                None => first = Some(cache),
                Some(_) => others.push(cache),
            }
        }
        for cache in first.iter().chain(&others) {
            each(&**cache);
        }
    }

    /// Generation up, then remove.
    pub(crate) fn invalidate(&self, what: &What, version: Option<Version>, why: Why) {
        let told: &[u8] = match what {
            What::Key(key) => return self.each(|cache| cache.forget(key, version, why)),
            What::Tag(tag) => {
                self.raise_floor(version);
                self.marks.raise_tag(*tag);
                &[]
            }
            What::Prefix(prefix) => {
                self.raise_floor(version);
                self.marks.raise_prefix(prefix);
                prefix
            }
            What::All => {
                self.raise_floor(version);
                self.marks.raise_all();
                &[]
            }
        };
        self.each(|cache| cache.tell(told, why));
    }

    fn raise_floor(&self, version: Option<Version>) {
        if let Some(version) = version {
            self.marks.raise_floor(version.time);
        }
    }

    /// Everything, and values that were sent no later than `floor`.
    pub(crate) fn flush(&self, floor: HybridTime, why: Why) {
        self.marks.raise_floor(floor);
        self.marks.raise_all();
        self.each(|cache| cache.tell(&[], why));
    }

    /// Generation up, for what was held until now.
    pub(crate) fn raise(&self, what: &What) {
        match what {
            What::Key(key) => self.each(|cache| cache.raise(key)),
            What::Tag(tag) => self.marks.raise_tag(*tag),
            What::Prefix(prefix) => self.marks.raise_prefix(prefix),
            What::All => self.marks.raise_all(),
        }
    }
}
