//! A connection within one process: for tests of nodes without sockets, with links that are cut
//! and healed at will.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

use crate::sync::message::{Message, Refusal, Tokens};
use crate::sync::node::Node;
use crate::sync::node::pipe::{Pipe, Rim};
use crate::sync::origin::TokenLog;
use crate::sync::replica::Link;

/// Batches of tokens on their way in one direction.
const BATCHES: usize = 4;

enum Sent {
    Message(Message),
    Tokens { log: TokenLog, first: u64, before: u64, visible: u64, bytes: Vec<u8> },
    Close,
}

/// One direction.
struct Way {
    queue: Sender<Sent>,
    /// As many as may be on their way.
    credit: (Sender<()>, Receiver<()>),
    wanted: AtomicBool,
    cut: Arc<AtomicBool>,
    /// Who speaks here.
    sender: OnceLock<(Arc<dyn Rim>, Link)>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Way")
    }
}

impl Pipe for Way {
    fn send(&self, message: &Message) {
        // Nobody may be there any more.
        drop(self.queue.send(Sent::Message(message.clone())));
    }

    fn tokens(&self, tokens: &Tokens<'_>) -> bool {
        if self.credit.0.try_send(()).is_err() {
            self.wanted.store(true, Ordering::SeqCst);
            if self.credit.0.try_send(()).is_err() {
                return false;
            }
            self.wanted.store(false, Ordering::SeqCst);
        }
        let Tokens { log, first, before, visible, bytes } = *tokens;
        let bytes = bytes.to_vec();
        drop(self.queue.send(Sent::Tokens { log, first, before, visible, bytes }));
        true
    }

    fn close(&self, _refusal: Option<&Refusal>) {
        drop(self.queue.send(Sent::Close));
    }
}

/// A connection of two nodes; cut when it is dropped.
#[derive(Debug)]
pub struct Local {
    cut: Arc<AtomicBool>,
    stops: [Sender<Sent>; 2],
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Local {
    /// Connects two nodes.
    ///
    /// # Panics
    /// There is no thread to be had.
    pub fn connect(one: &Node, other: &Node) -> Self {
        let cut = Arc::new(AtomicBool::new(false));
        let way = || {
            let (queue, received) = unbounded();
            let wanted = AtomicBool::new(false);
            let cut = Arc::clone(&cut);
            let sender = OnceLock::new();
            (Arc::new(Way { queue, credit: bounded(BATCHES), wanted, cut, sender }), received)
        };
        let ((there, at_other), (back, at_one)) = (way(), way());
        let rims: [Arc<dyn Rim>; 2] = [
            Arc::clone(&one.inner().shared) as Arc<dyn Rim>,
            Arc::clone(&other.inner().shared) as Arc<dyn Rim>,
        ];
        let hellos = rims.each_ref().map(|rim| rim.hello());
        let [rim_one, rim_other] = rims;
        let [hello_one, hello_other] = hellos;
        let stops = [there.queue.clone(), back.queue.clone()];
        let link_one = rim_one.up(&hello_other, Arc::clone(&there) as Arc<dyn Pipe>);
        drop(there.sender.set((Arc::clone(&rim_one), link_one)));
        let link_other = rim_other.up(&hello_one, Arc::clone(&back) as Arc<dyn Pipe>);
        drop(back.sender.set((Arc::clone(&rim_other), link_other)));
        let sides = [
            Side { rim: rim_one, link: link_one, received: at_one, incoming: back },
            Side { rim: rim_other, link: link_other, received: at_other, incoming: there },
        ];
        let threads = sides.map(|side| {
            let spawned = std::thread::Builder::new()
                .name("annals-local".to_owned())
                .spawn(move || side.run());
            spawned.unwrap_or_else(|error| panic!("a thread: {error}"))
        });
        let threads = Vec::from(threads);
        Self { cut, stops, threads: Mutex::new(threads) }
    }
}

struct Side {
    rim: Arc<dyn Rim>,
    link: Link,
    received: Receiver<Sent>,
    /// The way that `received` is the end of.
    incoming: Arc<Way>,
}

impl Side {
    fn run(self) {
        let Self { rim, link, received, incoming } = self;
        for sent in &received {
            if incoming.cut.load(Ordering::SeqCst) {
                break;
            }
            match sent {
                Sent::Message(message) => rim.message(link, &message),
                Sent::Tokens { log, first, before, visible, bytes } => {
                    rim.tokens(link, &Tokens { log, first, before, visible, bytes: &bytes });
                    incoming.credit.1.try_recv().unwrap_or_default();
                    if incoming.wanted.swap(false, Ordering::SeqCst)
                        && let Some((rim, link)) = incoming.sender.get()
                    {
                        rim.writable(*link);
                    }
                }
                Sent::Close => break,
            }
        }
        rim.down(link);
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.cut.store(true, Ordering::SeqCst);
        for stop in &self.stops {
            drop(stop.send(Sent::Close));
        }
        for thread in self.threads.lock().drain(..) {
            drop(thread.join());
        }
    }
}
