//! The op: what a turn or a node says of what others remember. A plain type, so that those who say
//! it need not know how it gets there.

use crate::types::DomainId;

/// What an [`Op`] is said of.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpKind {
    /// The value of one key has changed.
    Key,
    /// So has everything that bears a tag.
    Tag,
    /// So has every key that begins so.
    Prefix,
    /// So has everything of the domain.
    All,
}

/// Something that is remembered is no longer so.
///
/// ```
/// use annals::{DomainId, Op};
///
/// let users = DomainId::of("users");
/// assert_eq!(Op::key(users, b"17").body, b"17");
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Op<'a> {
    /// Of which part of what is remembered.
    pub domain: DomainId,
    /// What it is said of.
    pub kind: OpKind,
    /// The key, tag or prefix; empty for all.
    pub body: &'a [u8],
}

impl<'a> Op<'a> {
    /// The value of `key` has changed.
    pub const fn key(domain: DomainId, key: &'a [u8]) -> Self {
        Self { domain, kind: OpKind::Key, body: key }
    }

    /// Everything that bears `tag` has changed.
    pub const fn tag(domain: DomainId, tag: &'a [u8]) -> Self {
        Self { domain, kind: OpKind::Tag, body: tag }
    }

    /// Every key that begins with `prefix` has changed.
    pub const fn prefix(domain: DomainId, prefix: &'a [u8]) -> Self {
        Self { domain, kind: OpKind::Prefix, body: prefix }
    }

    /// Everything of `domain` has changed.
    pub const fn all(domain: DomainId) -> Op<'static> {
        Op { domain, kind: OpKind::All, body: &[] }
    }
}

/// Several ops, kept.
#[derive(Clone, Debug, Default)]
pub struct Ops {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Copy, Clone, Debug)]
struct Item {
    domain: DomainId,
    kind: OpKind,
    /// Where its body ends; it begins where that before it ends.
    end: usize,
}

impl Ops {
    /// Adds one.
    pub fn push(&mut self, op: Op<'_>) {
        self.bytes.extend_from_slice(op.body);
        self.items.push(Item { domain: op.domain, kind: op.kind, end: self.bytes.len() });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Drops all but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.items.truncate(len);
        self.bytes.truncate(self.items.last().map_or(0, |item| item.end));
    }

    /// In the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Op<'_>> + Clone {
        let mut start = 0;
        self.items.iter().map(move |item| {
            let body = self.bytes.get(start..item.end).unwrap_or_default();
            start = item.end;
            Op { domain: item.domain, kind: item.kind, body }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ops_come_out_as_they_went_in_and_what_is_dropped_leaves_the_rest() {
        let domain = DomainId::of("users");
        let said = [Op::key(domain, b"1"), Op::all(domain), Op::tag(domain, b"admins")];
        let mut ops = Ops::default();
        for op in said {
            ops.push(op);
        }
        assert_eq!(ops.iter().collect::<Vec<_>>(), said);
        ops.truncate(2);
        ops.push(Op::prefix(domain, b"x"));
        assert_eq!(ops.iter().last(), Some(Op::prefix(domain, b"x")));
        ops.truncate(0);
        assert!(ops.is_empty());
    }
}
