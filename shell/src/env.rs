//! Configuration from environment variables, read once at start.
//!
//! A bad value stops the start with one line that names the variable, its value and what was expected. An empty value
//! counts as absent, as in a compose file's `NAME: ${NAME:-}`.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// Why the configuration cannot be used: one line for the operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name}={value:?}: expected {expected}")]
pub struct EnvError {
    /// The variable.
    pub name: &'static str,
    /// What it says.
    pub value: String,
    /// What it should say.
    pub expected: String,
}

type Lookup = dyn Fn(&str) -> Option<String>;

/// A source of variables: the process's environment, or a test's.
pub struct Env {
    get: Box<Lookup>,
}

impl Env {
    /// The environment of this process. A value that is not UTF-8 is taken with replacement characters, and so is
    /// refused by whoever reads it.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            get: Box::new(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())),
        }
    }

    /// A fixed list, for tests.
    #[must_use]
    pub fn of_list(list: &'static [(&'static str, &'static str)]) -> Self {
        Self {
            get: Box::new(|wanted| {
                list.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
            }),
        }
    }

    /// The value of a variable, if it has one.
    #[must_use]
    pub fn text(&self, name: &'static str) -> Option<String> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    /// Reads a value by `read`, or takes the default.
    ///
    /// # Errors
    /// If `read` refuses the value; it says what was expected.
    pub fn read<T>(
        &self,
        name: &'static str,
        default: T,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, EnvError> {
        match self.text(name) {
            None => Ok(default),
            Some(value) => read(&value).map_err(|expected| EnvError { name, value, expected }),
        }
    }

    /// Reads a whole number.
    ///
    /// # Errors
    /// If it is none, or out of range.
    pub fn number<T>(&self, name: &'static str, default: T, range: RangeInclusive<T>) -> Result<T, EnvError>
    where
        T: std::str::FromStr + PartialOrd + Display,
    {
        self.read(name, default, |value| {
            value
                .parse()
                .ok()
                .filter(|number| range.contains(number))
                .ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn flag(&self, name: &'static str, default: bool) -> Result<bool, EnvError> {
        self.read(name, default, |value| match value {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("true or false".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_names_variable_value_and_expectation() {
        let env = Env::of_list(&[("THREADS", "many"), ("ALLOWED", "yes"), ("EMPTY", "")]);
        let error = env.number("THREADS", 1_u16, 1..=64).expect_err("not a number");
        assert_eq!(error.to_string(), r#"THREADS="many": expected a whole number from 1 to 64"#);
        let error = env.flag("ALLOWED", false).expect_err("not a flag");
        assert_eq!(error.to_string(), r#"ALLOWED="yes": expected true or false"#);
        assert_eq!(env.number("EMPTY", 7_u16, 1..=64), Ok(7));
        assert_eq!(env.number("ABSENT", 8_u16, 1..=64), Ok(8));
    }
}
