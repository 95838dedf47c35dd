//! What a cache manager asks of its node: to publish, and what the logs say.

use std::sync::{Arc, Weak};

use crate::error::AppendError;
use crate::sync::apply::{Applier, Gone, History, PublishError, Published, Publisher};
use crate::sync::domain::DomainId;
use crate::sync::message::Mark;
use crate::sync::node::{Inner, NodeError};
use crate::sync::origin::{Cursor, Lane};
use crate::sync::own::{Own, Said};
use crate::sync::replica::Logs as _;
use crate::sync::token::{Token, TokenKind, split};

/// What is read at a time.
const READ_BYTES: usize = 64 << 10;

impl Publisher for Inner {
    fn publish(
        &self,
        domain: DomainId,
        kind: TokenKind,
        body: &[u8],
    ) -> Result<Published, PublishError> {
        let refused = |error: NodeError| match error {
            NodeError::Fenced(_) => PublishError::Fenced,
            NodeError::Domain(domain) => PublishError::Domain(domain),
            NodeError::Closed => PublishError::Closed,
            error => PublishError::Log(error.to_string()),
        };
        self.declared(domain).map_err(refused)?;
        let own = self.own_tokens().map_err(refused)?;
        let said = Said { kind, domain, body };
        let published = own.publish(std::iter::once(said)).map_err(|error| match error {
            AppendError::GroupTooLarge { bytes, .. } => PublishError::TooLarge(bytes),
            error => PublishError::Log(error.to_string()),
        })?;
        Ok(Published { log: own.tokens(), seq: published.last, time: published.time })
    }
}

impl History for Inner {
    fn marks(&self) -> Arc<[Cursor]> {
        let logs = &self.shared.logs;
        let foreign = logs.foreign.durable().into_iter();
        let foreign = foreign.map(|(log, Mark { seq, hash })| Cursor { log, seq, hash });
        let own = logs.own.iter().filter_map(|own| {
            let seq = own.durable();
            Some(Cursor { log: own.tokens(), seq, hash: own.hash_at(seq)? })
        });
        foreign.chain(own).collect()
    }

    fn stands(&self, cursor: &Cursor) -> bool {
        self.shared.logs.hash_at(&cursor.log, cursor.seq) == Some(cursor.hash)
    }

    fn floors(&self) -> Vec<Cursor> {
        let logs = &self.shared.logs;
        let foreign = logs.foreign.logs().into_iter();
        let foreign =
            foreign.map(|(log, floor, _)| Cursor { log, seq: floor.seq, hash: floor.hash });
        foreign.chain(logs.own.iter().map(|own| own.floor())).collect()
    }

    fn after(&self, from: &Cursor, each: &mut dyn FnMut(&Token<'_>)) -> Result<(), Gone> {
        if !self.stands(from) {
            return Err(Gone);
        }
        let logs = &self.shared.logs;
        let own = logs.own.iter().find(|own| own.tokens() == from.log);
        let mut reader = own.map(Own::reader);
        let (mut next, mut out) = (from.seq + 1, Vec::new());
        loop {
            out.clear();
            let read = match &mut reader {
                Some(reader) => reader.read(next, READ_BYTES, &mut out),
                None => logs.foreign.read(&from.log, next, READ_BYTES, &mut out),
            };
            let Some(last) = read.map_err(|_unread| Gone)? else { return Ok(()) };
            let mut rest = &*out;
            while let Ok((record, after)) = split(rest) {
                rest = after;
                each(&Token::parse(record).map_err(|_reject| Gone)?);
            }
            next = last + 1;
        }
    }
}

/// The node, for its cache manager, which the node holds.
#[derive(Debug)]
pub(super) struct Voice(pub Weak<Inner>);

impl Publisher for Voice {
    fn publish(
        &self,
        domain: DomainId,
        kind: TokenKind,
        body: &[u8],
    ) -> Result<Published, PublishError> {
        self.0.upgrade().ok_or(PublishError::Closed)?.publish(domain, kind, body)
    }
}

impl History for Voice {
    fn marks(&self) -> Arc<[Cursor]> {
        self.0.upgrade().map_or_else(|| Arc::from([]), |node| node.marks())
    }

    fn stands(&self, cursor: &Cursor) -> bool {
        self.0.upgrade().is_some_and(|node| node.stands(cursor))
    }

    fn floors(&self) -> Vec<Cursor> {
        self.0.upgrade().map(|node| node.floors()).unwrap_or_default()
    }

    fn after(&self, from: &Cursor, each: &mut dyn FnMut(&Token<'_>)) -> Result<(), Gone> {
        self.0.upgrade().ok_or(Gone)?.after(from, each)
    }
}

impl Inner {
    /// Tells an applier what is known: how far logs are visible, and what of them is not.
    pub(super) fn introduce(&self, applier: &dyn Applier) {
        let logs = &self.shared.logs;
        applier.visible(&logs.lane(Lane::Tokens).tokens(), u64::MAX);
        for kept in logs.foreign.found() {
            let log = kept.place.log(Lane::Tokens);
            applier.visible(&log, kept.visible);
            let open = logs.foreign.oldest_intent(&log).unwrap_or(u64::MAX);
            let (mut next, mut out) = (open.min(kept.visible + 1), Vec::new());
            // What cannot be read becomes a gap, which clears.
            while let Ok(Some(last)) = logs.foreign.read(&log, next, READ_BYTES, &mut out) {
                let mut rest = &*out;
                while let Ok((record, after)) = split(rest) {
                    rest = after;
                    if let Ok(token) = Token::parse(record) {
                        applier.apply(&log, &token);
                    }
                }
                next = last + 1;
                out.clear();
            }
        }
    }
}
