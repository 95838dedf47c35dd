//! The stores, each behind the same few calls, with the settings that its documentation
//! recommends for this work.

mod annals;
mod commitlog;
mod fjall;
mod lmdb;
mod okaywal;
mod raft_engine;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;
mod sqlite;
mod wal_db;
mod walrus;
mod writeahead;

use crate::store::Peer;

/// For all stores that have a cache of their own: the data fit into it.
const CACHE_BYTES: u64 = 1 << 30;

/// All of them, ours first. A variant of one, such as a log that was compacted, is one more.
pub(crate) const PEERS: &[Peer] = &[
    annals::PEER,
    raft_engine::PEER,
    writeahead::PEER,
    wal_db::PEER,
    okaywal::PEER,
    commitlog::PEER,
    walrus::PEER,
    fjall::PEER,
    #[cfg(feature = "rocksdb")]
    rocksdb::PEER,
    redb::PEER,
    lmdb::PEER,
    sqlite::PEER,
    sled::PEER,
];

/// Those that this program was built without, and why.
pub(crate) const LEFT_OUT: &[(&str, &str)] = &[
    #[cfg(not(feature = "rocksdb"))]
    ("rocksdb", "built without it: its C++ takes long; `--features rocksdb`"),
];
