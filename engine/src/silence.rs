//! Whether a processor is slow, or what is sent over the connections to it vanishes.
//!
//! A story. A firewall forgets its states: packets of every connection that was open vanish, and nobody is told. Each kept connection would swallow a payment
//! for as long as an attempt may take. After a quarter of a second nothing is answered that was sent since the last answer, which is later than what
//! answers take: the silence begins, and from now on attempts go over connections that something was heard on since (the shell opens fresh ones). The next
//! payment is answered in its usual time. Those that were sent before are silent still, for as long again as answers take: they are given up, and settled over
//! other connections.
//!
//! Had the processor become slow instead, the fresh connection would have been as slow, and one of the attempts before it answered first. That ends the silence, and
//! nothing is given up.
//!
//! It must never take a refusal for the proof: a processor may be quick to say no while it is slow with what it has taken. Neither is a look-up or a
//! health check one, which many a slow processor answers at once; a check that says how long payments take only delays what is done here.
//!
//! What it cannot tell: a processor that was slow and is fast again answers new attempts before those that still sleep inside. Then these are given up, too, which
//! is why the same request goes a second time only where the processor bears that ([`DoubtPolicy`](crate::dispatcher::DoubtPolicy)).

/// The shortest silence that says anything.
const SILENCE_US: u64 = 250_000;

/// Between two rounds of fresh connections at least: with a processor whose answers grow slower and slower each answer begins another silence.
const RENEWAL_US: u64 = 1_000_000;

/// What is known of the connections to one processor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence {
    /// Since when attempts go over connections that are not suspected; of a silence that is over, too.
    renewed_us: Option<u64>,
    stage: Stage,
    /// Nobody has been told yet.
    is_renewal_due: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    /// All is well, or slow.
    #[default]
    Over,
    /// No connection is proven.
    Begun {
        /// What the processor itself says that payments take, µs.
        told_us: u64,
    },
    /// A connection that is not suspected was answered on: what is silent at this moment is given up, µs.
    Proven { due_us: u64 },
}

impl Silence {
    /// The oldest attempt of those sent since the last answered one has been awaited for so long, and answers took so long, µs.
    pub fn look(&mut self, awaited_us: u64, answered_us: u64, now_us: u64) {
        let is_late = awaited_us > SILENCE_US.max(answered_us.saturating_mul(2));
        let is_early = self.renewed_us.is_some_and(|at_us| now_us.saturating_sub(at_us) < RENEWAL_US);
        if is_late && !is_early && matches!(self.stage, Stage::Over) {
            *self =
                Self { renewed_us: Some(now_us), stage: Stage::Begun { told_us: 0 }, is_renewal_due: true };
        }
    }

    /// Whether attempts are to go over other connections from now on. Says so once.
    pub fn take_renewal(&mut self) -> bool {
        std::mem::take(&mut self.is_renewal_due)
    }

    /// Whether an attempt went over a connection that is suspected.
    #[must_use]
    pub fn is_suspected(&self, sent_us: u64) -> bool {
        self.renewed_us.is_some_and(|at_us| sent_us < at_us)
    }

    /// Whether an attempt's success would prove that other connections work.
    #[must_use]
    pub fn awaits_proof(&self) -> bool {
        matches!(self.stage, Stage::Begun { .. })
    }

    /// An attempt was answered, whatever the answer.
    pub fn answered(&mut self, sent_us: u64) {
        if self.is_suspected(sent_us) {
            self.stage = Stage::Over;
        }
    }

    /// The processor took a payment; the longest of its last answers took so long, µs.
    pub fn taken(&mut self, sent_us: u64, longest_us: u64, now_us: u64) {
        if let Stage::Begun { told_us } = self.stage
            && !self.is_suspected(sent_us)
        {
            self.stage =
                Stage::Proven { due_us: now_us.saturating_add(patience_us(longest_us.max(told_us))) };
        }
    }

