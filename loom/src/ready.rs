//! The ready queue: no job stays in it while a worker sleeps that could run it.

use loom::sync::Arc;
use loom::thread;

mod worker {
    pub(crate) type Job = u32;
}

/// A queue that orders as little as a queue may: whether it is empty is a number that anybody reads
/// and changes without order. What holds is then the doing of the ready queue.
mod channel {
    use std::collections::VecDeque;

    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Arc, Mutex};

    struct Queue {
        length: AtomicUsize,
        content: Mutex<VecDeque<u32>>,
    }

    pub(crate) struct Sender<T>(Arc<Queue>, std::marker::PhantomData<T>);
    pub(crate) struct Receiver<T>(Arc<Queue>, std::marker::PhantomData<T>);

    pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        let queue = Queue { length: AtomicUsize::new(0), content: Mutex::default() };
        let queue = Arc::new(queue);
        let kind = std::marker::PhantomData;
        (Sender(Arc::clone(&queue), kind), Receiver(queue, kind))
    }

    impl Sender<u32> {
        pub(crate) fn send(&self, job: u32) -> Result<(), u32> {
            self.0.content.lock().unwrap().push_back(job);
            self.0.length.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.0.length.load(Ordering::Relaxed) == 0
        }
    }

    impl Receiver<u32> {
        pub(crate) fn try_recv(&self) -> Result<u32, ()> {
            if self.0.length.load(Ordering::Relaxed) == 0 {
                return Err(());
            }
            let job = self.0.content.lock().unwrap().pop_front().ok_or(())?;
            self.0.length.fetch_sub(1, Ordering::Relaxed);
            Ok(job)
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0), self.1)
        }
    }
}

/// The library's `Ready`, and broken ones.
macro_rules! variants {
    ($($name:ident),*) => {
        $(mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        })*
    };
}
variants!(ready, ready_sleeps_without_a_look, ready_wakes_no_second, ready_calls_nobody);

/// So many workers take one job each, and are busy with it for ever; this thread sends as many.
macro_rules! jobs {
    ($ready:ty, $workers:literal, $preemptions:literal) => {{
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some($preemptions);
        model.check(|| {
            let (ready, to_do) = <$ready>::new();
            let ready = Arc::new(ready);
            let workers: Vec<_> = (0..$workers)
                .map(|_| {
                    let (ready, to_do) = (Arc::clone(&ready), to_do.clone());
                    thread::spawn(move || ready.take(&to_do))
                })
                .collect();
            (0..$workers).for_each(|job| ready.send(job));
            let mut taken: Vec<u32> = workers.into_iter().map(|it| it.join().unwrap()).collect();
            taken.sort_unstable();
            assert!(taken.into_iter().eq(0..$workers), "each job is taken once");
        });
    }};
}

#[test]
fn a_job_is_taken_whenever_it_is_sent_and_whatever_the_worker_does() {
    jobs!(ready::Ready, 1, 4);
}

#[test]
fn as_many_workers_get_up_as_there_are_jobs() {
    jobs!(ready::Ready, 2, 2);
}

#[test]
fn whatever_is_left_out_is_noticed() {
    for name in ["sleeps_without_a_look", "wakes_no_second", "calls_nobody"] {
        crate::fails(&format!("ready::broken::{name}"), "deadlock");
    }
}

/// One step each left out.
mod broken {
    use super::*;

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn sleeps_without_a_look() {
        jobs!(super::ready_sleeps_without_a_look::Ready, 1, 4);
    }

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn wakes_no_second() {
        jobs!(super::ready_wakes_no_second::Ready, 2, 2);
    }

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn calls_nobody() {
        jobs!(super::ready_calls_nobody::Ready, 1, 4);
    }
}
