//! A TCP proxy that is a bad network: it delays, is slow, loses the connection at a chosen byte,
//! changes a bit, or lets nothing through in one direction and says nothing about it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// From the one who dialled, or to him.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    There,
    Back,
}

/// What happens to bytes of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// The connection is lost when so many bytes of it have passed; once.
    pub(crate) cut_at: Option<u64>,
    /// The bit of this byte is flipped; once.
    pub(crate) flip_at: Option<(u64, u8)>,
    /// Nothing passes, and nobody is told.
    pub(crate) held: bool,
    /// Each piece comes so much later.
    pub(crate) delay: Duration,
    /// Bytes of one piece at most; 0: as they come.
    pub(crate) piece: usize,
}

struct Shared {
    target: SocketAddr,
    there: Mutex<Faults>,
    back: Mutex<Faults>,
    /// Of the last connection.
    passed: [AtomicU64; 2],
    connections: AtomicU64,
    closing: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    changed: Condvar,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").expect("a port"));
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            target,
            there: Mutex::default(),
            back: Mutex::default(),
            passed: Default::default(),
            connections: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            streams: Mutex::default(),
            changed: Condvar::new(),
        });
        let (all, listening) = (Arc::clone(&shared), Arc::clone(&listener));
        let thread = thread::spawn(move || listen(&all, &listening));
        Self { address, shared, listener, thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn set(&self, way: Way, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.faults(way).lock());
        let _streams = self.shared.streams.lock();
        self.shared.changed.notify_all();
    }

    /// All connections are lost.
    pub(crate) fn sever(&self) {
        for stream in self.shared.streams.lock().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Bytes that have passed on the last connection.
    pub(crate) fn passed(&self, way: Way) -> u64 {
        self.shared.passed[way as usize].load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).expect("a listener");
        self.sever();
        for way in [Way::There, Way::Back] {
            self.set(way, |faults| *faults = Faults::default());
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn faults(&self, way: Way) -> &Mutex<Faults> {
        match way {
            Way::There => &self.there,
            Way::Back => &self.back,
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }
}

fn listen(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((near, _)) = listener.accept() {
        if shared.is_closing() {
            break;
        }
        pumps.retain(|pump| !pump.is_finished());
        let Ok(far) = TcpStream::connect(shared.target) else { continue };
        for stream in [&near, &far] {
            drop(stream.set_nodelay(true));
            shared.streams.lock().push(stream.try_clone().expect("a handle"));
        }
        for passed in &shared.passed {
            passed.store(0, Ordering::SeqCst);
        }
        shared.connections.fetch_add(1, Ordering::SeqCst);
        for (way, from, to) in [(Way::There, &near, &far), (Way::Back, &far, &near)] {
            let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("one"));
            let all = Arc::clone(shared);
            pumps.push(thread::spawn(move || pump(&all, way, from, to)));
        }
    }
    for pump in pumps {
        drop(pump.join());
    }
}

/// Carries one direction of one connection.
fn pump(shared: &Shared, way: Way, mut from: TcpStream, mut to: TcpStream) {
    let mut passed = 0;
    let mut room = [0; 16 << 10];
    loop {
        let piece = shared.faults(way).lock().piece;
        let piece = if piece == 0 { room.len() } else { piece.min(room.len()) };
        let Ok(bytes @ 1..) = from.read(&mut room[..piece]) else { break };
        if !passes(shared, way) {
            break;
        }
        let (mut last, mut bytes) = (false, &mut room[..bytes]);
        let mut faults = shared.faults(way).lock();
        if let Some(at) = faults.cut_at
            && at < passed + bytes.len() as u64
        {
            faults.cut_at = None;
            last = true;
            bytes = &mut bytes[..usize::try_from(at - passed).expect("64 bits")];
        }
        if let Some((at, bit)) = faults.flip_at
            && let Some(byte) =
                at.checked_sub(passed).and_then(|at| bytes.get_mut(usize::try_from(at).ok()?))
        {
            faults.flip_at = None;
            *byte ^= 1 << bit;
        }
        drop(faults);
        passed += bytes.len() as u64;
        // Told before it arrives: who has heard of a byte can rely on its being counted.
        shared.passed[way as usize].store(passed, Ordering::SeqCst);
        let sent = to.write_all(bytes);
        if last || sent.is_err() {
            break;
        }
    }
    for stream in [from, to] {
        drop(stream.shutdown(Shutdown::Both));
    }
}

/// Waits as long as the direction is held or delayed; `false`: all is over.
fn passes(shared: &Shared, way: Way) -> bool {
    let delay = shared.faults(way).lock().delay;
    let mut streams = shared.streams.lock();
    if !delay.is_zero() {
        shared.changed.wait_for(&mut streams, delay);
    }
    while shared.faults(way).lock().held {
        if shared.is_closing() {
            return false;
        }
        shared.changed.wait_for(&mut streams, Duration::from_millis(100));
    }
    !shared.is_closing()
}
