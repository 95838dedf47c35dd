//! Nodes on a simulated disk, with a crash in every call that changes it.

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::sync::domain::Domain;
use annals::sync::token::TokenKind;
use annals::testkit::{Machine, every_crash};
use annals::{Actor, Handle, NodeConfig, Op, Turn};

use crate::world::{cluster, users};

#[derive(Default)]
struct Account {
    cents: u64,
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Deposited(u64);

impl Actor for Account {
    type Event = Deposited;
    const KIND: &'static str = "account";
    fn apply(&mut self, event: &Deposited) {
        self.cents += event.0;
    }
}

struct Deposit(u64);
impl Handle<Deposit> for Account {
    type Reply = u64;
    fn handle(Deposit(cents): Deposit, turn: &mut Turn<'_, Self>) -> u64 {
        turn.emit(Deposited(cents));
        let sum = turn.cents;
        turn.publish(Op::key(users(), &sum.to_le_bytes()));
        sum
    }
}

fn config() -> NodeConfig {
    NodeConfig::found(cluster()).domain(Domain::new("users", 1))
}

fn open(machine: &Machine) -> Result<annals::Store, annals::Error> {
    machine.open_with(machine.options().node(config()))
}

/// All tokens that turns have published, in all lives, as the event log has them.
fn published(store: &annals::Store) -> Vec<u64> {
    use annals::log::Limit;
    use annals::log::frame::RecordKind;
    use annals::sync::token::{Token, split};
    let mut frames = store.log().frames(0, Limit::Written).unwrap();
    let mut sums = Vec::new();
    while let Some(frame) = frames.next().unwrap() {
        let mut events = 0;
        let mut tokens = 0;
        for record in frame.records().flatten() {
            events += u64::from(record.kind == RecordKind::Event);
            if record.kind != RecordKind::Token {
                continue;
            }
            let mut rest = record.payload;
            while let Ok((record, after)) = split(rest) {
                rest = after;
                let token = Token::parse(record).unwrap();
                if token.kind == TokenKind::Key {
                    tokens += 1;
                    sums.push(u64::from_le_bytes(token.body.try_into().unwrap()));
                }
            }
        }
        assert_eq!(events, tokens, "an event and its token stand in one frame, or not at all");
    }
    sums
}

#[test]
fn what_a_turn_changes_and_what_it_says_of_it_survive_together_or_not_at_all() {
    let crashes = every_crash(
        3,
        |machine, promised: &mut u64| {
            let Ok(store) = open(machine) else { return };
            let account = store.actor::<Account>("alice").unwrap();
            for _ in 0..3 {
                let Some(sum) = machine.heard(account.ask(Deposit(5))) else { return };
                *promised = sum;
            }
            store.close(std::time::Duration::from_secs(30)).unwrap_or_default();
        },
        |machine, end, promised| {
            let store = open(machine).unwrap();
            let account = store.actor::<Account>("alice").unwrap();
            let cents = account.peek(|account| account.cents).unwrap().value;
            assert!(cents >= *promised && cents <= promised + 5, "{cents} of {promised}, {end:?}");
            let sums = published(&store);
            let expected: Vec<_> = (1..=cents / 5).map(|number| number * 5).collect();
            assert_eq!(sums, expected, "{end:?}");
            // It publishes on, in a life of its own.
            assert_eq!(account.ask(Deposit(5)).unwrap(), cents + 5);
        },
    );
    assert!(crashes.points > 20, "{crashes:?}");
}

#[test]
fn no_incarnation_is_ever_taken_twice_and_a_clean_end_is_known_as_one() {
    every_crash(
        5,
        |machine, seen: &mut Vec<(u64, u64)>| {
            for _ in 0..2 {
                let Ok(store) = open(machine) else { return };
                let node = store.node().unwrap();
                if machine.has_crashed() {
                    return;
                }
                let incarnation = node.incarnation();
                seen.push((incarnation.counter, incarnation.nonce));
                node.publish(Op::key(users(), b"1")).unwrap_or_default();
                drop(store);
            }
        },
        |machine, end, seen| {
            let store = open(machine).unwrap();
            let now = store.node().unwrap().incarnation();
            for (counter, nonce) in seen {
                assert!(now.counter > *counter && now.nonce != *nonce, "{end:?}");
            }
        },
    );
}

#[test]
fn an_intent_is_open_until_somebody_says_so_whatever_crashes() {
    every_crash(
        9,
        |machine, notes: &mut (Vec<u64>, Vec<u64>)| {
            let Ok(store) = open(machine) else { return };
            let node = store.node().unwrap();
            for number in 0..3_u64 {
                let Ok(intent) = node.intent(users(), &[&number.to_le_bytes(), b"and"]) else {
                    return;
                };
                if machine.has_crashed() {
                    return;
                }
                let id = intent.id();
                notes.0.push(id);
                if number == 1 {
                    let done = intent.done();
                    if machine.heard(done).is_none() {
                        return;
                    }
                    // Process durability: a power cut may take the word back, and then it is open.
                    notes.1.push(id);
                }
            }
        },
        |machine, end, (begun, done)| {
            for _ in 0..2 {
                let store = open(machine).unwrap();
                let open = store.node().unwrap().intents();
                for id in begun {
                    let known = open.iter().find(|it| it.id == *id);
                    match known {
                        Some(it) => {
                            assert!(it.abandoned && it.keys[1] == b"and", "{it:?}");
                        }
                        None => assert!(
                            done.contains(id) || begun.get(1) == Some(id),
                            "{id} is closed though nobody said so, {end:?}"
                        ),
                    }
                }
                store.close(std::time::Duration::from_secs(30)).unwrap();
            }
            let store = open(machine).unwrap();
            for intent in store.node().unwrap().intents() {
                assert!(store.node().unwrap().resolve(intent.id).unwrap());
            }
            assert_eq!(store.node().unwrap().intents(), []);
        },
    );
}

/// What the newest life says of the one before it.
fn birth(store: &annals::Store) -> annals::sync::fact::Birth {
    use annals::log::Limit;
    use annals::log::frame::RecordKind;
    use annals::sync::fact::Birth;
    use annals::sync::token::Token;
    let mut frames = store.log().frames(0, Limit::Written).unwrap();
    let mut newest = None;
    while let Some(frame) = frames.next().unwrap() {
        for record in frame.records().flatten().filter(|it| it.kind == RecordKind::Token) {
            let token = Token::parse(record.payload).unwrap();
            if token.kind == TokenKind::Birth {
                newest = Birth::decode(token.body);
            }
        }
    }
    newest.unwrap()
}

#[test]
fn a_life_vouches_for_the_one_before_it_after_a_close_and_a_kill_and_not_after_a_power_cut() {
    use annals::sync::fact::Clean;
    use annals::testkit::End;
    for (closed, end, expected) in [
        (true, End::Kill, Clean::Whole),
        (true, End::PowerCutLosingAll, Clean::Whole),
        (false, End::Kill, Clean::Inside),
        (false, End::PowerCut, Clean::Not),
        (false, End::PowerCutLosingAll, Clean::Not),
    ] {
        let machine = Machine::new(4);
        let store = open(&machine).unwrap();
        assert_eq!(birth(&store).clean, Clean::Not, "nothing is known of a first life");
        assert_eq!(birth(&store).previous, None);
        let node = std::sync::Arc::clone(store.node().unwrap());
        for number in 0..5_u64 {
            node.publish(Op::key(users(), &number.to_le_bytes())).unwrap();
        }
        let (incarnation, head) = (node.incarnation(), node.status().head);
        drop(node);
        let after = if closed {
            store.close(std::time::Duration::from_secs(30)).unwrap();
            machine.after(end)
        } else {
            let after = machine.after(end);
            drop(store);
            after
        };
        let store = open(&after).unwrap();
        let birth = birth(&store);
        assert_eq!(birth.clean, expected, "{end:?}, closed: {closed}");
        let (before, marks) = birth.previous.unwrap();
        if expected != Clean::Not {
            assert_eq!((before, marks.tokens.seq), (incarnation, head), "{end:?}");
        }
    }
}