    /// The processor says itself that payments take so long, µs.
    pub fn told(&mut self, response_us: u64, now_us: u64) {
        match &mut self.stage {
            Stage::Over => {}
            Stage::Begun { told_us } => *told_us = response_us.max(*told_us),
            Stage::Proven { due_us } => {
                *due_us = now_us.saturating_add(patience_us(response_us)).max(*due_us)
            }
        }
    }

    /// When what is still silent is given up, µs.
    #[must_use]
    pub const fn due_us(&self) -> Option<u64> {
        match self.stage {
            Stage::Proven { due_us } => Some(due_us),
            Stage::Over | Stage::Begun { .. } => None,
        }
    }

    /// Nothing is silent any more, or it is given up.
    pub const fn end(&mut self) {
        self.stage = Stage::Over;
    }
}

/// How long what is silent has once others were answered, µs.
fn patience_us(answer_us: u64) -> u64 {
    SILENCE_US.max(answer_us.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000;

    /// One that began at 300 ms, and has been told.
    fn begun() -> Silence {
        let mut silence = Silence::default();
        silence.look(251 * MS, MS, 300 * MS);
        assert!(silence.take_renewal() && !silence.take_renewal());
        silence
    }

    #[test]
    fn it_begins_beyond_twice_what_answers_take_and_a_quarter_of_a_second() {
        for (awaited_ms, answered_ms, begins) in
            [(250, 1, false), (251, 1, true), (999, 500, false), (1_000, 500, false), (1_001, 500, true)]
        {
            let mut silence = Silence::default();
            silence.look(awaited_ms * MS, answered_ms * MS, 5_000 * MS);
            assert_eq!(
                silence.take_renewal(),
                begins,
                "{awaited_ms} ms, where answers take {answered_ms} ms"
            );
        }
    }

    #[test]
    fn an_answer_to_a_later_attempt_proves_it_and_gives_the_others_time() {
        let mut silence = begun();
        assert!(silence.is_suspected(299 * MS) && !silence.is_suspected(300 * MS));
        silence.answered(310 * MS);
        silence.taken(310 * MS, MS, 320 * MS);
        assert_eq!(silence.due_us(), Some(570 * MS));
        silence.taken(330 * MS, MS, 340 * MS);
        assert_eq!(silence.due_us(), Some(570 * MS), "one proof is enough");
        let mut slower = begun();
        slower.taken(310 * MS, 400 * MS, 720 * MS);
        assert_eq!(slower.due_us(), Some(1_520 * MS), "twice what answers take");
    }

    #[test]
    fn an_answer_to_an_earlier_attempt_says_that_it_is_slow() {
        let mut silence = begun();
        silence.answered(40 * MS);
        silence.taken(310 * MS, MS, 320 * MS);
        assert_eq!(silence.due_us(), None);
        let mut late = begun();
        late.taken(310 * MS, MS, 320 * MS);
        late.answered(40 * MS);
        assert_eq!(late.due_us(), None, "after the proof as well");
    }

    #[test]
    fn what_the_processor_says_of_its_slowness_is_waited_for() {
        let mut silence = begun();
        silence.told(5_000 * MS, 310 * MS);
        silence.taken(310 * MS, MS, 320 * MS);
        assert_eq!(silence.due_us(), Some(10_320 * MS));
        let mut later = begun();
        later.taken(310 * MS, MS, 320 * MS);
        later.told(1_000 * MS, 400 * MS);
        assert_eq!(later.due_us(), Some(2_400 * MS));
    }

    #[test]
    fn fresh_connections_are_asked_for_once_a_second() {
        let mut silence = begun();
        silence.answered(40 * MS);
        silence.look(500 * MS, MS, 1_299 * MS);
        assert!(!silence.take_renewal());
        silence.look(500 * MS, MS, 1_300 * MS);
        assert!(silence.take_renewal());
    }
}
