//! Planted bugs: mistakes that a shell around the engine, or a disk, could make. The simulator must find each of them,
//! or its checks prove nothing.
//!
//! They sit at the boundary, in the simulator's own shells: the engine that is simulated is the one that is shipped.

/// Declares the bugs with the names they have on the command line.
macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// A planted bug.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Bug { $($(#[doc = $doc])* $variant,)* }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it does.
            #[must_use]
            pub const fn story(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)*),)* }
            }
        }
    };
}

bugs! {
    /// The gateway sends a payment before the ledger has the intent.
    IntentUnrecorded = "intent-unrecorded",
    /// The gateway forgets unacknowledged completions when it reconnects.
    CompletionsDropped = "completions-dropped",
    /// The aggregator lets answers go before the journal's write has ended.
    AnswersBeforeWrite = "answers-before-write",
    /// A killed aggregator loses what was written last, as if the page cache died with it.
    CrashLosesTail = "crash-loses-tail",
    /// A start does not sync what it has read.
    RecoveredUnsynced = "recovered-unsynced",
    /// One journal entry in fifty is not written.
    EntryDropped = "entry-dropped",
    /// A snapshot claims the moment at which it was done, not the one at which it was begun.
    SnapshotLate = "snapshot-late",
    /// The journal writes each processed payment twice.
    CountTwice = "count-twice",
    /// The journal's amounts go through a float, and some lose a cent.
    JournalFloat = "journal-float",
    /// A timeout counts as refused.
    TimeoutIsRefused = "timeout-is-refused",
    /// A reset counts as not sent.
    ResetIsNotSent = "reset-is-not-sent",
    /// A proxy's 502, 503 or 504 counts as the processor's 500.
    BadGatewayIsRefused = "bad-gateway-is-refused",
    /// A retry is stamped with the present time.
    RetryRestamps = "retry-restamps",
    /// A retry goes to the other processor.
    RetrySwitches = "retry-switches",
    /// The HTTP client repeats a broken request by itself and reports the second answer alone.
    RetryHidesDoubt = "retry-hides-doubt",
    /// A closed connection does not reach the coordinator.
    HandOverForgotten = "hand-over-forgotten",
    /// An attempt is recorded whatever the payment's deadline.
    DeadlineMissed = "deadline-missed",
    /// What a dead gateway had on its way counts as refused.
    DeathIsRefusal = "death-is-refusal",
    /// The gateway never says that it is ready.
    ReadyForgotten = "ready-forgotten",
    /// The gateway ignores withdrawals.
    WithdrawalIgnored = "withdrawal-ignored",
    /// Answers that waited for the journal go to whoever has the connection's number by then.
    WrongSession = "wrong-session",
    /// A POST that the ledger did not answer is answered 202.
    UnreachableIsAccepted = "unreachable-is-accepted",
    /// A lease goes to every gateway.
    LeaseToAll = "lease-to-all",
    /// A gateway asks twice for a processor's health on one lease.
    CheckTwice = "check-twice",
    /// A summary leaves out its last millisecond.
    SummaryExclusive = "summary-exclusive",
    /// The decisions in a look-up's answer are those of the payment that was asked for before.
    HistoryOfAnother = "history-of-another",
    /// The lookup of a 422 takes the clock's time for the stored one.
    LookupRestamps = "lookup-restamps",
    /// The aggregator handles messages with the time of its last tick.
    ClockIsStale = "clock-is-stale",
    /// The journal's headers say that 40 ids are remembered, however many are.
    RetentionMisstated = "retention-misstated",
    /// A gateway that is asked for what it has not said answers before it says it.
    FlushedTooEarly = "flushed-too-early",
    /// Summaries from rolled-up time say that they are exact.
    ResolutionHidden = "resolution-hidden",
    /// The aggregator tells connections of one gateway apart by nothing: all answers go to its first thread.
    ThreadsConfused = "threads-confused",
    /// A new payment with a known id is granted whatever its amount: the conflict is answered as a replay.
    ConflictIsReplay = "conflict-is-replay",
    /// What belongs to a payment does not go along when it is handed to another gateway.
    MembersLeftBehind = "members-left-behind",
    /// The first decline ends a payment.
    OneDeclineIsFinal = "one-decline-is-final",
    /// Whoever says that it has an id has processed it.
    DuplicateIsProcessed = "duplicate-is-processed",
    /// A look-up does not say how much was stored.
    LookupHidesAmount = "lookup-hides-amount",
    /// A payment that a processor takes for later counts as processed.
    PendingIsProcessed = "pending-is-processed",
    /// A look-up that finds nothing proves something at once.
    AbsentTooEarly = "absent-too-early",
    /// An attempt is sent again after its processor has forgotten the key.
    KeysForEver = "keys-for-ever",
    /// An attempt that was given up is sent again at once, although its processor charges the same request twice at the same time.
    GivenUpSentAgain = "given-up-sent-again",
    /// When to come back is not read.
    RetryAfterIgnored = "retry-after-ignored",
    /// A payment's own refusal is read as one that asks to be left alone for a while.
    RefusalRests = "refusal-rests",
    /// A name's new address is another processor's, and its books are believed.
    AddressOfAnother = "address-of-another",
    /// What a processor has since before its id was forgotten is booked once more.
    ComebackBooked = "comeback-booked",
    /// A notification is believed without a look-up.
    NotificationBelieved = "notification-believed",
    /// A gateway does not hand on what the ledger has heard from a processor.
    NotificationDropped = "notification-dropped",
    /// Each thread takes all gateways' rate for its own.
    RateUnshared = "rate-unshared",
    /// The HTTP client repeats a look-up that found nobody by itself, whatever the rate.
    LookupRepeats = "lookup-repeats",
    /// No patience ends.
    PatienceForgotten = "patience-forgotten",
    /// A start of the aggregator makes the admission table anew, whatever is in it.
    TableForgotten = "table-forgotten",
    /// The table is told that the journal has what it has not written yet.
    TableAhead = "table-ahead",
    /// What a gateway granted goes with its process.
    TableDiesWithOwner = "table-dies-with-owner",
}
