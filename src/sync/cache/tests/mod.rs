//! What the cache promises.

mod behaviour;
mod orders;
mod sent;
mod stress;
mod tiers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(super) use crate::sync::apply::Applier;
use crate::sync::apply::{PublishError, Published, Publisher};
use crate::sync::cache::Manager;
use crate::sync::domain::DomainId;
use crate::sync::freshness::BootClock;
use crate::sync::origin::{Incarnation, Lane, Origin, TokenLog};
use crate::sync::token::{Token, TokenKind};
use crate::types::HybridTime;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A clock that stands at an hour.
pub(super) fn clock() -> Arc<BootClock> {
    BootClock::at(3_600 * SECOND)
}

pub(super) fn pass(clock: &BootClock, time: Duration) {
    clock.advance_to(clock.now() + time);
}

pub(super) fn log(origin: u64) -> TokenLog {
    TokenLog {
        origin: Origin::from_u64(origin),
        incarnation: Incarnation { counter: 1, nonce: origin },
        lane: Lane::Tokens,
    }
}

pub(super) fn token<'a>(seq: u64, domain: &str, (kind, body): (TokenKind, &'a [u8])) -> Token<'a> {
    let time = HybridTime::from_millis(seq);
    Token { seq, time, domain: DomainId::of(domain), kind, flags: 0, body }
}

/// Publishes to the manager of its own node, and of others.
#[derive(Debug)]
pub(super) struct Loopback {
    pub(super) own: TokenLog,
    pub(super) managers: Vec<Manager>,
    pub(super) seq: AtomicU64,
    pub(super) fails: bool,
}

impl Loopback {
    pub(super) fn connect(managers: &[Manager], fails: bool) {
        for (index, manager) in managers.iter().enumerate() {
            let own = log(index as u64 + 1);
            let managers = managers.to_vec();
            for other in &managers {
                other.visible(&own, u64::MAX);
            }
            let loopback = Self { own, managers, seq: AtomicU64::new(0), fails };
            manager.connect(Arc::new(loopback), None);
        }
    }
}

impl Publisher for Loopback {
    fn publish(
        &self,
        domain: DomainId,
        kind: TokenKind,
        body: &[u8],
    ) -> Result<Published, PublishError> {
        if self.fails {
            return Err(PublishError::Fenced);
        }
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        let time = HybridTime::from_millis(seq);
        let token = Token { seq, time, domain, kind, flags: 0, body };
        for manager in &self.managers {
            manager.apply(&self.own, &token);
        }
        Ok(Published { log: self.own, seq, time })
    }
}
