//! What is told of pipelines.

use std::sync::Arc;
use std::time::Duration;

use annals::edge::{
    self, Fault, Flow, Gap, Give, Keep, Kept, Last, Level, Mark, OnDiverged, OnPoison, Pos, Resume,
    Sink, Source,
};
use parking_lot::Mutex;

use crate::scenes::LONG;

/// All of them.
pub(crate) const ALL: [(&str, fn()); 1] = [("a pipeline", a_pipeline)];

/// Diverges where it is asked to go on, gives one record, has a gap, gives one more.
struct Strange(u64);

impl Source for Strange {
    type Item = u64;

    fn seek(&mut self, at: Option<Mark>) -> Result<Resume, Fault> {
        Ok(if at.is_some() { Resume::Diverged } else { Resume::Exact })
    }

    fn pull(&mut self, _: usize, _: Duration, out: &mut dyn Give<u64>) -> Result<Flow, Fault> {
        self.0 += 1;
        out.give(Pos::new(0, self.0), self.0);
        Ok(match self.0 {
            1 => Flow::Gap(Gap { after: None, before: None, lost: Some(3) }),
            2 => Flow::More,
            _ => Flow::End,
        })
    }
}

/// Remembers less than was settled, and fails at first.
struct Forgetful(Option<Pos>, u32);

impl Sink for Forgetful {
    type Item = u64;

    fn put(&mut self, pos: Pos, _: u64, _: bool) -> Result<(), Fault> {
        self.0 = Some(pos);
        Ok(())
    }

    fn settle(&mut self, _: Duration) -> Result<Option<Pos>, Fault> {
        self.1 += 1;
        if self.1 == 1 { Err(Fault::retry("not yet")) } else { Ok(self.0) }
    }

    fn last(&mut self) -> Result<Last, Fault> {
        Ok(Last::At(Pos::new(0, 4).into()))
    }

    fn level(&self) -> Level {
        Level::Sent
    }
}

struct Before(Arc<Mutex<Option<Kept>>>);

impl Keep for Before {
    fn load(&mut self) -> Result<Option<Kept>, Fault> {
        Ok(self.0.lock().clone())
    }

    fn save(&mut self, kept: &Kept) -> Result<(), Fault> {
        *self.0.lock() = Some(kept.clone());
        Ok(())
    }
}

fn a_pipeline() {
    let at = Pos::new(0, 9);
    let kept = Kept { mark: at.into(), put: Some(at), state: None };
    let pipeline = edge::from(Strange(0))
        .named("once", edge::dedup(9, |n: &u64| *n))
        .try_map(|pos, n| if *n == 2 { Err(edge::bad(pos, "two")) } else { Ok(*n) })
        .into(Forgetful(None, 0))
        .keep(Before(Arc::new(Mutex::new(Some(kept)))))
        .set(|options| {
            options.on_diverged = OnDiverged::Restart;
            options.on_poison = OnPoison::Drop;
        });
    pipeline.spawn("strange").unwrap().join().unwrap();

    let (numbers, source) = crossbeam_channel::bounded::<u64>(1);
    let (sink, got) = edge::channel::bounded(1);
    let pipeline = edge::from(edge::channel::receiver(source));
    let pipeline = pipeline.named("plus", edge::map(|n: u64| n + 1)).into(sink);
    let pipeline = pipeline.spawn("plain").unwrap();
    assert!(pipeline.swap("plus", edge::map(|n: u64| n + 2)).is_some());
    numbers.send(1).unwrap();
    assert_eq!(got.recv_timeout(LONG).unwrap().1, 3);
    drop(got);
    numbers.send(2).unwrap();
    assert!(pipeline.join().is_err());
}
