//! A queue that has room for one in itself: what most mailboxes hold, most of the time.
//!
//! A buffer would be made by the thread that sends and dropped by the worker that empties it, for
//! each single message to an actor that has no other.

use std::collections::VecDeque;

/// See the [module](self).
pub(crate) struct Queue<T> {
    /// `None` only if there is nothing in `rest`.
    first: Option<T>,
    #[expect(clippy::box_collection, reason = "8 bytes for each actor that has no other")]
    rest: Option<Box<VecDeque<T>>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Queue<T> {
    pub(crate) const fn new() -> Self {
        Self { first: None, rest: None }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.as_ref().map_or(0, |rest| rest.len())
    }

    pub(crate) fn push_back(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.rest.get_or_insert_default().push_back(item);
        }
    }

    pub(crate) fn push_front(&mut self, item: T) {
        if let Some(second) = self.first.replace(item) {
            self.rest.get_or_insert_default().push_front(second);
        }
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let next = self.rest.as_mut().and_then(|rest| rest.pop_front());
        std::mem::replace(&mut self.first, next)
    }

    /// The first ones, at most so many. What stays keeps its buffer.
    pub(crate) fn take_front(&mut self, most: usize) -> Self {
        if self.len() <= most {
            return std::mem::take(self);
        }
        let Some(rest) = &mut self.rest else { return Self::new() };
        let Some(more) = most.checked_sub(1) else { return Self::new() };
        let taken: VecDeque<_> = rest.drain(..more.min(rest.len())).collect();
        let next = rest.pop_front();
        let first = std::mem::replace(&mut self.first, next);
        Self { first, rest: (!taken.is_empty()).then(|| Box::new(taken)) }
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        while let Some(item) = other.pop_front() {
            self.push_back(item);
        }
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }
}

impl<T> IntoIterator for Queue<T> {
    type Item = T;
    type IntoIter =
        std::iter::Chain<std::option::IntoIter<T>, std::collections::vec_deque::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        let rest = self.rest.map(|rest| *rest).unwrap_or_default();
        self.first.into_iter().chain(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::{Strategy as _, any, prop_oneof};
    use proptest::proptest;

    use super::Queue;
    use crate::actor::Actor;
    use crate::actor::mailbox::Letter;

    #[derive(Clone, Debug)]
    enum Step {
        PushBack(u8),
        PushFront(u8),
        PopFront,
        TakeFront(usize),
        Append(Vec<u8>),
    }

    #[test]
    fn a_queue_has_less_room_than_a_vec_deque() {
        #[derive(Default)]
        struct Nobody;

        impl Actor for Nobody {
            type Event = ();
            const KIND: &'static str = "nobody";

            fn apply(&mut self, (): &()) {}
        }

        type Ours = Queue<Letter<Nobody>>;
        assert!(size_of::<Ours>() < size_of::<VecDeque<Letter<Nobody>>>());
    }

    proptest! {
        #[test]
        fn a_queue_is_a_vec_deque(steps in proptest::collection::vec(prop_oneof![
            any::<u8>().prop_map(Step::PushBack),
            any::<u8>().prop_map(Step::PushFront),
            proptest::strategy::Just(Step::PopFront),
            (0..5_usize).prop_map(Step::TakeFront),
            proptest::collection::vec(any::<u8>(), 0..4).prop_map(Step::Append),
        ], 0..40)) {
            let (mut ours, mut model) = (Queue::new(), VecDeque::new());
            for step in steps {
                match step {
                    Step::PushBack(item) => {
                        ours.push_back(item);
                        model.push_back(item);
                    }
                    Step::PushFront(item) => {
                        ours.push_front(item);
                        model.push_front(item);
                    }
                    Step::PopFront => assert_eq!(ours.pop_front(), model.pop_front()),
                    Step::TakeFront(most) => {
                        let taken: Vec<_> = ours.take_front(most).into_iter().collect();
                        let most = most.min(model.len());
                        assert_eq!(taken, model.drain(..most).collect::<Vec<_>>());
                    }
                    Step::Append(items) => {
                        let mut other = Queue::new();
                        for item in &items {
                            other.push_back(*item);
                        }
                        ours.append(other);
                        model.extend(items);
                    }
                }
                assert_eq!(ours.len(), model.len());
                assert_eq!(ours.is_empty(), model.is_empty());
                assert!(ours.iter().eq(model.iter()));
            }
        }
    }
}
