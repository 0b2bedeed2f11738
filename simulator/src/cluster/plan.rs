//! What one seed decides before its run begins: how much load, which faults, how small the bounds are.
//!
//! Each seed takes part of the dangers: a run in which everything goes wrong at once hides what one fault alone does.

use galo_engine::PROCESSORS_LEN_MAX;
use galo_engine::dispatcher::DoubtPolicy;

use super::dice::Dice;
use super::manner::Manner;

/// More ids than any run has: none is forgotten.
const KNOWN_LEN_ENDLESS: usize = 1_000;

/// What the disk promises after a loss of power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sync {
    /// Synced before any answer leaves: nothing is lost.
    Always,
    /// Synced now and then: entries written since may be lost, in order from the end. Payments with an entry among
    /// them are promised nothing.
    Interval,
}

/// One run's parameters. Chances are in permille unless they say otherwise.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Gateways' processes: two, sometimes three.
    pub gateway_count: usize,
    /// Threads of each: a dispatcher and a connection of its own for each of them.
    pub thread_count: usize,
    /// No fault at all, but what processors do to single ids.
    pub calm: bool,
    /// Few places.
    pub tight: bool,
    /// Processors.
    pub processor_count: usize,
    /// What each keeps: basis points, and cents of each payment.
    pub costs: [(u32, u32); PROCESSORS_LEN_MAX],
    /// A pause in the arrivals says that the books may be closed.
    pub has_quiet: bool,
    /// A payment that one declines may go to another.
    pub declined_goes_on: bool,
    /// Payments that come with members for a processor.
    pub members: u64,
    /// Payments that processors treat in a manner of their own.
    pub poison: u64,
    /// Those manners.
    pub poisons: Vec<Manner>,
    /// Payments that a processor takes now and decides on later.
    pub pending: u64,
    /// They notify a gateway of what they have decided.
    pub notifies: bool,
    /// How many requests a second each gateway may send a processor, by its index.
    pub rates: [Option<u32>; PROCESSORS_LEN_MAX],
    /// Processors say that they take nothing for a while.
    pub limits: bool,
    /// Processors decline everything for a while.
    pub decliners: bool,
    /// When the faults are over, one processor stays as bad as it can be until patience is over, too.
    pub lame: bool,
    /// How long an attempt may be sent again, µs.
    pub resend_us_max: u64,
    /// See [`DoubtPolicy`].
    pub absent_after_us: u64,
    /// Likewise.
    pub lookup_every_us: u64,
    /// Processors bear the same request twice at the same time.
    pub concurrent: bool,
    /// Payments that clients send.
    pub payment_count: usize,
    /// How long load and faults last, µs.
    pub duration_us: u64,
    /// Between two payments, at most, µs.
    pub arrival_gap_us: u64,
    /// The same id again at another gateway at about the same time.
    pub duplicate: u64,
    /// That duplicate has another amount.
    pub other_amount: u64,
    /// The same id again later.
    pub repeat: u64,
    /// One way between gateway and aggregator, at most, µs.
    pub link_delay_us: u64,
    /// What was written arrives in parts.
    pub split: u64,
    /// What a gateway has to say gathers for so long at most, µs.
    pub flush_delay_us: u64,
    /// The journal's write takes so long at most, µs; 0: it is done before anything else happens.
    pub write_delay_us: u64,
    /// One way between gateway and processor, at most, µs.
    pub wire_delay_us: u64,
    /// Gateways' hard timeout, µs.
    pub attempt_timeout_us: u64,
    /// How long a POST waits, µs.
    pub accept_wait_us: u64,
    /// Payments in one gateway.
    pub queue_len_max: usize,
    /// Attempts in flight per gateway and processor.
    pub concurrency_max: u32,
    /// See the router.
    pub patience_us: u64,
    /// Open payments in the ledger.
    pub open_len_max: usize,
    /// Processed ids that the ledger remembers.
    pub known_len_max: usize,
    /// Each start of the aggregator is told another number of ids to remember.
    pub known_len_varies: bool,
    /// Memory of the time buckets, bytes.
    pub bucket_bytes_max: usize,
    /// Between health checks, µs.
    pub health_interval_us: u64,
    /// How long a restarted aggregator waits for claims, µs.
    pub claim_grace_us: u64,
    /// SIGTERM: how long attempts may finish, µs.
    pub drain_us_max: u64,
    /// A step in a million is followed by a kill.
    pub kill_per_million: u64,
    /// A gateway that has just connected sees something killed soon after: reconnects are where the windows are.
    pub spite: u64,
    /// Between two faults, at most, µs; 0: none.
    pub fault_gap_us: u64,
    /// How long a killed process stays away, at most, µs.
    pub restart_us: u64,
    /// Requests to processors that go wrong on the way.
    pub wire_fault: u64,
    /// Answers of processors that go wrong on the way.
    pub answer_fault: u64,
    /// Processors switch themselves into bad states.
    pub bad_processors: bool,
    /// Processors' names lead to other addresses.
    pub moves: bool,
    /// Connections to processors freeze.
    pub freezes: bool,
    /// Processors close kept connections as they are used.
    pub hang_ups: bool,
    /// Wall clocks are set.
    pub clock_steps: bool,
    /// Somebody purges.
    pub purges: bool,
    /// A tick of the aggregator begins a snapshot.
    pub snapshots: u64,
    /// The machine loses power, with what the disk promises then.
    pub power_loss: Option<Sync>,
}

