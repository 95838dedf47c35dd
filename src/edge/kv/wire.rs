//! What vLLM publishes about its KV blocks, as bytes: decoded, and for tests encoded.
//!
//! A message is a batch: a time, events, and the rank of its engine. Two generations of it are out
//! there, and mixtures: up to vLLM 0.22 or so a batch and its events are arrays with trailing
//! defaults left out, after that events are maps that name their type and fields, and the batch is
//! an array or a map. A hash is an integer (older producers write it with a sign) or the 32 bytes
//! of a SHA-256. All of these are read, told apart by what they are rather than by a version.
//!
//! ```text
//!  [ts, [["BlockStored", [hash, ...], parent, [token, ...], block_size, lora_id, medium, ...],
//!        ["BlockRemoved", [hash, ...], medium, ...],
//!        ["AllBlocksCleared"]], rank]
//!  [ts, [{"type": "BlockStored", "block_hashes": [hash, ...], ...}, ...], rank]
//!  {"ts": ts, "events": [...], "data_parallel_rank": rank}
//! ```
//!
//! **The bytes are a stranger's.** Nothing in them causes a panic, a deep stack, or more memory
//! than a small multiple of their length; fields, elements and events that are not known are passed
//! over, and the last are counted. What is known must be of its type, or the batch is refused
//! whole.

#![expect(clippy::big_endian_bytes, reason = "a hash's bytes are big-endian")]

use super::msgpack::{Reader, Token, Writer};

/// Why bytes are not a batch. Offsets are in bytes of the payload.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reject {
    /// They end within a value.
    #[error("it ends at byte {offset}, within a value")]
    Short {
        /// Where they end.
        offset: usize,
    },
    /// A length that the bytes behind it cannot fill.
    #[error("the length at byte {offset} is more than there is")]
    Length {
        /// Where it stands.
        offset: usize,
    },
    /// The one byte that MessagePack never uses.
    #[error("byte {offset} is no MessagePack")]
    Msgpack {
        /// Where it stands.
        offset: usize,
    },
    /// A known field has another type.
    #[error("{field} at byte {offset} is not {wanted}")]
    Type {
        /// Of what.
        field: &'static str,
        /// What it should be.
        wanted: &'static str,
        /// Where it begins.
        offset: usize,
    },
    /// A field without which nothing can be said is not there.
    #[error("there is no {field} in what ends at byte {offset}")]
    Missing {
        /// Which.
        field: &'static str,
        /// Where the reading was.
        offset: usize,
    },
    /// There are bytes behind the batch.
    #[error("the batch ends at byte {offset}, and more follows")]
    Trailing {
        /// Where the batch ends.
        offset: usize,
    },
}

/// One message: what an engine did in one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Seconds since the Unix epoch, by the engine's clock.
    pub ts: f64,
    /// The engine's data-parallel rank, if it says so.
    pub rank: Option<u32>,
    /// What it did, in order.
    pub events: Vec<EngineEvent>,
    /// Events of a type that is not known, left out.
    pub unknown: u32,
}

/// One event, as the engine says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// Blocks hold something now.
    Stored(EngineStored),
    /// They no longer do.
    Removed {
        /// Which.
        hashes: Vec<BlockHash>,
        /// Where they lay.
        medium: Medium,
        /// Of which group of layers; 0 where there are no groups.
        group: u32,
    },
    /// No block does.
    Cleared,
}

/// Blocks that hold something now, each the next of the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStored {
    /// Their hashes, each over the block and all before it.
    pub hashes: Vec<BlockHash>,
    /// The block before the first of them.
    pub parent: Option<BlockHash>,
    /// The tokens of all of them, one after the other.
    pub tokens: Vec<u32>,
    /// Tokens in a block.
    pub block_size: u32,
    /// Where they lie.
    pub medium: Medium,
    /// In which group of layers; 0 where there are no groups.
    pub group: u32,
}

/// The hash by which an engine knows a block: 64 bits.
///
/// Where the engine sends all 32 bytes, these are the last eight: what it would have sent as an
/// integer.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub u64);

/// What a block lies in.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Medium {
    /// The accelerator's memory, also where nothing is said.
    #[default]
    Device = 0,
    /// The host's memory.
    Host = 1,
    /// A disk.
    Disk = 2,
    /// Anything else.
    External = 3,
}

impl Medium {
    pub(super) const ALL: [Self; 4] = [Self::Device, Self::Host, Self::Disk, Self::External];

    /// By the name that engines give it.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GPU" | b"gpu" | b"DEVICE" | b"" => Self::Device,
            b"CPU" | b"cpu" | b"CPU_PINNED" | b"CPU_TIER1" | b"HOST" => Self::Host,
            b"DISK" | b"disk" | b"CPU_TIER2" | b"NVME" | b"SSD" | b"FS" => Self::Disk,
            _ => Self::External,
        }
    }

    /// As engines name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "GPU",
            Self::Host => "CPU",
            Self::Disk => "DISK",
            Self::External => "EXTERNAL",
        }
    }
}

