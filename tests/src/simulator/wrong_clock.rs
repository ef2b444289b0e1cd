//! A node that begins with a clock far ahead, with no way to the others, and starts again with the
//! right time. What it stamped then is older, for everybody, than all that is stamped rightly; an
//! operator's word gives what nobody has replaced a version of now.

use slipstream_core::admin::AdminRequest;
use slipstream_core::clock::Hlc;
use slipstream_core::message::Message;
use slipstream_core::time::WallMs;

use super::plan::{Micros, SECOND};
use super::random::Random;
use super::site::BEGINNING;
use super::world::{Event, Over, World};

/// What this is drawn from besides the seed, so that all other runs stay what they were.
const WRONG_CLOCK: u64 = 0x7772_6f6e_6763_6c6b;

/// How far the clock is ahead.
pub const AHEAD_MS: i64 = 400 * 86_400_000;

/// Versions above this were stamped by a clock that was wrong by so much that they are untimely to
/// all others. No run is so long.
const LAST_RIGHT: Hlc = Hlc::at(WallMs(BEGINNING + 12 * 3_600_000));

/// What a seed draws of it.
#[derive(Debug, Clone, Copy)]
pub struct WrongClock {
    /// Whose clock it is.
    pub site: usize,
    /// How long it is wrong.
    pub length: Micros,
    /// When an operator says that it is right, after it is; none: not before everything heals.
    pub reset_after: Option<Micros>,
}

impl WrongClock {
    /// What this seed draws for so many nodes.
    pub fn draw(seed: u64, nodes: usize) -> Option<Self> {
        let mut random = Random::new(seed ^ WRONG_CLOCK);
        random.chance(80).then(|| Self {
            site: random.index(nodes),
            length: random.between(2 * SECOND, 8 * SECOND),
            reset_after: random.chance(500).then(|| random.between(SECOND, 8 * SECOND)),
        })
    }
}

/// Whether a message was stamped by a wrong clock.
pub fn is_untimely(message: &Message) -> bool {
    message.version() > LAST_RIGHT
}

/// Whether `a` is newer than `b` to everybody whose clock is right (P6).
pub fn is_newer(a: &Message, b: &Message) -> bool {
    a.is_newer_within(b, LAST_RIGHT)
}

impl World {
    /// The clock of a new site is wrong, if the seed says so.
    pub fn begin_wrong(&mut self, index: usize) {
        let Some(wrong) = self.plan.wrong_clock.filter(|wrong| wrong.site == index) else { return };
        self.sites[index].clock.ahead_ms = AHEAD_MS;
        self.say(|world| format!("{} is {AHEAD_MS} ms ahead", world.names[index]));
        self.at(wrong.length, Event::Over(Over::WrongClock(index)));
    }

    /// Whether there is no way between two places, because the clock of one is wrong.
    pub fn is_apart(&self, a: usize, b: usize) -> bool {
        a != b && [a, b].iter().any(|site| self.is_ahead(*site))
    }

    /// Whether the clock of a place is wrong now.
    pub fn is_ahead(&self, site: usize) -> bool {
        self.sites.get(site).is_some_and(|site| site.clock.ahead_ms != 0)
    }

    /// The clock is set right, and the node starts again.
    pub fn set_clock_right(&mut self, index: usize) {
        if !self.is_ahead(index) {
            return;
        }
        self.say(|world| format!("{} is right again", world.names[index]));
        self.kill(index, false);
        self.sites[index].clock.ahead_ms = 0;
        let after = self.plan.wrong_clock.and_then(|wrong| wrong.reset_after);
        if let Some(after) = after {
            self.at(after, Event::Over(Over::Doubt(index)));
        }
    }

    /// An operator says that the clock is right, if it is: of one that was wrong by design, and of
    /// one that `asks` for it.
    pub fn reset_clock(&mut self, index: usize, asks: bool) {
        let clock = &self.sites[index].clock;
        let is_right = (clock.ahead_ms, clock.jump_ms, clock.stopped_at) == (0, 0, None);
        let was_wrong = self.plan.wrong_clock.is_some_and(|wrong| wrong.site == index);
        if is_right && (was_wrong || asks) {
            self.ask(index, AdminRequest::ResetClock);
        }
    }
}
