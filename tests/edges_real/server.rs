//! A server of one's own: started on a free port in a private folder, killed, started again; and
//! what is in it, read without the client libraries that wrote it.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use annals::edge::Pos;

/// What an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which server.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nats,
    Redis,
}

impl Kind {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Redis => "redis-server",
        }
    }
}

/// A record in a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) pos: Pos,
    pub(crate) part: u32,
    pub(crate) event: String,
}

/// A server, which is killed when this is dropped.
pub(crate) struct Server {
    kind: Kind,
    dir: PathBuf,
    child: Option<Child>,
    /// The port, once it is known: the same after each start.
    port: Option<u16>,
}

impl Server {
    pub(crate) fn new(kind: Kind, dir: &Path) -> Self {
        Self { kind, dir: dir.to_owned(), child: None, port: None }
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start(&mut self) {
        let mut command = Command::new(self.kind.program());
        match self.kind {
            Kind::Nats => {
                let port = self.port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
                command.args(["--addr", "127.0.0.1", "--port", &port, "--jetstream"]);
                command.arg("--store_dir").arg(self.dir.join("jetstream"));
                command.arg("--ports_file_dir").arg(&self.dir);
            }
            Kind::Redis => {
                // No port at all: a socket in its folder.
                command.args(["--port", "0", "--save", "", "--appendonly", "yes"]);
                command.args(["--appendfsync", "always", "--unixsocket"]);
                command.arg(self.dir.join("socket")).arg("--dir").arg(&self.dir);
            }
        }
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        if self.kind == Kind::Nats && self.port.is_none() {
            let file = self.dir.join(format!("nats-server_{}.ports", child.id()));
            let text = until(|| fs::read_to_string(&file).ok().filter(|text| text.contains('}')));
            let port = text.rsplit_once(':').unwrap().1;
            let port: String = port.chars().take_while(char::is_ascii_digit).collect();
            self.port = Some(port.parse().unwrap());
        }
        self.child = Some(child);
        until(|| self.ask().is_some().then_some(()));
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// How the example is told of it.
    pub(crate) fn arguments(&self) -> [String; 2] {
        match self.kind {
            Kind::Nats => ["--nats".to_owned(), format!("nats://127.0.0.1:{}", self.port.unwrap())],
            Kind::Redis => {
                let socket = self.dir.join("socket");
                ["--redis".to_owned(), format!("redis+unix://{}", socket.display())]
            }
        }
    }

    /// All records that it has; `None` where it cannot be asked now.
    pub(crate) fn arrived(&self) -> Option<Vec<Arrived>> {
        match self.kind {
            Kind::Nats => Nats::connect(self.port?)?.arrived(),
            Kind::Redis => redis_arrived(&self.dir.join("socket")),
        }
    }

    /// Does it answer?
    fn ask(&self) -> Option<()> {
        match self.kind {
            // It says so only when it has read its streams.
            Kind::Nats => Nats::connect(self.port?)?.request("$JS.API.INFO", "").map(|_| ()),
            Kind::Redis => {
                let mut redis = UnixStream::connect(self.dir.join("socket")).ok()?;
                redis.set_read_timeout(Some(PATIENCE)).ok()?;
                redis.write_all(b"PING\r\n").ok()?;
                let mut answer = [0; 7];
                redis.read_exact(&mut answer).ok()?;
                (&answer == b"+PONG\r\n").then_some(())
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Tries until there is an answer.
pub(crate) fn until<T>(mut try_it: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(answer) = try_it() {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "nothing in a minute");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The NATS protocol, as much of it as asks for a stream's messages.
struct Nats {
    stream: BufReader<TcpStream>,
}

impl Nats {
    fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut this = Self { stream: BufReader::new(stream) };
        this.send("CONNECT {\"verbose\":false}\r\nSUB answers 1\r\nPING\r\n")?;
        while this.line()? != "PONG" {}
        Some(this)
    }

    fn send(&mut self, text: &str) -> Option<()> {
        self.stream.get_mut().write_all(text.as_bytes()).ok()
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }

    fn ask(&mut self, subject: &str, body: &str) -> Option<()> {
        self.send(&format!("PUB {subject} answers {}\r\n{body}\r\n", body.len()))
    }

    /// The next answer.
    fn answer(&mut self) -> Option<String> {
        loop {
            let line = self.line()?;
            if line == "PING" {
                self.send("PONG\r\n")?;
            }
            let Some(head) = line.strip_prefix("MSG ") else { continue };
            let length: usize = head.rsplit_once(' ')?.1.parse().ok()?;
            let mut body = vec![0; length + 2];
            self.stream.read_exact(&mut body).ok()?;
            body.truncate(length);
            return String::from_utf8(body).ok();
        }
    }

    fn request(&mut self, subject: &str, body: &str) -> Option<String> {
        self.ask(subject, body)?;
        self.answer()
    }

    fn arrived(mut self) -> Option<Vec<Arrived>> {
        let info = self.request("$JS.API.STREAM.INFO.kv-events", "")?;
        let Some((_, last)) = info.split_once("\"last_seq\":") else { return Some(Vec::new()) };
        let last: String = last.chars().take_while(char::is_ascii_digit).collect();
        let last: u64 = last.parse().ok()?;
        let mut arrived = Vec::new();
        // A few hundred under way, so that this does not take long.
        for first in (1..=last).step_by(500) {
            let chunk = first..=last.min(first + 499);
            let mut asked = String::new();
            for seq in chunk.clone() {
                let body = format!("{{\"seq\":{seq}}}");
                let subject = "$JS.API.STREAM.MSG.GET.kv-events";
                write!(asked, "PUB {subject} answers {}\r\n{body}\r\n", body.len()).ok()?;
            }
            self.send(&asked)?;
            let mut answers = Vec::new();
            for _ in chunk {
                answers.push(message(&self.answer()?)?);
            }
            // Answers come as they like.
            answers.sort_by_key(|(seq, _)| *seq);
            arrived.extend(answers.into_iter().map(|(_, record)| record));
        }
        Some(arrived)
    }
}

/// Sequence and content of a message.
fn message(answer: &str) -> Option<(u64, Arrived)> {
    let text = |name: &str| {
        let (_, rest) = answer.split_once(&format!("\"{name}\":\""))?;
        String::from_utf8(base64(rest.split_once('"')?.0)?).ok()
    };
    let (_, seq) = answer.split_once("\"seq\":")?;
    let seq: String = seq.chars().take_while(char::is_ascii_digit).collect();
    let headers = text("hdrs")?;
    let about = headers.lines().find_map(|line| line.strip_prefix("Annals:"))?;
    let mut words = about.split_whitespace();
    let pos = words.next()?.parse().ok()?;
    let part = words.next()?.parse().ok()?;
    Some((seq.parse().ok()?, Arrived { pos, part, event: text("data")? }))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = LETTERS.iter().position(|known| *known == letter)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).ok()?);
        }
    }
    Some(bytes)
}

/// All entries of the stream `kv-events`.
fn redis_arrived(socket: &Path) -> Option<Vec<Arrived>> {
    let stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"XRANGE kv-events - +\r\n").ok()?;
    let Reply::Array(entries) = reply(&mut stream)? else { return None };
    let mut arrived = Vec::new();
    for entry in entries {
        let Reply::Array(entry) = entry else { return None };
        let [_, Reply::Array(fields)] = &entry[..] else { return None };
        let field = |name: &str| {
            fields.chunks(2).find_map(|two| match two {
                [Reply::Text(key), Reply::Text(value)] if key == name => Some(value.clone()),
                _ => None,
            })
        };
        let pos = field("pos")?.parse().ok()?;
        let part = field("part")?.parse().ok()?;
        arrived.push(Arrived { pos, part, event: field("data")? });
    }
    Some(arrived)
}

enum Reply {
    Text(String),
    Array(Vec<Self>),
}

fn reply(stream: &mut BufReader<UnixStream>) -> Option<Reply> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let length: usize = line.trim_end().get(1..)?.parse().ok()?;
    match line.chars().next()? {
        '*' => (0..length).map(|_| reply(stream)).collect::<Option<_>>().map(Reply::Array),
        '$' => {
            let mut text = vec![0; length + 2];
            stream.read_exact(&mut text).ok()?;
            text.truncate(length);
            String::from_utf8(text).ok().map(Reply::Text)
        }
        _ => None,
    }
}