/// Which of the two generations to write.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Arrays within an array.
    Arrays,
    /// Maps within an array.
    Maps,
    /// Maps within a map.
    AllMaps,
}

impl Batch {
    /// Reads a whole payload.
    ///
    /// # Errors
    ///
    /// See [`Reject`]; nothing of a refused batch is to be used.
    pub fn decode(payload: &[u8]) -> Result<Self, Reject> {
        let mut reader = Reader::new(payload);
        let mut batch = Self::default();
        let mut has_events = false;
        match reader.token()? {
            Token::Array(fields) => {
                for field in 0..fields {
                    match field {
                        0 => batch.ts = seconds(&mut reader)?,
                        1 => {
                            has_events = true;
                            batch.read_events(&mut reader)?;
                        }
                        2 => batch.rank = rank(&mut reader)?,
                        _ => reader.skip()?,
                    }
                }
            }
            Token::Map(fields) => {
                for _ in 0..fields {
                    match key(&mut reader)? {
                        b"ts" => batch.ts = seconds(&mut reader)?,
                        b"events" => {
                            has_events = true;
                            batch.read_events(&mut reader)?;
                        }
                        b"data_parallel_rank" => batch.rank = rank(&mut reader)?,
                        _ => reader.skip()?,
                    }
                }
            }
            _ => {
                let wanted = "an array or a map";
                return Err(Reject::Type { field: "the batch", wanted, offset: 0 });
            }
        }
        let offset = reader.offset();
        if !has_events {
            return Err(Reject::Missing { field: "events", offset });
        }
        if offset != payload.len() {
            return Err(Reject::Trailing { offset });
        }
        Ok(batch)
    }

    fn read_events(&mut self, reader: &mut Reader<'_>) -> Result<(), Reject> {
        let count = array(reader, "events")?;
        // A map that names `events` twice has those that were named last.
        self.events.clear();
        self.unknown = 0;
        for _ in 0..count {
            match Fields::read(reader)?.into_event(reader.offset())? {
                Some(event) => self.events.push(event),
                None => self.unknown = self.unknown.saturating_add(1),
            }
        }
        Ok(())
    }

    /// Writes it as an engine of that generation would.
    pub fn encode(&self, schema: Schema) -> Vec<u8> {
        let mut writer = Writer::default();
        let named = schema == Schema::AllMaps;
        if named {
            writer.map(3);
        } else {
            writer.array(3);
        }
        let name = |writer: &mut Writer, name| {
            if named {
                writer.text(name);
            }
        };
        name(&mut writer, "ts");
        writer.float(self.ts);
        name(&mut writer, "events");
        writer.array(self.events.len());
        for event in &self.events {
            match schema {
                Schema::Arrays => event.write_array(&mut writer),
                Schema::Maps | Schema::AllMaps => event.write_map(&mut writer),
            }
        }
        name(&mut writer, "data_parallel_rank");
        match self.rank {
            Some(rank) => writer.unsigned(u64::from(rank)),
            None => writer.nil(),
        }
        writer.0
    }
}

impl EngineEvent {
    fn write_array(&self, writer: &mut Writer) {
        match self {
            Self::Stored(stored) => {
                writer.array(if stored.group == 0 { 7 } else { 10 });
                writer.text("BlockStored");
                write_hashes(writer, &stored.hashes);
                write_parent(writer, stored.parent);
                write_tokens(writer, &stored.tokens);
                writer.unsigned(u64::from(stored.block_size));
                writer.nil();
                writer.text(stored.medium.name());
                if stored.group != 0 {
                    writer.nil();
                    writer.nil();
                    writer.unsigned(u64::from(stored.group));
                }
            }
            Self::Removed { hashes, medium, group } => {
                writer.array(if *group == 0 { 3 } else { 4 });
                writer.text("BlockRemoved");
                write_hashes(writer, hashes);
                writer.text(medium.name());
                if *group != 0 {
                    writer.unsigned(u64::from(*group));
                }
            }
            Self::Cleared => {
                writer.array(1);
                writer.text("AllBlocksCleared");
            }
        }
    }

