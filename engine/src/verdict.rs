//! The end of an attempt, read in one place: a processor's ordered rules turn an answer into a [`Verdict`].
//!
//! Status codes mean different things at different processors: 422 is "I have this id" at one and "the amount is too large"
//! at the next, a 500 may or may not have stored the payment. So the meaning is configuration, one table per processor, and
//! everything else in Galo (breaker, capacity, queue, ledger) matches on the verdict. No status code is looked at anywhere
//! else.
//!
//! The rule behind the table (invariant 7): *unknown is not failed*. Only a verdict that says "nothing charged" frees a payment
//! to go to another processor, and a table that says nothing about an answer says `unknown`.
//!
//! The rules are sans-IO: a reply shows itself through [`Reply`], whoever holds its bytes.

use std::ops::RangeInclusive;

use galo_wire::Outcome;

use crate::time::UnixMillis;
use crate::timestamp;

/// What the end of an attempt says.
///
/// | verdict | charged | the payment | breaker | capacity |
/// | --- | --- | --- | --- | --- |
/// | `Processed` | yes, once | ends | success | success |
/// | `Duplicate` | perhaps, earlier | is looked up here | a probe's success; else none until the look-up says whether it is there | success |
/// | `Pending` | taken, result later | is looked up here, at intervals | success | success |
/// | `Declined` | no | may go to the next processor | none: it is about the payment; failure where no other was taken in between | success |
/// | `Unavailable` | no | may go anywhere, after a pause if it happens again | failure | neutral |
/// | `Overloaded` | no | may go anywhere | rests until the processor's own time | overload |
/// | `Unknown` | nobody knows | stays with this processor | failure | neutral |
/// | `NotSent` | no | may go anywhere | failure | neutral |
///
/// A failure of a payment that fails where others do not is none, and neither is such a payment's overload. What ends an attempt that hung leaves the capacity alone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Verdict {
    /// The processor has the payment, once.
    Processed = 0,
    /// It has this id already: what it stored is to be looked up.
    Duplicate = 1,
    /// It has taken the payment; the result comes later.
    Pending = 2,
    /// It refuses this payment for good. Nothing is charged.
    Declined = 3,
    /// It cannot take payments now, or we are wrong (credentials, path). Nothing is charged.
    Unavailable = 4,
    /// It has too much to do, and may say when to come back. Nothing is charged.
    Overloaded = 5,
    /// Nobody knows.
    Unknown = 6,
    /// No byte of the request left.
    NotSent = 7,
}

impl Verdict {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Processed,
        Self::Duplicate,
        Self::Pending,
        Self::Declined,
        Self::Unavailable,
        Self::Overloaded,
        Self::Unknown,
        Self::NotSent,
    ];

    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Its name in configuration, metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processed => "processed",
            Self::Duplicate => "duplicate",
            Self::Pending => "pending",
            Self::Declined => "declined",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Unknown => "unknown",
            Self::NotSent => "not_sent",
        }
    }

    /// The verdict with this name; `not_sent` is none that a rule may give.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name && *verdict != Self::NotSent)
    }

    /// What the ledger hears of an attempt that ended so, if its payment was not in doubt before.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Processed => Outcome::Processed,
            Self::Declined | Self::Unavailable | Self::Overloaded | Self::NotSent => Outcome::Refused,
            // Taken, or perhaps taken: it stays with this processor.
            Self::Duplicate | Self::Pending | Self::Unknown => Outcome::Unknown,
        }
    }
}

/// The end of one attempt, as the dispatcher hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// What it says.
    pub verdict: Verdict,
    /// The HTTP status, for people; 0 where there was none.
    pub status: u16,
    /// How long the processor asks to be left alone, ms; 0 where it does not say.
    pub retry_after_ms: u32,
}

impl End {
    /// No byte of the request was written: connection refused, no route, no free socket.
    pub const NOT_SENT: Self = Self { verdict: Verdict::NotSent, status: 0, retry_after_ms: 0 };

    /// A byte may have left and no whole answer came: reset, end of stream, garbage, no answer within the hard timeout.
    pub const UNANSWERED: Self = Self { verdict: Verdict::Unknown, status: 0, retry_after_ms: 0 };

