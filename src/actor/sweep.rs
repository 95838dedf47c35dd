//! The keeper: lets states leave memory that nobody has used for a while.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::runtime::{Gate, Shared};
use super::worker::survive;

/// Unit of the coarse time that cells are stamped with, in milliseconds: 32 bits last 8 years.
pub(crate) const TICK_MS: u64 = 64;

/// Looks around at least, and at most, that often.
const PERIOD_MIN: Duration = Duration::from_millis(50);
const PERIOD_MAX: Duration = Duration::from_secs(30);

/// What the keeper is called for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// More states are in memory than should be.
    Crowded,
    Stop,
}

/// Until it is told to stop.
pub(crate) fn keep(shared: &Arc<Shared>, calls: &Receiver<Call>) {
    while shared.gate() != Gate::Closed {
        match calls.recv_timeout(period(shared)) {
            Ok(Call::Crowded) => survive(|| relieve(shared)),
            Ok(Call::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => survive(|| sweep(shared)),
        }
    }
}

/// An eighth of the shortest idle time.
fn period(shared: &Shared) -> Duration {
    let own = shared.each_kind().iter().filter_map(|kind| kind.idle_ms()).min();
    let own = own.map_or(Duration::MAX, Duration::from_millis);
    (own.min(shared.options.idle) / 8).clamp(PERIOD_MIN, PERIOD_MAX)
}

/// Passivates what has been idle for long, then what is too much.
pub(crate) fn sweep(shared: &Arc<Shared>) {
    let now = shared.advance_tick();
    let default = u64::try_from(shared.options.idle.as_millis()).unwrap_or(u64::MAX);
    for kind in shared.each_kind() {
        let idle = kind.idle_ms().unwrap_or(default).div_ceil(TICK_MS);
        let idle = u32::try_from(idle).unwrap_or(u32::MAX);
        kind.sweep(now.saturating_sub(idle), &|| true);
    }
    relieve(shared);
}

/// Passivates the states unused for longest until there are a sixteenth less than may be, in
/// number and in bytes.
fn relieve(shared: &Arc<Shared>) {
    shared.advance_tick();
    let (max, bytes_max) = (shared.options.residents_max, shared.weights.bytes_max());
    if shared.residents() <= max && shared.weights.bytes() <= bytes_max {
        return;
    }
    let (target, bytes_target) = (max - max / 16, bytes_max - bytes_max / 16);
    let kinds = shared.each_kind();
    let mut used = Vec::new();
    for kind in &kinds {
        kind.used(&mut used);
    }
    used.retain(|(tick, _)| *tick != 0);
    let surplus = used.len().saturating_sub(target);
    let bytes_surplus = shared.weights.bytes().saturating_sub(bytes_target);
    let Some(tick) = last_to_leave(&mut used, surplus, bytes_surplus) else { return };
    let too_much = || shared.residents() > target || shared.weights.bytes() > bytes_target;
    for kind in kinds {
        kind.sweep(tick, &too_much);
    }
}

/// The last use of those that leave, if `surplus` of them do and at least `bytes_surplus`.
fn last_to_leave(used: &mut [(u32, u64)], surplus: usize, bytes_surplus: u64) -> Option<u32> {
    if bytes_surplus == 0 {
        let (_, (tick, _), _) = used.select_nth_unstable(surplus.checked_sub(1)?);
        return Some(*tick);
    }
    used.sort_unstable();
    let mut bytes = 0;
    let mut last = None;
    for (number, (tick, weight)) in used.iter().enumerate() {
        if number >= surplus && bytes >= bytes_surplus {
            break;
        }
        bytes += weight;
        last = Some(*tick);
    }
    last
}