    fn write_map(&self, writer: &mut Writer) {
        let group_of = |writer: &mut Writer, group: u32| {
            writer.text("group_idx");
            writer.unsigned(u64::from(group));
        };
        match self {
            Self::Stored(stored) => {
                writer.map(7);
                writer.text("type");
                writer.text("BlockStored");
                writer.text("block_hashes");
                write_hashes(writer, &stored.hashes);
                writer.text("parent_block_hash");
                write_parent(writer, stored.parent);
                writer.text("token_ids");
                write_tokens(writer, &stored.tokens);
                writer.text("block_size");
                writer.unsigned(u64::from(stored.block_size));
                writer.text("medium");
                writer.text(stored.medium.name());
                group_of(writer, stored.group);
            }
            Self::Removed { hashes, medium, group } => {
                writer.map(4);
                writer.text("type");
                writer.text("BlockRemoved");
                writer.text("block_hashes");
                write_hashes(writer, hashes);
                writer.text("medium");
                writer.text(medium.name());
                group_of(writer, *group);
            }
            Self::Cleared => {
                writer.map(1);
                writer.text("type");
                writer.text("AllBlocksCleared");
            }
        }
    }
}

fn write_hashes(writer: &mut Writer, hashes: &[BlockHash]) {
    writer.array(hashes.len());
    for hash in hashes {
        writer.unsigned(hash.0);
    }
}

fn write_parent(writer: &mut Writer, parent: Option<BlockHash>) {
    match parent {
        Some(hash) => writer.unsigned(hash.0),
        None => writer.nil(),
    }
}

fn write_tokens(writer: &mut Writer, tokens: &[u32]) {
    writer.array(tokens.len());
    for token in tokens {
        writer.unsigned(u64::from(*token));
    }
}

/// What has been found of an event so far. A map may name its type last.
#[derive(Default)]
struct Fields {
    kind: Kind,
    stored: EngineStored,
    has_hashes: bool,
    has_block_size: bool,
}

#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Missing,
    Stored,
    Removed,
    Cleared,
    Unknown,
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        match name {
            b"BlockStored" => Self::Stored,
            b"BlockRemoved" => Self::Removed,
            b"AllBlocksCleared" => Self::Cleared,
            _ => Self::Unknown,
        }
    }
}

/// A field of an event, whichever way it was found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Field {
    Hashes,
    Parent,
    Tokens,
    BlockSize,
    Medium,
    Group,
    Other,
}

impl Field {
    /// By its place behind the type.
    fn at(kind: Kind, place: usize) -> Self {
        match (kind, place) {
            (Kind::Stored | Kind::Removed, 1) => Self::Hashes,
            (Kind::Stored, 2) => Self::Parent,
            (Kind::Stored, 3) => Self::Tokens,
            (Kind::Stored, 4) => Self::BlockSize,
            (Kind::Stored, 6) | (Kind::Removed, 2) => Self::Medium,
            (Kind::Stored, 9) | (Kind::Removed, 3) => Self::Group,
            _ => Self::Other,
        }
    }

    fn named(name: &[u8]) -> Self {
        match name {
            b"block_hashes" => Self::Hashes,
            b"parent_block_hash" => Self::Parent,
            b"token_ids" => Self::Tokens,
            b"block_size" => Self::BlockSize,
            b"medium" => Self::Medium,
            b"group_idx" => Self::Group,
            _ => Self::Other,
        }
    }
}

impl Fields {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Reject> {
        let mut this = Self::default();
        let offset = reader.offset();
        match reader.token()? {
            Token::Array(length) => {
                if length > 0 {
                    this.kind = Kind::of(text(reader, "an event's type")?);
                }
                for place in 1..length {
                    this.take(Field::at(this.kind, place), reader)?;
                }
            }
            Token::Map(length) => {
                for _ in 0..length {
                    match key(reader)? {
                        b"type" => this.kind = Kind::of(text(reader, "an event's type")?),
                        // What an unknown event calls by a known name may be something else.
                        _ if this.kind == Kind::Unknown => reader.skip()?,
                        name => this.take(Field::named(name), reader)?,
                    }
                }
            }
            _ => {
                return Err(Reject::Type {
                    field: "an event",
                    wanted: "an array or a map",
                    offset,
                });
            }
        }
        Ok(this)
    }

    fn take(&mut self, field: Field, reader: &mut Reader<'_>) -> Result<(), Reject> {
        match field {
            Field::Hashes => {
                self.has_hashes = true;
                self.stored.hashes = hashes(reader)?;
            }
            Field::Parent => self.stored.parent = optional_hash(reader)?,
            Field::Tokens => self.stored.tokens = tokens(reader)?,
            Field::BlockSize => {
                self.has_block_size = true;
                self.stored.block_size = small(reader, "block_size")?;
            }
            Field::Medium => self.stored.medium = medium(reader)?,
            Field::Group => self.stored.group = group(reader)?,
            Field::Other => reader.skip()?,
        }
        Ok(())
    }

