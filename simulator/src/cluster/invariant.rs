//! What is checked, by name, and how often it was: a check that never ran proves nothing.

/// Declares the invariants with the names that failures print.
macro_rules! invariants {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// Something that must hold in every run.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Invariant { $($(#[doc = $doc])* $variant,)* }

        impl Invariant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

invariants! {
    /// 1. Every id answered 2xx is processed in the end, or declined.
    NothingLost = "nothing lost",
    /// 2. No id is in both processors, and none is counted twice.
    NothingTwice = "nothing twice",
    /// 3. At rest ledger and processors agree on ids, cents and `requestedAt`.
    Mirror = "mirror",
    /// 4. Nothing is counted that no processor has, nothing stored that no client sent.
    NoPhantom = "no phantom",
    /// 5. accepted = processed + declined + open, in count and cents.
    Conservation = "conservation",
    /// 6. `S[a,c] = S[a,b) + S[b,c]`.
    SummariesAddUp = "summaries add up",
    /// 6. A summary is the sum of the payments processed in its range, but for those as near to its bounds as it says.
    SummaryIsTrue = "summary is true",
    /// 7. While an attempt may have been stored, its payment is tried nowhere else and with no other `requestedAt`.
    UnknownIsNotFailed = "unknown is not failed",
    /// 7. The very attempt is on disk before its first byte is sent.
    IntentBeforeByte = "intent before byte",
    /// 8. The payment is on disk before its 202.
    AcceptedIsDurable = "202 means durable",
    /// 8. No gateway holds a granted payment that the ledger has not heard of.
    ClaimIsKnown = "claim is known",
    /// 8. Nothing is granted of which every client has been told no, or will be before the grant arrives.
    RefusedIsNo = "a 503 is a no",
    /// The ids that were processed last are known, as many as were to be remembered, and no others.
    LastAreKnown = "the last ids are known",
    /// Two answers about one id agree on its amount: 202 for the ledger's, 422 for any other.
    OneAmount = "one amount per id",
    /// Each attempt carries the members with which its payment was accepted, and those are a client's.
    MembersGoAlong = "members go along",
    /// No attempt is recorded behind a client's deadline, and what ends at it is nowhere.
    DeadlineIsKept = "deadline is kept",
    /// What its processor calls a payment that was processed is known.
    ReferenceIsKept = "reference is kept",
    /// 9. Queue, places and ledger stay within their bounds.
    Bounded = "bounded",
    /// 9. At rest nothing is held: no payment, no place at a processor, no completion.
    NoLeak = "no leak",
    /// Within the bound everything open is processed once the faults are over.
    Liveness = "liveness",
    /// A summary shows what any connected gateway knew of before it was asked for.
    SummaryMissesNothing = "summary misses nothing",
    /// Leases of one processor's health check are an interval apart, whoever gets them; each is one check, made at once; and while none
    /// is held up on its way, none waits or is refused.
    OneHealthCheck = "one health check",
    /// The ledger never hears of a payment processed elsewhere than where its attempt is recorded.
    NoContradiction = "no contradiction",
    /// The admission table is never damaged.
    TableIsSound = "the table is sound",
    /// Neither side sends a record that the other one refuses.
    NoRejection = "no rejection",
    /// A look-up's history is what was decided, in order, and ends where the payment is; what it leaves out may be forgotten.
    HistoryIsTrue = "history is true",
    /// A ledger rebuilt from the disk equals the one that was lost.
    ReplayEquals = "replay equals",
    /// After a kill, at whatever byte, recovery refuses nothing.
    JournalIsReadable = "journal is readable",
    /// A payment ends declined only if whoever may take it declined it twice and took another in between; nobody has it then, and no attempt may be on its way.
    DeclineIsFinal = "decline is final",
    /// While one gateway holds a payment, a processor declines it so often at most.
    DeclinesAreFew = "declines are few",
    /// "Not there" is believed only of what is not there, and never comes.
    AbsenceIsTrue = "absence is true",
    /// No attempt is sent again when its processor may have forgotten the key.
    KeyIsAlive = "key is alive",
    /// What was given up is sent again only when its answer cannot come any more, or where its processor bears that.
    GivenUpIsAwaited = "what is given up is awaited",
    /// A gateway that was told when to come back does not come back before.
    RestIsKept = "rest is kept",
    /// Where nothing breaks, payments that some processors refuse for ever stop no other.
    NoneStopsAnother = "none stops another",
    /// No payment waits longer than its patience while another processor works and takes it.
    PatienceEnds = "patience ends",
    /// A payment stays open for good only where its processor has another amount, and that is counted.
    DisputesAreCounted = "disputes are counted",
    /// After a notification that its owner hears, a payment whose result is awaited is looked up soon.
    NotificationIsHeeded = "notification is heeded",
    /// In no second does a processor get more attempts and look-ups than its rate and the gateways' bursts allow.
    RateIsKept = "rate is kept",
    /// None of the engine's own assertions fails.
    EngineAssertion = "engine assertion",
}

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub invariant: Invariant,
    /// When, in virtual µs since the run's start.
    pub at_us: u64,
    /// What was seen.
    pub what: String,
}

/// How often each check ran, and the first that failed.
#[derive(Clone, Debug)]
pub struct Checks {
    /// By the invariant's place in [`Invariant::ALL`].
    pub counts: [u64; Invariant::COUNT],
    /// The first failure: what follows one proves nothing.
    pub failure: Option<Failure>,
}

impl Default for Checks {
    fn default() -> Self {
        Self { counts: [0; Invariant::COUNT], failure: None }
    }
}

impl Checks {
    /// Counts one check and notes its failure.
    pub fn check(&mut self, invariant: Invariant, at_us: u64, holds: bool, what: impl FnOnce() -> String) {
        self.counts[invariant as usize] += 1;
        if !holds && self.failure.is_none() {
            self.failure = Some(Failure { invariant, at_us, what: what() });
        }
    }
}
