//! Between rewinds and retention: neither may take what the other has just relied on.
//!
//! A rewind relies on what leads to the event it goes back to, until its fact is in the log, where
//! retention finds it. Retention relies on nobody going back below what it is about to drop, until
//! that is gone, which a rewind notices. Each says so here first, and looks whether the other has:
//! whoever comes second gives way.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::types::{Seq, StreamId, StreamMap};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct GoingBack(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    /// Where turns under way go back to.
    to: StreamMap<Seq>,
    /// Up to where retention is about to drop.
    dropping: StreamMap<Seq>,
}

/// A rewind under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Rewinding {
    all: Arc<GoingBack>,
    stream: StreamId,
    to: Seq,
}

impl Rewinding {
    /// The last event that counts.
    pub(crate) fn to(&self) -> Seq {
        self.to
    }
}

impl GoingBack {
    /// An actor goes back to event `to`; `None` where that may be gone in a moment.
    pub(crate) fn begin(self: &Arc<Self>, stream: StreamId, to: Seq) -> Option<Rewinding> {
        let mut said = self.0.lock();
        if said.dropping.get(&stream).is_some_and(|upto| to < *upto) {
            return None;
        }
        said.to.insert(stream, to);
        Some(Rewinding { all: Arc::clone(self), stream, to })
    }

    /// Retention is about to drop what lies below event `upto`. `false` if it must not.
    pub(crate) fn drop_below(&self, stream: StreamId, upto: Seq) -> bool {
        let mut said = self.0.lock();
        if said.to.get(&stream).is_some_and(|to| *to < upto) {
            return false;
        }
        said.dropping.insert(stream, upto);
        true
    }

    /// It stays after all.
    pub(crate) fn keep(&self, stream: StreamId) {
        self.0.lock().dropping.remove(&stream);
    }

    /// What was to be dropped is gone, or stays.
    pub(crate) fn dropped(&self) {
        self.0.lock().dropping = StreamMap::default();
    }
}

impl Drop for Rewinding {
    fn drop(&mut self) {
        self.all.0.lock().to.remove(&self.stream);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_second_gives_way() {
        let all = Arc::new(GoingBack::default());
        let stream = StreamId::of("kind", "name");
        let [three, five] = [3, 5].map(|seq| Seq::new(seq).unwrap());
        let rewinding = all.begin(stream, three).unwrap();
        assert!(!all.drop_below(stream, five));
        assert!(all.drop_below(stream, three), "what it goes back to is covered itself");
        drop(rewinding);
        assert!(all.drop_below(stream, five));
        assert!(all.begin(stream, three).is_none());
        assert!(all.begin(stream, five).is_some());
        all.dropped();
        assert!(all.begin(stream, three).is_some());
    }
}