    fn into_event(self, offset: usize) -> Result<Option<EngineEvent>, Reject> {
        let missing = |field| Err(Reject::Missing { field, offset });
        Ok(match self.kind {
            Kind::Missing => return missing("type"),
            Kind::Unknown => None,
            Kind::Stored | Kind::Removed if !self.has_hashes => return missing("block_hashes"),
            Kind::Stored if !self.has_block_size => return missing("block_size"),
            Kind::Stored => Some(EngineEvent::Stored(self.stored)),
            Kind::Removed => Some(EngineEvent::Removed {
                hashes: self.stored.hashes,
                medium: self.stored.medium,
                group: self.stored.group,
            }),
            Kind::Cleared => Some(EngineEvent::Cleared),
        })
    }
}

fn wrong<T>(field: &'static str, wanted: &'static str, offset: usize) -> Result<T, Reject> {
    Err(Reject::Type { field, wanted, offset })
}

/// A map's key: keys that are no text are passed over like unknown names.
fn key<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Reject> {
    let mut ahead = *reader;
    if let Token::Text(name) = ahead.token()? {
        *reader = ahead;
        return Ok(name);
    }
    reader.skip()?;
    Ok(b"")
}

fn text<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], Reject> {
    let offset = reader.offset();
    match reader.token()? {
        Token::Text(text) => Ok(text),
        _ => wrong(field, "a text", offset),
    }
}

fn array(reader: &mut Reader<'_>, field: &'static str) -> Result<usize, Reject> {
    let offset = reader.offset();
    match reader.token()? {
        Token::Array(length) => Ok(length),
        _ => wrong(field, "an array", offset),
    }
}

#[expect(clippy::cast_precision_loss, reason = "whole seconds are far below 2^52")]
fn seconds(reader: &mut Reader<'_>) -> Result<f64, Reject> {
    let offset = reader.offset();
    match reader.token()? {
        Token::Float(number) => Ok(number),
        Token::Unsigned(number) => Ok(number as f64),
        Token::Signed(number) => Ok(number as f64),
        _ => wrong("ts", "a number", offset),
    }
}

fn rank(reader: &mut Reader<'_>) -> Result<Option<u32>, Reject> {
    let offset = reader.offset();
    match reader.token()? {
        Token::Nil => Ok(None),
        Token::Unsigned(number) if u32::try_from(number).is_ok() => Ok(u32::try_from(number).ok()),
        _ => wrong("data_parallel_rank", "a small number or nil", offset),
    }
}

fn small(reader: &mut Reader<'_>, field: &'static str) -> Result<u32, Reject> {
    let offset = reader.offset();
    match reader.token()? {
        Token::Unsigned(number) => {
            u32::try_from(number).or_else(|_| wrong(field, "a number below 2^32", offset))
        }
        _ => wrong(field, "a number below 2^32", offset),
    }
}

fn group(reader: &mut Reader<'_>) -> Result<u32, Reject> {
    let mut ahead = *reader;
    if ahead.token()? == Token::Nil {
        *reader = ahead;
        return Ok(0);
    }
    small(reader, "group_idx")
}

fn medium(reader: &mut Reader<'_>) -> Result<Medium, Reject> {
    let offset = reader.offset();
    match reader.token()? {
        Token::Nil => Ok(Medium::Device),
        Token::Text(name) => Ok(Medium::of(name)),
        _ => wrong("medium", "a text or nil", offset),
    }
}

fn hash_of(token: Token<'_>, offset: usize) -> Result<BlockHash, Reject> {
    match token {
        Token::Unsigned(number) => Ok(BlockHash(number)),
        Token::Signed(number) => Ok(BlockHash(number.cast_unsigned())),
        Token::Bytes(bytes) => match bytes.last_chunk() {
            Some(low) => Ok(BlockHash(u64::from_be_bytes(*low))),
            None => wrong("a block's hash", "eight bytes at least", offset),
        },
        _ => wrong("a block's hash", "a number or bytes", offset),
    }
}

fn optional_hash(reader: &mut Reader<'_>) -> Result<Option<BlockHash>, Reject> {
    let offset = reader.offset();
    match reader.token()? {
        Token::Nil => Ok(None),
        token => hash_of(token, offset).map(Some),
    }
}

/// `count` is at most the number of bytes that follow it, so what is reserved is bounded by them.
fn hashes(reader: &mut Reader<'_>) -> Result<Vec<BlockHash>, Reject> {
    let count = array(reader, "block_hashes")?;
    let mut hashes = Vec::with_capacity(count);
    for _ in 0..count {
        let offset = reader.offset();
        hashes.push(hash_of(reader.token()?, offset)?);
    }
    Ok(hashes)
}

fn tokens(reader: &mut Reader<'_>) -> Result<Vec<u32>, Reject> {
    let count = array(reader, "token_ids")?;
    let mut tokens = Vec::with_capacity(count);
    for _ in 0..count {
        tokens.push(small(reader, "a token")?);
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests;