    /// An answer whose verdict depends on nothing but its status.
    #[must_use]
    pub fn of_status(rules: &Rules, status: u16) -> Self {
        Self { verdict: rules.judge(&StatusAlone(status)), status, retry_after_ms: 0 }
    }
}

/// A processor's answer, as rules see it.
pub trait Reply {
    /// The HTTP status code.
    fn status(&self) -> u16;
    /// The value of the first header with this name, in any case.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// Gives `take` the text of the body's scalar at a JSON pointer (RFC 6901), and says what it says; false where there is none.
    /// A number is its digits as they stand, a string its characters, `true`, `false` and `null` themselves.
    fn member(&self, pointer: &str, take: &mut dyn FnMut(&str) -> bool) -> bool;
}

/// An answer of which only the status is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusAlone(pub u16);

impl Reply for StatusAlone {
    fn status(&self) -> u16 {
        self.0
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn member(&self, _: &str, _: &mut dyn FnMut(&str) -> bool) -> bool {
        false
    }
}

/// What a header's or a member's text must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Text {
    /// There, whatever it is.
    Any,
    /// One of these.
    OneOf(Vec<String>),
}

impl Text {
    /// Whether this text is such a one.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(texts) => texts.iter().any(|one| one == text),
        }
    }
}

/// One line of a table. Every condition that is given must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The status is in one of these ranges; none: any status.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// A header by its name.
    pub header: Option<(String, Text)>,
    /// A scalar of the body by its JSON pointer.
    pub member: Option<(String, Text)>,
    /// What it says then.
    pub verdict: Verdict,
}

impl Rule {
    /// A rule about the status alone.
    #[must_use]
    pub fn of_status(statuses: &[RangeInclusive<u16>], verdict: Verdict) -> Self {
        Self { statuses: statuses.to_vec(), header: None, member: None, verdict }
    }

    fn holds(&self, reply: &dyn Reply) -> bool {
        let status = reply.status();
        let by_status = self.statuses.is_empty() || self.statuses.iter().any(|range| range.contains(&status));
        let by_header = || match &self.header {
            None => true,
            Some((name, text)) => reply
                .header(name)
                .and_then(|value| str::from_utf8(value).ok())
                .is_some_and(|value| text.is(value.trim())),
        };
        let by_member = || match &self.member {
            None => true,
            Some((pointer, text)) => reply.member(pointer, &mut |value| text.is(value)),
        };
        by_status && by_header() && by_member()
    }
}

/// A processor's table: the first rule that holds gives the verdict, and where none does it is `unknown`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
}

impl Rules {
    /// In this order.
    #[must_use]
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// What is true of the contest's processors, checked against their source.
    ///
    /// | answer | verdict | why |
    /// | --- | --- | --- |
    /// | 2xx | processed | |
    /// | 422, 409 | duplicate | an id that is stored already is 422; whether it is, the look-up says, so a validation error's 422 books nothing |
    /// | 429 | overloaded | turned away before the insert |
    /// | 408, 425, 499 | unknown | a proxy may say so after the processor stored it |
    /// | other 4xx | unavailable | turned away before the insert; no decline, since the contest has none |
    /// | 500 | unavailable | the failure switch is read before the insert |
    /// | everything else | unknown | a proxy's 502 to 504, redirects, interim answers |
    #[must_use]
    pub fn contest() -> Self {
        Self::new(vec![
            Rule::of_status(&[200..=299], Verdict::Processed),
            Rule::of_status(&[422..=422, 409..=409], Verdict::Duplicate),
            Rule::of_status(&[429..=429], Verdict::Overloaded),
            Rule::of_status(&[408..=408, 425..=425, 499..=499], Verdict::Unknown),
            Rule::of_status(&[400..=500], Verdict::Unavailable),
        ])
    }

    /// What an answer says.
    #[must_use]
    pub fn judge(&self, reply: &dyn Reply) -> Verdict {
        self.rules.iter().find(|rule| rule.holds(reply)).map_or(Verdict::Unknown, |rule| rule.verdict)
    }

    /// Whether an answer with this status needs its body to be read before it can be judged: some rule that may hold asks for a
    /// member of it, before one that holds by the status and headers alone.
    #[must_use]
    pub fn needs_body(&self, status: u16) -> bool {
        let matching = self.rules.iter().filter(|rule| {
            rule.statuses.is_empty() || rule.statuses.iter().any(|range| range.contains(&status))
        });
        matching
            .take_while(|rule| rule.header.is_some() || rule.member.is_some())
            .any(|rule| rule.member.is_some())
    }
}

