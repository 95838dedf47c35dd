//! Messages for the outside: stored with the turn that leaves them, delivered in order to whoever
//! follows their topic, and again after a crash from where a cursor was.

use std::time::Duration;

use annals::rkyv::{Archive, Deserialize, Serialize};
use annals::{Actor, Delivery, Durable, Filter, Handle, Store, Turn};

use crate::stream::options;
use crate::support::disk;

#[derive(Default)]
struct Shop;

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = annals::rkyv)]
struct Sold(u64);

impl Actor for Shop {
    type Event = Sold;
    const KIND: &'static str = "shop";
    fn apply(&mut self, _: &Sold) {}
}

#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Mail(String);
impl Durable for Mail {
    const NAME: &'static str = "mail";
}

#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
#[rkyv(crate = annals::rkyv)]
struct Bill(u64);
impl Durable for Bill {
    const NAME: &'static str = "bill";
}

struct Sell {
    number: u64,
    fails: bool,
}
impl Handle<Sell> for Shop {
    type Reply = ();
    fn handle(sell: Sell, turn: &mut Turn<'_, Self>) {
        turn.emit(Sold(sell.number));
        turn.outside("mail", &Mail(format!("sold {}", sell.number)));
        turn.outside("bills", &Bill(sell.number));
        assert!(!sell.fails, "after all not");
    }
}

fn sell(store: &Store, number: u64) {
    let shop = store.actor::<Shop>("corner").unwrap();
    shop.ask(Sell { number, fails: false }).unwrap();
    assert!(shop.ask(Sell { number: 99, fails: true }).is_err());
}

/// What is there for a cursor, and acknowledges so many of it.
fn fetch(store: &Store, acked: usize) -> Vec<(Delivery, Mail)> {
    let cursor = store.cursor("mailer").unwrap();
    let mut inbox = store.resume(Filter::outside("mail"), &cursor).unwrap();
    let mut found = Vec::new();
    while let Some(next) = inbox.next(Duration::ZERO).unwrap() {
        assert_eq!((next.kind, next.name), ("shop", "corner"));
        assert_eq!(next.message::<Bill>(), None, "another type");
        found.push((next.delivery(), next.message::<Mail>().unwrap()));
        if found.len() <= acked {
            inbox.ack().unwrap();
        }
    }
    found
}

/// Case 158, as far as the outside goes: what was not acknowledged comes again, under the same id.
#[test]
fn a_message_to_the_outside_comes_until_it_is_acknowledged_whatever_ends_a_life() {
    let disk = disk(1);
    let store = options(&disk).open("/store").unwrap();
    (1..=4).for_each(|number| sell(&store, number));
    let first = fetch(&store, 2);
    let texts: Vec<_> = first.iter().map(|(_, mail)| mail.0.as_str()).collect();
    assert_eq!(texts, ["sold 1", "sold 2", "sold 3", "sold 4"], "failed turns leave nothing");
    store.sync().unwrap();
    let disk = disk.kill();
    drop(store);
    let store = options(&disk).open("/store").unwrap();
    sell(&store, 5);
    let again = fetch(&store, 9);
    assert_eq!(again[..2], first[2..], "the same ones, with the same ids");
    assert_eq!(again[2].1, Mail("sold 5".into()));
    assert_eq!(again.len(), 3);
    assert!(fetch(&store, 0).is_empty());
}