impl Plan {
    /// Draws a plan.
    ///
    /// What was added last has chance of its own, so that other lives stay as they were.
    pub fn draw(dice: &mut Dice, extra: &mut Dice) -> Self {
        // One seed in ten has no fault but what processors do to single ids: whatever fails there is plainly wrong.
        let calm = dice.one_in(10);
        let tight = dice.one_in(8);
        let mut plan = Self::draw_rest(dice, calm, tight);
        plan.draw_processors(dice, calm, tight);
        plan.draw_extra(extra);
        plan
    }

    /// What the contest does not have.
    fn draw_processors(&mut self, dice: &mut Dice, calm: bool, tight: bool) {
        let contest = dice.one_in(3);
        if contest {
            return;
        }
        self.processor_count = dice.pick(&[2, 2, 2, 3, 3, 4]);
        // Each has its share, and as much as it needs.
        self.bucket_bytes_max = self.bucket_bytes_max.max(self.processor_count * (3 << 10));
        for cost in self.costs.iter_mut().skip(usize::from(dice.one_in(2))) {
            *cost = (dice.pick(&[0, 100, 500, 1_500, 3_000]), dice.pick(&[0, 0, 10, 50]));
        }
        self.has_quiet = dice.one_in(2);
        self.members = dice.pick(&[0, 300, 1_000]);
        self.declined_goes_on = !dice.one_in(4);
        // A queue of a few places is full of those that processors refuse before long.
        self.poison = if tight { 0 } else { dice.pick(&[0, 0, 20, 100, 300]) };
        let kinds: &[&[Manner]] = &[
            &[Manner::Refuses],
            &[Manner::Declines],
            &[Manner::Phantom],
            &[Manner::Refuses, Manner::Declines],
            &[Manner::Declines, Manner::Phantom, Manner::Misreads],
        ];
        self.poisons = dice.pick(kinds).to_vec();
        self.pending = if tight { 0 } else { dice.pick(&[0, 0, 0, 50, 500]) };
        self.limits = dice.one_in(3);
        self.decliners = !tight && dice.one_in(6);
        self.lame = !calm && !tight && dice.one_in(3);
        self.lookup_every_us = dice.pick(&[50_000, 1_000_000]);
        self.concurrent = dice.one_in(2);
        if dice.one_in(4) {
            self.resend_us_max = dice.pick(&[0, 200_000, 2_000_000]);
        }
        // What never arrived is settled within a life's end by nothing but a look-up.
        let declines = self.poison > 0 || self.decliners || self.lame || self.pending > 0;
        if self.resend_us_max != u64::MAX || declines || dice.one_in(4) {
            self.absent_after_us = self.request_us_max() + 1_000_000;
        }
    }

    /// Some processor limits requests a second.
    pub fn has_rates(&self) -> bool {
        self.rates.iter().any(Option::is_some)
    }

    fn draw_extra(&mut self, extra: &mut Dice) {
        self.notifies = self.pending > 0 && extra.one_in(2);
        if extra.one_in(4) {
            let all = extra.one_in(2);
            for rate in &mut self.rates[..self.processor_count] {
                let per_second = extra.pick(&[20, 50, 200]);
                *rate = (all || extra.one_in(2)).then_some(per_second);
            }
        }
    }

