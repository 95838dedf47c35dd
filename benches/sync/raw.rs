//! The limits: plain sockets on the loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::histogram::Histogram;

/// Somebody at the other end, who counts the bytes that come.
pub(crate) struct Raw {
    stream: Option<TcpStream>,
    received: Arc<AtomicU64>,
    sent: u64,
    thread: Option<JoinHandle<()>>,
}

impl Raw {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let stream = TcpStream::connect(address).expect("a connection");
        let (mut other, _) = listener.accept().expect("a connection");
        stream.set_nodelay(true).expect("an option");
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(bytes @ 1..) = other.read(&mut buffer) {
                count.fetch_add(bytes as u64, Ordering::Release);
            }
        });
        Self { stream: Some(stream), received, sent: 0, thread: Some(thread) }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.as_mut().expect("it is open").write_all(bytes).expect("it takes them");
        self.sent += bytes.len() as u64;
    }

    fn wait(&self) {
        let mut rounds = 0_u32;
        while self.received.load(Ordering::Acquire) < self.sent {
            rounds += 1;
            if rounds.is_multiple_of(64) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// So many messages of `bytes`, each there before the next.
    pub(crate) fn one_way(&mut self, times: u64, bytes: usize, each: &mut Histogram) -> Duration {
        let message = vec![7; bytes];
        let began = Instant::now();
        each.merge(&Histogram::of_each(times, &mut || {
            self.send(&message);
            self.wait();
        }));
        began.elapsed()
    }

    /// So many messages of `bytes`, until the last is there.
    pub(crate) fn stream(&mut self, times: u64, bytes: usize) -> Duration {
        let message = vec![7; bytes];
        let began = Instant::now();
        for _ in 0..times {
            self.send(&message);
        }
        self.wait();
        began.elapsed()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        drop(self.stream.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}
