//! Clients, and HAProxy between them and the gateways.
//!
//! HAProxy sends a POST to one gateway and, where that one is not there, dies before it answers or says 503, to another
//! one, as its `retry-on conn-failure empty-response 503` does. Clients send the same id again: at the same time elsewhere, later, or
//! because nobody answered, and sometimes with another amount.

use galo_engine::dispatcher::Answer;
use galo_engine::money::AmountCents;

use super::manner::{self, Manners};
use super::oracle::texts::MEMBERS_LEN;
use super::world::{Event, World};

/// A POST of a payment on its way.
#[derive(Clone, Copy, Debug)]
pub struct Post {
    /// Which.
    pub payment: usize,
    amount_cents: u64,
    /// Of which kind.
    pub members: u8,
    /// The process that it is sent to.
    gateway: usize,
    /// Which of the id's POSTs at gateways it is, once it is at one.
    visit: usize,
    /// How often HAProxy tries another gateway.
    retries_left: u8,
    /// How often the client comes back after a 503.
    returns_left: u8,
}

impl Post {
    /// How much.
    pub fn amount(&self) -> AmountCents {
        AmountCents::new(self.amount_cents).expect("clients send valid amounts")
    }
}

impl World {
    pub(super) fn arrive(&mut self) {
        if !self.troubled || self.oracle.len() == self.plan.payment_count {
            return;
        }
        let gap_us = self.dice.skewed(self.plan.arrival_gap_us);
        self.after(gap_us, Event::Arrive);
        let payment = self.oracle.invent(&mut self.dice);
        let manners = manner::draw(&self.plan, &mut self.dice);
        self.manners.push(manners);
        self.poisoned.push(manners != Manners::default());
        self.coverage.payments += 1;
        let amount_cents = self.dice.pick(&[1, 1_990, 3_333]) + self.dice.skewed(10_000_000);
        let members = self.draw_members(0);
        let gateway = self.any_process();
        self.send_post(payment, amount_cents, members, gateway, 0);
        if self.dice.chance(self.plan.duplicate) {
            let other = (gateway + 1) % self.plan.gateway_count;
            let amount_cents = self.maybe_another(amount_cents);
            let delay_us = if self.dice.one_in(2) { 0 } else { self.dice.skewed(5_000) };
            let members = self.draw_members(members);
            self.send_post(payment, amount_cents, members, other, delay_us);
        }
        if self.dice.chance(self.plan.repeat) {
            let gateway = self.any_process();
            let amount_cents = self.maybe_another(amount_cents);
            let delay_us = self.dice.skewed(self.plan.duration_us);
            let members = self.draw_members(members);
            self.send_post(payment, amount_cents, members, gateway, delay_us);
        }
    }

    /// Ordinary payments, when the load is over: what a processor declined may wait to see that it takes others.
    pub(super) fn arrive_late(&mut self) {
        for gateway in 0..self.plan.gateway_count {
            for _ in 0..self.plan.thread_count {
                let payment = self.oracle.invent(&mut self.dice);
                self.manners.push(Manners::default());
                // None that would wait for others in its turn.
                self.poisoned.push(true);
                self.coverage.payments += 1;
                self.send_post(payment, 1_990, 0, gateway, 0);
            }
        }
    }

    fn maybe_another(&mut self, amount_cents: u64) -> u64 {
        amount_cents + u64::from(self.dice.chance(self.plan.other_amount))
    }

    /// Members of the first POST, whose are 0 before, or of the same id again: now and then others.
    fn draw_members(&mut self, before: u8) -> u8 {
        let chance = if before == 0 { self.plan.members } else { self.plan.other_amount };
        if !self.dice.chance(chance) {
            return before;
        }
        u8::try_from(self.dice.index(usize::from(MEMBERS_LEN))).expect("a few")
    }

    fn send_post(&mut self, payment: usize, amount_cents: u64, members: u8, gateway: usize, delay_us: u64) {
        let returns_left = self.dice.pick(&[0, 0, 1, 3]);
        let retries_left = self.dice.pick(&[0, 2, 3]);
        self.posts_pending += 1;
        self.oracle.client_sent(payment, amount_cents);
        self.after(
            delay_us,
            Event::Post(Post {
                payment,
                amount_cents,
                members,
                gateway,
                visit: 0,
                retries_left,
                returns_left,
            }),
        );
    }

    pub(super) fn post(&mut self, post: Post) {
        self.trace(|| format!("POST {} at gateway {}", self.oracle.id(post.payment), post.gateway));
        let thread = self.thread_that_accepts(post.gateway);
        if self.gateways[thread].listening {
            let visit = self.oracle.posted(post.payment, post.amount_cents, post.members);
            self.gateway_posted(thread, Post { visit, ..post });
        } else {
            self.unanswered(post);
        }
    }

    /// The gateway was not there, went away, or said 503.
    pub(super) fn unanswered(&mut self, post: Post) {
        let mut post = post;
        post.gateway = (post.gateway + 1) % self.plan.gateway_count;
        if post.retries_left > 0 {
            post.retries_left -= 1;
            let delay_us = self.dice.skewed(2_000);
            self.after(delay_us, Event::Post(post));
        } else if post.returns_left > 0 {
            post.returns_left -= 1;
            post.retries_left = 2;
            let delay_us = self.dice.skewed(1_000_000);
            self.after(delay_us, Event::Post(post));
        } else {
            self.posts_pending -= 1;
        }
    }

    pub(super) fn answered(&mut self, gateway: usize, post: Post, answer: Answer) {
        self.trace(|| {
            format!("gateway {gateway} answers the POST of {}: {answer:?}", self.oracle.id(post.payment))
        });
        self.oracle.answered((post.payment, post.visit), post.amount_cents, answer);
        match answer {
            Answer::Granted => self.posts_pending -= 1,
            Answer::Replayed => {
                self.coverage.replayed += 1;
                self.posts_pending -= 1;
            }
            Answer::Conflict => {
                self.coverage.conflicts += 1;
                self.posts_pending -= 1;
            }
            Answer::Full => {
                self.coverage.full += 1;
                self.unanswered(post);
            }
            Answer::Unreachable => {
                self.coverage.unreachable += 1;
                self.unanswered(post);
            }
        }
    }

    pub(super) fn audit(&mut self) {
        if !self.troubled {
            return;
        }
        let number = self.any_thread();
        self.ask_gateway(number);
        if let Some(coordinator) = &self.aggregator.coordinator {
            self.oracle.compare_ranges(coordinator.ledger(), &mut self.dice);
        }
        let gap_us = self.dice.between(0, self.plan.duration_us / 10);
        self.after(gap_us, Event::Audit);
    }
}