    fn draw_rest(dice: &mut Dice, calm: bool, tight: bool) -> Self {
        let rough = |dice: &mut Dice, list: &[u64]| if calm { 0 } else { dice.pick(list) };
        let duration_us = dice.between(500_000, 6_000_000);
        let payment_count = dice.index(240) + 10;
        let arrival_gap_us = 2 * duration_us / payment_count as u64;
        let mut costs = [(0, 0); PROCESSORS_LEN_MAX];
        (costs[0], costs[1]) = ((500, 0), (1_500, 0));
        Self {
            calm,
            tight,
            processor_count: 2,
            costs,
            has_quiet: true,
            declined_goes_on: true,
            members: 0,
            poison: 0,
            poisons: Vec::new(),
            pending: 0,
            notifies: false,
            rates: [None; PROCESSORS_LEN_MAX],
            limits: false,
            decliners: false,
            lame: false,
            resend_us_max: u64::MAX,
            absent_after_us: DoubtPolicy::CONTEST.absent_after_us,
            lookup_every_us: DoubtPolicy::CONTEST.lookup_every_us,
            concurrent: true,
            gateway_count: if dice.one_in(8) { 3 } else { 2 },
            thread_count: if dice.one_in(4) { dice.pick(&[2, 2, 3]) } else { 1 },
            payment_count,
            duration_us,
            arrival_gap_us: arrival_gap_us / dice.pick(&[1, 1, 2, 10]),
            duplicate: dice.pick(&[0, 20, 100, 300]),
            other_amount: dice.pick(&[0, 100, 500]),
            repeat: dice.pick(&[0, 20, 100]),
            link_delay_us: dice.pick(&[50, 200, 2_000, 20_000, 200_000]),
            split: dice.pick(&[0, 50, 300, 700]),
            flush_delay_us: dice.pick(&[0, 50, 500, 5_000]),
            write_delay_us: dice.pick(&[0, 0, 100, 2_000, 30_000, 300_000]),
            wire_delay_us: dice.pick(&[200, 2_000, 20_000]),
            attempt_timeout_us: dice.pick(&[300_000, 1_000_000, 6_000_000]),
            accept_wait_us: dice.pick(&[50_000, 300_000, 1_000_000]),
            queue_len_max: if tight { dice.index(20) + 2 } else { 10_000 },
            concurrency_max: if tight { dice.pick(&[1, 2, 5]) } else { dice.pick(&[8, 64, 400]) },
            patience_us: dice.pick(&[0, 100_000, 2_000_000]),
            open_len_max: if tight && dice.one_in(2) { dice.index(40) + 2 } else { 1_000 },
            known_len_max: if dice.one_in(4) { dice.index(60) + 1 } else { KNOWN_LEN_ENDLESS },
            known_len_varies: dice.one_in(16),
            bucket_bytes_max: dice.pick(&[6 << 10, 8 << 10, 2 << 20, 2 << 20]),
            health_interval_us: dice.pick(&[500_000, 1_000_000, 5_000_000]),
            claim_grace_us: dice.pick(&[0, 50_000, 500_000]),
            drain_us_max: dice.pick(&[1_000, 100_000, 2_000_000]),
            kill_per_million: rough(dice, &[0, 0, 200, 1_000, 4_000]),
            spite: rough(dice, &[0, 0, 100, 500]),
            fault_gap_us: rough(dice, &[0, 100_000, 500_000, 500_000, 2_000_000]),
            restart_us: dice.pick(&[1_000, 50_000, 500_000, 2_000_000]),
            wire_fault: rough(dice, &[0, 5, 30, 150]),
            answer_fault: rough(dice, &[0, 5, 30, 150]),
            bad_processors: !calm && dice.one_in(2),
            moves: !calm && dice.one_in(2),
            freezes: !calm && dice.one_in(2),
            hang_ups: dice.one_in(2),
            clock_steps: !calm && dice.one_in(4),
            purges: dice.one_in(25),
            snapshots: dice.pick(&[0, 20, 300]),
            power_loss: (!calm && dice.one_in(12)).then(|| dice.pick(&[Sync::Always, Sync::Interval])),
        }
    }
}
