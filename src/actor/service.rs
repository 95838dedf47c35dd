//! Services: what handlers use besides their state, handed to the runtime when it is started.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::{Actor, RuntimeOptions, Turn};

/// Values by their types, one of each. Clones share the values.
///
/// What handlers need of the world outside (a gateway, a template engine, a counter of metrics)
/// is put in here, and found by [`Turn::service`]. It is shared by all actors and threads; it is
/// no state of any actor, and nothing of it is stored.
#[derive(Clone, Default)]
pub struct Services {
    /// The name of the type is for `Debug`.
    by_type: HashMap<TypeId, (&'static str, Arc<dyn Any + Send + Sync>)>,
}

impl Services {
    /// Adds a value; another one of the same type is replaced.
    pub fn insert<T: Send + Sync + 'static>(&mut self, service: T) {
        self.by_type.insert(TypeId::of::<T>(), (type_name::<T>(), Arc::new(service)));
    }

    /// Adds a value that others have too.
    pub(crate) fn share<T: Send + Sync + 'static>(&mut self, service: &Arc<T>) {
        let service = Arc::<T>::clone(service);
        self.by_type.insert(TypeId::of::<T>(), (type_name::<T>(), service));
    }

    /// The value of that type.
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.by_type.get(&TypeId::of::<T>())?.1.downcast_ref()
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_type.values().map(|(name, _)| name)).finish()
    }
}

impl RuntimeOptions {
    /// Adds what handlers find by [`Turn::service`]; another one of the same type is replaced.
    #[must_use]
    pub fn service<T: Send + Sync + 'static>(mut self, service: T) -> Self {
        self.services.insert(service);
        self
    }
}

impl<'a, A: Actor> Turn<'a, A> {
    /// What was given to the runtime under that type
    /// ([`StoreOptions::service`](crate::StoreOptions::service),
    /// [`RuntimeOptions::service`]).
    ///
    /// What a handler does with it is done even if the turn fails, and again if the command is
    /// sent again. A handler must not wait in it.
    ///
    /// ```
    /// # use annals::actor::memory::Memory;
    /// # use annals::actor::{Actor, Handle, Runtime, RuntimeOptions, Turn};
    /// # #[derive(Default)]
    /// # struct Counter(u64);
    /// # impl Actor for Counter {
    /// #     type Event = u64;
    /// #     const KIND: &'static str = "counter";
    /// #     fn apply(&mut self, event: &u64) { self.0 += event; }
    /// # }
    /// struct Limit(u64);
    /// struct Add(u64);
    ///
    /// impl Handle<Add> for Counter {
    ///     type Reply = bool;
    ///
    ///     fn handle(Add(number): Add, turn: &mut Turn<'_, Self>) -> bool {
    ///         let limit = turn.service::<Limit>();
    ///         let fits = turn.0 + number <= limit.0;
    ///         if fits {
    ///             turn.emit(number);
    ///         }
    ///         fits
    ///     }
    /// }
    /// # let memory = Memory::new();
    /// # let runtime = Runtime::start(memory.clone(), memory, Default::default(),
    /// #     RuntimeOptions::default().service(Limit(10)))?;
    /// let counter = runtime.actor::<Counter>("a")?;
    /// assert!(counter.ask(Add(7))? && !counter.ask(Add(7))?);
    /// # Ok::<(), annals::actor::ActorError>(())
    /// ```
    ///
    /// # Panics
    /// If there is none: the turn fails with [`ActorError::Panicked`](super::ActorError::Panicked)
    /// and the name of the type. [`Self::try_service`] asks.
    #[must_use]
    pub fn service<T: Send + Sync + 'static>(&self) -> &'a T {
        match self.try_service() {
            Some(service) => service,
            None => panic!(
                "no service of type `{}` was given to the store: see `StoreOptions::service`",
                type_name::<T>(),
            ),
        }
    }

    /// [`Self::service`], if there is one.
    #[must_use]
    pub fn try_service<T: Send + Sync + 'static>(&self) -> Option<&'a T> {
        self.cell_ref().shared().options.services.get()
    }
}
