//! Channels of the process as ends.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{
    Receiver, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, TrySendError,
};

use super::fault::Fault;
use super::pos::{Gap, Mark, Pos};
use super::sink::{Level, Sink};
use super::source::{Flow, Give, Resume, Source};

/// A sink that is a channel. See [`bounded`].
#[derive(Debug)]
pub struct ChannelSink<T> {
    sender: Sender<(Pos, T)>,
    /// What the channel had no room for.
    waiting: VecDeque<(Pos, T, bool)>,
    settled: Option<Pos>,
}

/// A sink, and the receiver of what it is given. At most `max` records wait in the channel (at
/// least 1); while it is full nothing more is pulled from the source.
///
/// A record is settled when it is in the channel, and that is all that is known of it:
/// [`Level::Sent`]. A receiver that is gone ends the pipeline.
pub fn bounded<T>(max: usize) -> (ChannelSink<T>, Receiver<(Pos, T)>) {
    let (sender, receiver) = crossbeam_channel::bounded(max.max(1));
    (ChannelSink { sender, waiting: VecDeque::new(), settled: None }, receiver)
}

const GONE: &str = "the receiver is gone";

impl<T> ChannelSink<T> {
    fn sent(&mut self, pos: Pos, last: bool) {
        if last {
            self.settled = Some(pos);
        }
    }
}

impl<T> Sink for ChannelSink<T> {
    type Item = T;

    fn put(&mut self, pos: Pos, item: T, last: bool) -> Result<(), Fault> {
        if !self.waiting.is_empty() {
            self.waiting.push_back((pos, item, last));
            return Ok(());
        }
        match self.sender.try_send((pos, item)) {
            Ok(()) => self.sent(pos, last),
            Err(TrySendError::Full((pos, item))) => self.waiting.push_back((pos, item, last)),
            Err(TrySendError::Disconnected(_)) => return Err(Fault::fatal(GONE)),
        }
        Ok(())
    }

    fn settle(&mut self, limit: Duration) -> Result<Option<Pos>, Fault> {
        while let Some((pos, item, last)) = self.waiting.pop_front() {
            match self.sender.send_timeout((pos, item), limit) {
                Ok(()) => self.sent(pos, last),
                Err(SendTimeoutError::Timeout((pos, item))) => {
                    self.waiting.push_front((pos, item, last));
                    break;
                }
                Err(SendTimeoutError::Disconnected(_)) => return Err(Fault::fatal(GONE)),
            }
        }
        Ok(self.settled)
    }

    fn room(&self) -> usize {
        let max = self.sender.capacity().unwrap_or(usize::MAX);
        max.saturating_sub(self.sender.len()).saturating_sub(self.waiting.len())
    }

    fn level(&self) -> Level {
        Level::Sent
    }
}

/// A source that is a channel. See [`receiver`].
#[derive(Debug)]
pub struct ChannelSource<T> {
    receiver: Receiver<T>,
    last: Pos,
}

/// What comes through a channel, **at most once**: a record that was taken out of it and is not
/// settled when the process ends is gone. It ends when all senders are gone.
///
/// A channel knows nothing of a life before: where the pipeline goes on at some position, a gap is
/// reported, of which nobody knows the size. `Store::api` in front of it makes of a push
/// something that lasts.
pub fn receiver<T>(receiver: Receiver<T>) -> ChannelSource<T> {
    ChannelSource { receiver, last: Pos::default() }
}

impl<T> ChannelSource<T> {
    fn give(&mut self, item: T, out: &mut dyn Give<T>) {
        self.last.seq += 1;
        out.give(self.last, item);
    }
}

impl<T> Source for ChannelSource<T> {
    type Item = T;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        let Some(mark) = at.filter(|mark| mark.pos != self.last) else { return Ok(Resume::Exact) };
        // Numbers begin again, so they must be others.
        self.last = Pos::new(mark.pos.epoch.saturating_add(1), 0);
        Ok(Resume::Gap(Gap { after: Some(mark.pos), before: None, lost: None }))
    }

    fn pull(&mut self, max: usize, limit: Duration, out: &mut dyn Give<T>) -> Result<Flow, Fault> {
        if max == 0 {
            return Ok(Flow::Idle);
        }
        match self.receiver.recv_timeout(limit) {
            Ok(item) => self.give(item, out),
            Err(RecvTimeoutError::Timeout) => return Ok(Flow::Idle),
            Err(RecvTimeoutError::Disconnected) => return Ok(Flow::End),
        }
        for _ in 1..max {
            match self.receiver.try_recv() {
                Ok(item) => self.give(item, out),
                Err(TryRecvError::Empty) => return Ok(Flow::Idle),
                Err(TryRecvError::Disconnected) => return Ok(Flow::End),
            }
        }
        Ok(Flow::More)
    }
}
