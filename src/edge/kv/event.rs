//! A KV event as it goes on: one form, whatever the engine wrote.

use super::wire::{BlockHash, Medium};

/// What became of blocks of one rank, in one medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEvent {
    /// Its number among those that were published, from 1; 0 before it has one.
    pub id: u64,
    /// The engine's data-parallel rank.
    pub rank: u32,
    /// What the blocks lie in.
    pub medium: Medium,
    /// Their group of layers; 0 where there are no groups.
    pub group: u32,
    /// What became of them.
    pub change: Change,
}

/// What became of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They hold something now.
    Stored {
        /// The block before the first; `None` where that is the first of all.
        parent: Option<BlockHash>,
        /// Each is the next of the one before it.
        blocks: Vec<Block>,
    },
    /// They do no longer.
    Removed(Vec<BlockHash>),
    /// Nothing is held by this rank, in any medium: whatever was known of it is void.
    Cleared,
}

/// A block of tokens.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The engine's hash, over this block and all before it.
    pub hash: BlockHash,
    /// XXH3-64 with seed 1337 of its tokens as `u32` LE: the same in each engine.
    pub tokens: u64,
}

impl KvEvent {
    /// Nothing is held by `rank`.
    pub const fn cleared(rank: u32) -> Self {
        Self { id: 0, rank, medium: Medium::Device, group: 0, change: Change::Cleared }
    }

    /// Blocks that it names.
    pub fn blocks(&self) -> usize {
        match &self.change {
            Change::Stored { blocks, .. } => blocks.len(),
            Change::Removed(hashes) => hashes.len(),
            Change::Cleared => 0,
        }
    }

    /// As JSON, in the form of the events of NVIDIA Dynamo's routers.
    pub fn to_json(&self, worker: u64) -> Vec<u8> {
        let mut json = Json::with_room(160 + self.blocks() * 72);
        json.text("{\"worker_id\":").number(worker);
        json.text(",\"storage_tier\":\"").text(match self.medium {
            Medium::Device => "device",
            Medium::Host => "host_pinned",
            Medium::Disk => "disk",
            Medium::External => "external",
        });
        json.text("\",\"event\":{\"event_id\":").number(self.id).text(",\"data\":");
        match &self.change {
            Change::Stored { parent, blocks } => {
                json.text("{\"stored\":{\"parent_hash\":");
                match parent {
                    Some(parent) => json.number(parent.0),
                    None => json.text("null"),
                };
                json.text(",\"blocks\":[");
                for (index, block) in blocks.iter().enumerate() {
                    json.comma(index).text("{\"block_hash\":").number(block.hash.0);
                    json.text(",\"tokens_hash\":").number(block.tokens).text("}");
                }
                json.text("]}}");
            }
            Change::Removed(hashes) => {
                json.text("{\"removed\":{\"block_hashes\":[");
                for (index, hash) in hashes.iter().enumerate() {
                    json.comma(index).number(hash.0);
                }
                json.text("]}}");
            }
            Change::Cleared => {
                json.text("\"cleared\"");
            }
        }
        json.text(",\"dp_rank\":").number(u64::from(self.rank));
        if self.group != 0 {
            json.text(",\"group_idx\":").number(u64::from(self.group));
        }
        json.text("}}");
        json.0
    }
}

/// Text that is put together of names and numbers: nothing in it has to be escaped.
struct Json(Vec<u8>);

impl Json {
    fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn comma(&mut self, index: usize) -> &mut Self {
        if index > 0 { self.text(",") } else { self }
    }

    fn number(&mut self, mut number: u64) -> &mut Self {
        let mut digits = [b'0'; 20];
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            used += 1;
            if number == 0 {
                break;
            }
        }
        self.0.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_as_json_is_what_dynamo_s_routers_read() {
        let hashes = [BlockHash(u64::MAX), BlockHash(0)];
        let mut event = KvEvent { id: 7, rank: 3, medium: Medium::Host, ..KvEvent::cleared(0) };
        let json = |event: &KvEvent| String::from_utf8(event.to_json(12)).unwrap();
        assert_eq!(
            json(&event),
            "{\"worker_id\":12,\"storage_tier\":\"host_pinned\",\"event\":{\"event_id\":7,\
             \"data\":\"cleared\",\"dp_rank\":3}}"
        );
        event.change = Change::Removed(hashes.to_vec());
        assert!(
            json(&event)
                .contains("\"data\":{\"removed\":{\"block_hashes\":[18446744073709551615,0]}}")
        );
        let blocks = hashes.map(|hash| Block { hash, tokens: 10 }).to_vec();
        event.change = Change::Stored { parent: None, blocks };
        assert!(json(&event).contains(
            "\"data\":{\"stored\":{\"parent_hash\":null,\"blocks\":[\
             {\"block_hash\":18446744073709551615,\"tokens_hash\":10},\
             {\"block_hash\":0,\"tokens_hash\":10}]}}"
        ));
    }
}
