//! The names in a directory: what is seen, what is durable, and the changes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::choice::{Choose, Random};

/// What a name stands for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    File(FileId),
    Dir,
}

/// Number of a file, never used twice on one disk.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

/// A change of names. Each is atomic.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Add { name: Arc<str>, node: Node },
    Move { from: Arc<str>, to: Arc<str>, node: Node },
    Remove { name: Arc<str> },
}

type Names = BTreeMap<Arc<str>, Node>;

impl Change {
    /// The names that it touches: changes of one name keep their order.
    fn names(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self {
            Self::Add { name, .. } | Self::Remove { name } => (name, None),
            Self::Move { from, to, .. } => (from, Some(&**to)),
        };
        std::iter::once(&**first).chain(second)
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add { name, node } => {
                names.insert(Arc::clone(name), *node);
            }
            Self::Move { from, to, node: Node::Dir } => {
                names.remove(from);
                names.insert(Arc::clone(to), Node::Dir);
            }
            Self::Move { to, node, .. } => {
                // By node rather than by name: after a failed sync the durable name may be an
                // older one, and a file never has two.
                names.retain(|_, other| other != node);
                names.insert(Arc::clone(to), *node);
            }
            Self::Remove { name } => {
                names.remove(&**name);
            }
        }
    }
}

/// A directory. Copies share what neither of them has changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Dir {
    live: Arc<Names>,
    durable: Arc<Names>,
    unsynced: Vec<Change>,
}

impl Dir {
    pub(super) fn get(&self, name: &str) -> Option<Node> {
        self.live.get(name).copied()
    }

    pub(super) fn get_durable(&self, name: &str) -> Option<Node> {
        self.durable.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&str, Node)> {
        self.live.iter().map(|(name, node)| (&**name, *node))
    }

    /// Changes that wait for a sync.
    pub(super) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// Could the file be found again, now or after a power cut?
    pub(super) fn mentions(&self, file: FileId) -> bool {
        let node = Node::File(file);
        let added = |change: &Change| match change {
            Change::Add { node: other, .. } | Change::Move { node: other, .. } => *other == node,
            Change::Remove { .. } => false,
        };
        self.live.values().chain(self.durable.values()).any(|other| *other == node)
            || self.unsynced.iter().any(added)
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(Arc::make_mut(&mut self.live));
        self.unsynced.push(change);
    }

    /// Out of what is seen and of what is durable, as if it had never been.
    pub(super) fn delete(&mut self, name: &str) {
        Arc::make_mut(&mut self.live).remove(name);
        Arc::make_mut(&mut self.durable).remove(name);
        self.unsynced.retain(|change| change.names().all(|other| other != name));
    }

    /// Is a change of that name waiting for a sync?
    pub(super) fn is_changing(&self, name: &str) -> bool {
        self.unsynced.iter().any(|change| change.names().any(|other| other == name))
    }

    /// Makes the name durable that was given last.
    pub(super) fn settle(&mut self, name: &str) {
        if self.is_changing(name)
            && let Some(change) = self.unsynced.pop()
        {
            change.apply(Arc::make_mut(&mut self.durable));
        }
    }

    pub(super) fn sync(&mut self) {
        if self.unsynced.is_empty() {
            return;
        }
        let durable = Arc::make_mut(&mut self.durable);
        for change in self.unsynced.drain(..) {
            change.apply(durable);
        }
    }

    /// Some changes were made durable; the others are left for the next sync, or lost on it.
    pub(super) fn sync_failed(&mut self, random: &mut Random) {
        let kept = keep(&self.unsynced, |_| random.once_in(2));
        let mut kept = kept.into_iter();
        let durable = Arc::make_mut(&mut self.durable);
        self.unsynced.retain(|change| {
            let keep = kept.next().unwrap_or(false);
            if keep {
                change.apply(durable);
            }
            !keep
        });
        if random.once_in(2) {
            self.unsynced.clear();
        }
    }

    /// What is found when the machine is up again.
    pub(super) fn after_power_cut(&self, choose: &mut dyn Choose) -> Self {
        choose.group();
        let mut names = Arc::clone(&self.durable);
        let kept = keep(&self.unsynced, |_| choose.pick(2) == 1);
        for (change, _) in self.unsynced.iter().zip(kept).filter(|(_, kept)| *kept) {
            change.apply(Arc::make_mut(&mut names));
        }
        Self { live: Arc::clone(&names), durable: names, unsynced: Vec::new() }
    }
}

/// Which changes are kept: any, but none whose name an earlier one has touched that is not.
fn keep(changes: &[Change], mut wanted: impl FnMut(&Change) -> bool) -> Vec<bool> {
    let mut held_back = BTreeSet::new();
    changes
        .iter()
        .map(|change| {
            let kept = !change.names().any(|name| held_back.contains(name)) && wanted(change);
            if !kept {
                held_back.extend(change.names());
            }
            kept
        })
        .collect()
}
