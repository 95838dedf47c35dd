//! Where the simulated disk's decisions come from: a seed, a rule, or all of them in turn.

/// A small generator of numbers (splitmix64): the same seed, the same numbers, on any machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins anew from a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `0..bound`; 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        let bits = crate::types::to_usize(self.bits());
        bits.checked_rem(bound).unwrap_or(0)
    }

    /// True once in `times` calls on average.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// Decides what a power cut keeps.
pub(super) trait Choose {
    /// What follows belongs together: one file's sectors, one directory's names.
    fn group(&mut self) {}

    /// A number in `0..options`: 0 is the oldest state there is, `options - 1` the newest.
    fn pick(&mut self, options: usize) -> usize;
}

/// Nothing that was not synced is kept.
#[derive(Debug)]
pub(super) struct Oldest;

impl Choose for Oldest {
    fn pick(&mut self, _options: usize) -> usize {
        0
    }
}

/// By seed. Plain coin flips would hardly ever keep all or nothing of a large file, which are
/// the commonest of outcomes in reality: so a bias is drawn first, for all or group by group.
#[derive(Debug)]
pub(super) struct Seeded {
    random: Random,
    bias: Bias,
    each_group: bool,
}

#[derive(Copy, Clone, Debug)]
enum Bias {
    Oldest,
    MostlyOld,
    Even,
    MostlyNew,
    Newest,
}

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let each_group = random.once_in(2);
        Self { bias: Bias::draw(&mut random), random, each_group }
    }
}

impl Bias {
    fn draw(random: &mut Random) -> Self {
        match random.below(8) {
            0 => Self::Oldest,
            1 => Self::Newest,
            2 | 3 => Self::MostlyOld,
            4 | 5 => Self::MostlyNew,
            _ => Self::Even,
        }
    }
}

impl Choose for Seeded {
    fn group(&mut self) {
        if self.each_group {
            self.bias = Bias::draw(&mut self.random);
        }
    }

    fn pick(&mut self, options: usize) -> usize {
        let newest = options.saturating_sub(1);
        let any = self.random.below(options);
        let rarely = self.random.once_in(8);
        match self.bias {
            Bias::Even => any,
            Bias::MostlyOld | Bias::MostlyNew if rarely => any,
            Bias::Oldest | Bias::MostlyOld => 0,
            Bias::Newest | Bias::MostlyNew => newest,
        }
    }
}

/// All combinations, one after the other, like the wheels of an odometer. What can be chosen
/// later may depend on what was chosen earlier.
#[derive(Clone, Debug, Default)]
pub(super) struct Odometer {
    /// What was chosen, of how many.
    wheels: Vec<(usize, usize)>,
    at: usize,
}

impl Odometer {
    /// On to the next combination; false after the last.
    pub(super) fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((chosen, options)) = self.wheels.pop() {
            if chosen + 1 < options {
                self.wheels.push((chosen + 1, options));
                return true;
            }
        }
        false
    }
}

impl Choose for Odometer {
    fn pick(&mut self, options: usize) -> usize {
        let at = self.at;
        self.at += 1;
        if self.wheels.len() == at {
            self.wheels.push((0, options));
        }
        self.wheels.get(at).map_or(0, |(chosen, _)| *chosen)
    }
}
