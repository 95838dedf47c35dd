//! Bytes that are read below a mark: those of a segment, and the ring's.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::primitives;

/// The library's `Published`, and broken ones.
macro_rules! variants {
    ($($name:ident),*) => {
        $(mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        })*
    };
}
variants!(published, published_relaxed, published_read_relaxed);

/// A frame is written, published and read; another one follows.
macro_rules! frames {
    ($mark:ty) => {
        loom::model(|| {
            let mark = Arc::new(<$mark>::default());
            let bytes = Arc::new([UnsafeCell::new(0_u8), UnsafeCell::new(0)]);
            let (written, there) = (Arc::clone(&mark), Arc::clone(&bytes));
            let writer = thread::spawn(move || {
                for frame in 0..2 {
                    there[frame].with_mut(|byte| unsafe { *byte = 7 });
                    written.raise(frame + 1);
                    // By a slower drain of less: the mark does not go back.
                    written.raise(frame);
                }
            });
            let mut before = 0;
            for _ in 0..2 {
                let end = mark.get();
                assert!(end >= before, "the mark went back");
                before = end;
                for byte in &bytes[..end] {
                    assert_eq!(byte.with(|byte| unsafe { *byte }), 7, "a frame in the making");
                }
            }
            writer.join().unwrap();
        })
    };
}

#[test]
fn who_sees_the_published_length_sees_whole_frames() {
    frames!(published::Published);
}

/// The ring's protocol, written out from `src/log/write.rs`: `append` copies in and raises
/// `written`; a drain copies out what is below and raises `stored`; `append` goes over a place
/// again only when that lap's bytes are stored.
fn ring(written_order: Ordering, stored_order: Ordering) {
    const ROOM: usize = 2;
    const FRAMES: usize = 3;
    loom::model(move || {
        let ring = Arc::new([UnsafeCell::new(0_usize), UnsafeCell::new(0)]);
        let written = Arc::new(AtomicUsize::new(0));
        let stored = Arc::new(AtomicUsize::new(0));
        let (slots, end, kept) = (Arc::clone(&ring), Arc::clone(&written), Arc::clone(&stored));
        let drain = thread::spawn(move || {
            let mut done = 0;
            while done < FRAMES {
                let upto = end.load(Ordering::Acquire);
                for frame in done..upto {
                    let found = slots[frame % ROOM].with(|slot| unsafe { *slot });
                    assert_eq!(found, frame + 1, "a frame of another lap was stored");
                }
                done = upto;
                kept.store(done, stored_order);
                thread::yield_now();
            }
        });
        for frame in 0..FRAMES {
            while frame + 1 - stored.load(Ordering::Acquire) > ROOM {
                thread::yield_now();
            }
            ring[frame % ROOM].with_mut(|slot| unsafe { *slot = frame + 1 });
            written.store(frame + 1, written_order);
        }
        drain.join().unwrap();
    });
}

#[test]
fn a_drain_stores_whole_frames_and_no_append_goes_over_what_is_not_stored() {
    ring(Ordering::Release, Ordering::Release);
}

#[test]
fn whatever_ordering_is_broken_is_noticed() {
    for name in ["release", "acquire", "written", "stored"] {
        crate::fails(&format!("published::broken::{name}"), "Causality violation");
    }
}

/// One ordering each that is not what it should be.
mod broken {
    use super::*;

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn release() {
        frames!(super::published_relaxed::Published);
    }

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn acquire() {
        frames!(super::published_read_relaxed::Published);
    }

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn written() {
        ring(Ordering::Relaxed, Ordering::Release);
    }

    #[test]
    #[ignore = "fails, and is called by the test above"]
    fn stored() {
        ring(Ordering::Release, Ordering::Relaxed);
    }
}