/// Reads a `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date. Returns ms, at most an hour; `None` for
/// anything else.
#[must_use]
pub fn retry_after_ms(value: &[u8], now: UnixMillis) -> Option<u32> {
    const MS_MAX: u64 = 3_600_000;
    let text = str::from_utf8(value).ok()?.trim();
    let ms = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Beyond 64 bits it is a long time.
        text.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1_000)
    } else {
        timestamp::parse_http_date(text)?.0.saturating_sub(now.0)
    };
    u32::try_from(ms.min(MS_MAX)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Page {
        status: u16,
        header: (&'static str, &'static str),
        member: (&'static str, &'static str),
    }

    impl Reply for Page {
        fn status(&self) -> u16 {
            self.status
        }

        fn header(&self, name: &str) -> Option<&[u8]> {
            name.eq_ignore_ascii_case(self.header.0).then_some(self.header.1.as_bytes())
        }

        fn member(&self, pointer: &str, take: &mut dyn FnMut(&str) -> bool) -> bool {
            pointer == self.member.0 && take(self.member.1)
        }
    }

    fn one_of(text: &str) -> Text {
        Text::OneOf(vec![text.to_owned()])
    }

    #[test]
    fn every_status_of_the_contest_is_judged_as_the_table_says() {
        let rules = Rules::contest();
        for status in 0..=u16::MAX {
            let expected = match status {
                200..=299 => Verdict::Processed,
                409 | 422 => Verdict::Duplicate,
                429 => Verdict::Overloaded,
                408 | 425 | 499 => Verdict::Unknown,
                400..=500 => Verdict::Unavailable,
                _ => Verdict::Unknown,
            };
            assert_eq!(rules.judge(&StatusAlone(status)), expected, "status {status}");
            assert!(!rules.needs_body(status));
        }
    }

    #[test]
    fn the_first_rule_that_holds_gives_the_verdict() {
        let member = |pointer: &str, text| Some((pointer.to_owned(), text));
        let rules = Rules::new(vec![
            Rule {
                member: member("/status", one_of("succeeded")),
                ..Rule::of_status(&[200..=299], Verdict::Processed)
            },
            Rule { member: member("/status", Text::Any), ..Rule::of_status(&[200..=299], Verdict::Pending) },
            Rule {
                header: Some(("Idempotent-Replayed".to_owned(), one_of("true"))),
                ..Rule::of_status(&[], Verdict::Duplicate)
            },
            Rule::of_status(&[402..=402], Verdict::Declined),
        ]);
        let judge = |status, header, member| rules.judge(&Page { status, header, member });
        let none = ("", "");
        assert_eq!(judge(200, none, ("/status", "succeeded")), Verdict::Processed);
        assert_eq!(judge(200, none, ("/status", "processing")), Verdict::Pending);
        assert_eq!(
            judge(200, none, ("/other", "succeeded")),
            Verdict::Unknown,
            "a rule that fits is missing"
        );
        assert_eq!(judge(402, none, none), Verdict::Declined);
        assert_eq!(judge(402, ("idempotent-replayed", " true "), none), Verdict::Duplicate);
        assert_eq!(judge(500, none, none), Verdict::Unknown);
        assert!(rules.needs_body(200) && !rules.needs_body(402));
    }

    #[test]
    fn only_nothing_charged_lets_a_payment_go_elsewhere() {
        for verdict in Verdict::ALL {
            let free = matches!(
                verdict,
                Verdict::Declined | Verdict::Unavailable | Verdict::Overloaded | Verdict::NotSent
            );
            assert_eq!(verdict.outcome() == Outcome::Refused, free, "{verdict:?}");
            assert_eq!(Verdict::from_name(verdict.name()).is_some(), verdict != Verdict::NotSent);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UnixMillis(1_445_412_479_000);
        for (text, expected) in [
            ("5", Some(5_000)),
            ("0", Some(0)),
            (" 120 ", Some(120_000)),
            ("99999999999999999999999", Some(3_600_000)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(1_000)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("5.5", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after_ms(text.as_bytes(), now), expected, "{text:?}");
        }
    }
}
