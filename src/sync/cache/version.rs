//! Versions: which of several values that nodes sent each other counts, whatever their order.
//!
//! Every operation on a domain has a [`Version`], and no two have the same. Of one key, a
//! [`Register`] keeps what was sent and not invalidated since: the newest value, or, where a merge
//! hook is set, up to `MERGED_MAX` of the newest, from which the hook makes one in the order of
//! their versions. An invalidation leaves a *floor*: a value at or below it counts for nothing. So
//! the state is a function of the set of operations, and not of their order or number.

use crate::sync::origin::Origin;
use crate::types::HybridTime;

/// Values of one key that a merge hook is given at most.
const MERGED_MAX: usize = 16;

/// When, by whom, and which of theirs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// By the hybrid clock of its origin.
    pub time: HybridTime,
    /// Of two at one time, the one of the greater origin is the newer.
    pub origin: Origin,
    /// Its number in its log.
    pub seq: u64,
}

impl Version {
    /// Older than any.
    pub(crate) const OLDEST: Self =
        Self { time: HybridTime::from_bits(0), origin: Origin::from_u64(0), seq: 0 };

    /// The newest of a time.
    pub(crate) const fn end_of(time: HybridTime) -> Self {
        Self { time, origin: Origin::from_u64(u64::MAX), seq: u64::MAX }
    }
}

/// Makes one value of two, the older one first.
pub(crate) type MergeTwo<V> = dyn Fn(&V, &V) -> V + Send + Sync;

/// What was sent of one key.
#[derive(Clone, Debug)]
pub(crate) struct Register<V> {
    floor: Version,
    /// Above the floor, oldest first.
    values: Vec<(Version, V)>,
}

impl<V> Register<V> {
    pub(crate) const fn new(floor: Version) -> Self {
        Self { floor, values: Vec::new() }
    }

    /// Takes a value in, of which at most `keep` are kept. `false`: it counts for nothing.
    pub(crate) fn put(&mut self, version: Version, value: V, merged: bool) -> bool {
        let keep = if merged { MERGED_MAX } else { 1 };
        if version <= self.floor {
            return false;
        }
        let Err(at) = self.values.binary_search_by_key(&version, |(held, _)| *held) else {
            return false;
        };
        if at == 0 && self.values.len() >= keep {
            return false;
        }
        self.values.insert(at, (version, value));
        let over = self.values.len().saturating_sub(keep);
        drop(self.values.drain(..over));
        true
    }

    /// Forgets what is at or below `floor`, now and later.
    pub(crate) fn invalidate(&mut self, floor: Version) {
        if floor > self.floor {
            self.floor = floor;
            self.values.retain(|(version, _)| *version > floor);
        }
    }

    /// What counts: the newest, or what `merge` makes of all, oldest first.
    pub(crate) fn value(&self, merge: Option<&MergeTwo<V>>) -> Option<V>
    where
        V: Clone,
    {
        let mut values = self.values.iter().map(|(_, value)| value);
        match merge {
            None => values.next_back().cloned(),
            Some(merge) => {
                let first = values.next()?.clone();
                Some(values.fold(first, |merged, next| merge(&merged, next)))
            }
        }
    }

    /// Whoever forgets this register must remember so much of it: nothing older may come back.
    pub(crate) fn newest(&self) -> Version {
        self.values.last().map_or(self.floor, |(version, _)| *version)
    }

    /// All that it is made of is newer than what comes before this.
    pub(crate) fn oldest(&self) -> Version {
        self.values.first().map_or(self.floor, |(version, _)| *version)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Put(Version),
        Invalidate(Version),
    }

    fn version() -> impl Strategy<Value = Version> {
        (1_u64..20, 1_u64..4, 1_u64..4).prop_map(|(time, origin, seq)| Version {
            time: HybridTime::from_millis(time),
            origin: Origin::from_u64(origin),
            seq,
        })
    }

    fn run(acts: &[Act], merge: Option<&MergeTwo<String>>) -> Option<String> {
        let mut register = Register::new(Version::OLDEST);
        for act in acts {
            match act {
                Act::Put(version) => {
                    register.put(*version, format!("{version:?}"), merge.is_some());
                }
                Act::Invalidate(version) => register.invalidate(*version),
            }
        }
        register.value(merge)
    }

    proptest! {
        #[test]
        fn one_set_of_operations_is_one_state_in_any_order_and_any_number(
            acts in prop::collection::vec(
                prop_oneof![
                    3 => version().prop_map(Act::Put),
                    1 => version().prop_map(Act::Invalidate),
                ],
                0..40,
            ),
            order in any::<prop::sample::Index>(),
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
            seed in any::<u64>(),
        ) {
            let mut other = acts.clone();
            if !acts.is_empty() {
                other.extend(again.iter().map(|index| acts[index.index(acts.len())].clone()));
                let mut state = seed;
                for at in (1..other.len()).rev() {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    other.swap(at, usize::try_from(state >> 33).unwrap() % (at + 1));
                }
                other.rotate_left(order.index(acts.len()));
            }
            // Not commutative, on purpose: the register sees to the order.
            let joined = |one: &String, two: &String| format!("{one}+{two}");
            prop_assert_eq!(run(&acts, None), run(&other, None));
            prop_assert_eq!(run(&acts, Some(&joined)), run(&other, Some(&joined)));
        }
    }
}
