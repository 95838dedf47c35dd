//! What is done in a world of actors that owe something: one thing at a time, by chance.

use super::*;

impl World {
    #[expect(clippy::too_many_lines, reason = "one kind of thing after the other")]
    pub(super) fn do_something(&mut self) -> String {
        self.next += 1;
        let (next, power) = (self.next, self.random.once_in(4));
        let (index, name) = self.any();
        let at = if power { "at Power" } else { "at Process" };
        match self.random.below(15) {
            0..3 => {
                let (_, to) = self.any();
                let hops = u8::try_from(self.random.below(3)).unwrap();
                let count = 1 + self.random.below(3);
                self.ask(name, power, move |turn| {
                    (0..count).for_each(|it| send(turn, to, format!("m{next}.{it}"), hops));
                });
                format!("{name} sends {to} m{next} {at}")
            }
            3..6 => {
                let name = CLERKS[2 + self.random.below(4)].0;
                let count = 1 + self.random.below(4);
                let filling = "x".repeat([0, 30, 600][self.random.below(3)]);
                for it in 0..count {
                    let kind = ["told", "told", "told", "now", "later"][self.random.below(5)];
                    let line = format!("{kind} {next}.{it} {filling}");
                    assert!(clerk(self.store(), name).tell(Told(line)).is_ok());
                }
                let (had, clerk) = (self.lines[name].len(), clerk(self.store(), name));
                wait(|| clerk.peek(|clerk| clerk.0.len()).unwrap().value >= had + count);
                format!("{name} is told {next}, {count} of {}", filling.len())
            }
            6 | 7 => {
                let (key, generation) = (format!("k{}", self.random.below(3)), next);
                let after = 1_000 * self.random.below(20) as u64;
                let every = [0, 0, 3_000, 10_000][self.random.below(4)];
                let missed = [Missed::FireOnce, Missed::FireEach, Missed::Skip];
                let missed = missed[if every == 0 { 0 } else { self.random.below(3) }];
                let what = format!("{name} arms {key} {generation} every {every} {missed:?}");
                self.ask(name, power, move |turn| {
                    let due = turn.now().millis() + after;
                    turn.emit(format!("armed {key} {generation} {due} {every} {missed:?}"));
                    let tick = Tick { key: key.clone(), generation, every };
                    let first = HybridTime::from_millis(due);
                    if every == 0 {
                        turn.wake_at(&key, first, &tick);
                    } else {
                        turn.remind(&key, (first, Duration::from_millis(every)), missed, &tick);
                    }
                });
                what
            }
            8 => {
                let key = format!("k{}", self.random.below(3));
                self.ask(name, power, move |turn| {
                    let armed = turn.cancel(&key);
                    turn.emit(format!("{} {key}", if armed { "cancelled" } else { "unarmed" }));
                });
                format!("{name} cancels {at}")
            }
            9 => {
                let by = 1 + self.random.below(20) as u64;
                let had = self.lines["interval"].len();
                self.clock.advance(Duration::from_secs(by));
                if by >= INTERVAL.as_secs() && self.files != Files::Dropped {
                    let store = self.store();
                    let appended = || store.history::<Clerk>("interval", annals::Seq::ZERO);
                    wait(|| {
                        let events = appended().unwrap();
                        events.iter().filter(|past| past.event().is_some()).count() >= had
                    });
                    self.answered("interval", had, false);
                }
                format!("{by} s pass")
            }
            10 => {
                let kind = self.random.below(3);
                let (lab, id, clerk) = (self.seed, next, index);
                self.ask(name, power, move |turn| {
                    turn.emit(format!("began {id}"));
                    let key = id.to_string();
                    match kind {
                        0 => turn.step(&key, Around { lab, id, power, clerk }),
                        1 => turn.step(&key, Before { lab, id, power, clerk }),
                        _ => turn.step(&key, After { lab, id, power, clerk }),
                    }
                });
                format!("{name} begins step {id} of kind {kind} {at}")
            }
            11 => {
                let id = CommandId(u128::from(next));
                let answer = clerk(self.store(), name).ask_once(id, Once(next)).unwrap();
                self.answers.insert(next, (name, answer));
                self.answered(name, usize::try_from(answer).unwrap(), false);
                format!("{name} is asked once {next}")
            }
            12 => {
                let (lab, id) = (self.seed, next);
                self.ask(name, power, move |turn| {
                    turn.emit(format!("after {id}"));
                    turn.after(move || probe(lab, power, name, format!("after {id}")));
                });
                format!("{name} does {id} after a turn {at}")
            }
            13 => {
                self.store().sync().unwrap();
                self.power = self.process.clone();
                "sync".to_owned()
            }
            _ => {
                let had = self.lines[name].len();
                clerk(self.store(), name).passivate().unwrap();
                self.store().log().keep();
                self.store().log().prepare_ahead();
                if matches!(self.files, Files::Compacted | Files::Dropped) {
                    self.store().compact().unwrap();
                }
                self.answered(name, had, false);
                format!("{name} is passivated; the files are kept")
            }
        }
    }
}
