//! A subscriber that keeps all that it is told of Annals, and may do something about it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// An event, or the beginning of a span.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) name: &'static str,
    pub(crate) is_span: bool,
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    /// All that have a value, `message` too.
    pub(crate) fields: BTreeMap<&'static str, String>,
    /// How many spans of ours the thread was in.
    pub(crate) within: u32,
}

impl Heard {
    /// Is it about something below `place`, which is a folder of this test's own, or a kind?
    pub(crate) fn is_of(&self, place: &str) -> bool {
        let places = ["path", "dir", "file", "kind"];
        places.iter().any(|field| self.fields.get(field).is_some_and(|it| it.starts_with(place)))
    }
}

type Guest = Arc<dyn Fn(&Heard) + Send + Sync>;

static HEARD: Mutex<Vec<Heard>> = Mutex::new(Vec::new());
static GUEST: Mutex<Option<Guest>> = Mutex::new(None);

thread_local! {
    static WITHIN: Cell<u32> = const { Cell::new(0) };
    static AT_GUEST: Cell<bool> = const { Cell::new(false) };
}

/// From now on everything is heard, on every thread.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Ear::default()).expect("nobody else listens");
    });
}

/// All that was heard so far.
pub(crate) fn heard() -> Vec<Heard> {
    HEARD.lock().clone()
}

/// Who is told of each event besides, on its thread; not of what he causes there himself.
pub(crate) fn invite(guest: Option<Guest>) {
    *GUEST.lock() = guest;
}

#[derive(Default)]
struct Ear {
    spans: AtomicU64,
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        write!(text, "{value:?}").expect("a string takes it");
        self.0.insert(field.name(), text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Ear {
    fn keep(metadata: &'static Metadata<'static>, fields: Fields) -> Heard {
        let heard = Heard {
            name: metadata.name(),
            is_span: metadata.is_span(),
            level: *metadata.level(),
            target: metadata.target(),
            fields: fields.0,
            within: WITHIN.get(),
        };
        HEARD.lock().push(heard.clone());
        heard
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("annals")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        span.record(&mut fields);
        Self::keep(span.metadata(), fields);
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let heard = Self::keep(event.metadata(), fields);
        let guest = GUEST.lock().clone();
        if let Some(guest) = guest
            && !AT_GUEST.replace(true)
        {
            let _left = Left;
            guest(&heard);
        }
    }

    fn enter(&self, _span: &Id) {
        WITHIN.set(WITHIN.get() + 1);
    }

    fn exit(&self, _span: &Id) {
        WITHIN.set(WITHIN.get() - 1);
    }
}

/// The guest has gone, if by a panic.
struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        AT_GUEST.set(false);
    }
}
