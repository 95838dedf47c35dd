//! Growing an index from the frames of a segment; a long stretch of them on several processors.
//!
//! After a crash the newest segment has no index file, and whoever reads first waits until all of
//! its frames have been checked. Where they are is quickly seen from their headers. So one thread
//! goes from header to header, as if all were well, and others check what it has passed. Only if
//! all of it is found sound is anything of that believed.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{TrySendError, bounded};

use super::{Growing, after};
use crate::error::Reject;
use crate::log::frame::{Frame, FrameKind, Header, Salt};
use crate::log::read::read_frame;
use crate::types::{Life, to_usize};

/// Less is not worth a thread.
const WORTH_THREADS: u64 = 4 << 20;
/// What a thread takes at a time, in bytes.
const STRETCH: u64 = 1 << 19;
/// How many stretches wait for a thread, at most.
const WAITING_MAX: usize = 16;
/// How many threads help, at most.
const HELPERS_MAX: usize = 2;

/// Frames that were passed and are to be checked: from where to where, and of which life.
#[derive(Copy, Clone, Debug)]
struct Stretch {
    from: u64,
    to: u64,
    life: Life,
}

impl Growing {
    /// Goes on over `bytes`, which are the segment's from its beginning, up to its seal or to
    /// their end.
    pub(super) fn grow(
        &mut self,
        bytes: &[u8],
        salt: &(dyn Fn(Life) -> Salt + Sync),
    ) -> Result<(), Reject> {
        let left = (bytes.len() as u64).saturating_sub(self.upto);
        if left >= WORTH_THREADS && !self.sealed && !self.grow_with_help(bytes, salt, STRETCH) {
            // One after the other: which frame is bad, and what is before it.
            let first = self.lives.first().map_or(Life { number: 0, bits: 0 }, |(_, life)| *life);
            *self = Self::new(first);
        }
        while !self.sealed && self.upto < bytes.len() as u64 {
            let rest = bytes.get(to_usize(self.upto)..).unwrap_or_default();
            let (frame, life) = read_frame(rest, self.upto, salt(self.life()))?;
            if life != self.life() {
                self.lives.push((self.upto, life));
            }
            self.step(&frame.header());
        }
        Ok(())
    }

    /// Goes on over the bytes of a segment that this very process writes: nobody has had a chance
    /// to damage what is in its page cache, and what is read through this index is checked.
    pub(super) fn grow_own(&mut self, bytes: &[u8], base: u64) -> Result<(), Reject> {
        while !self.sealed && self.upto < bytes.len() as u64 {
            let rest = bytes.get(to_usize(self.upto)..).unwrap_or_default();
            let header = Header::read(rest)?;
            if !header.stands_at(base + self.upto) {
                return Err(Reject::Position);
            }
            self.step(&header);
        }
        Ok(())
    }

    /// As [`grow`](Self::grow). `false` if anything was not as it must be: then nothing of what is
    /// in the index now may be believed.
    pub(super) fn grow_with_help(
        &mut self,
        bytes: &[u8],
        salt: &(dyn Fn(Life) -> Salt + Sync),
        stretch: u64,
    ) -> bool {
        let sound = AtomicBool::new(true);
        let check = |stretch: &Stretch| {
            // Relaxed: who reads the outcome has joined those who write it.
            if sound.load(Ordering::Relaxed) && !is_sound(bytes, stretch, salt) {
                sound.store(false, Ordering::Relaxed);
            }
        };
        let (passed, to_check) = bounded(WAITING_MAX);
        let walked = std::thread::scope(|scope| {
            let processors = std::thread::available_parallelism().map_or(1, usize::from);
            for _ in 1..processors.min(HELPERS_MAX + 1) {
                let (check, to_check) = (&check, to_check.clone());
                let helper = std::thread::Builder::new().name("annals-index".into());
                let helps = move || to_check.iter().for_each(|stretch| check(&stretch));
                // Where there can be no thread, this one does it all.
                let Ok(_joined_by_the_scope) = helper.spawn_scoped(scope, helps) else { break };
            }
            let walked = self.walk(bytes, salt, stretch, &mut |stretch| {
                // They are behind: so it is done here.
                if let Err(TrySendError::Full(stretch) | TrySendError::Disconnected(stretch)) =
                    passed.try_send(stretch)
                {
                    check(&stretch);
                }
            });
            drop(passed);
            to_check.iter().for_each(|stretch| check(&stretch));
            walked
        });
        walked.is_ok() && sound.into_inner()
    }

    /// Takes in frames by what their headers say.
    fn walk(
        &mut self,
        bytes: &[u8],
        salt: &(dyn Fn(Life) -> Salt + Sync),
        stretch: u64,
        pass: &mut dyn FnMut(Stretch),
    ) -> Result<(), Reject> {
        let mut from = self.upto;
        while !self.sealed && self.upto < bytes.len() as u64 {
            let (at, life) = (self.upto, self.life());
            let rest = bytes.get(to_usize(at)..).unwrap_or_default();
            let header = Header::read(rest)?;
            if header.kind == FrameKind::Life {
                pass(Stretch { from, to: at, life });
                from = at;
                let Salt { log, base, .. } = salt(life);
                let (_, opened) = Frame::read_life(rest, at, log, base)?;
                if opened != life {
                    self.lives.push((at, opened));
                }
            }
            self.step(&header);
            if self.upto - from >= stretch {
                pass(Stretch { from, to: self.upto, life: self.life() });
                from = self.upto;
            }
        }
        pass(Stretch { from, to: self.upto, life: self.life() });
        Ok(())
    }
}

/// Is a stretch made of sound frames, one behind the other?
fn is_sound(bytes: &[u8], stretch: &Stretch, salt: &(dyn Fn(Life) -> Salt + Sync)) -> bool {
    let (mut at, salt) = (stretch.from, salt(stretch.life));
    while at < stretch.to {
        let rest = bytes.get(to_usize(at)..).unwrap_or_default();
        let Ok(frame) = Frame::read(rest, at, salt) else { return false };
        at = after(&frame.header(), at);
    }
    at == stretch.to
}
