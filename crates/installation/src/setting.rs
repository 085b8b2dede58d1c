//! A setting that something relies on, of a topic or of a broker.

/// A setting that something relies on. What nothing relies on is the operator's, and is not in our lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Kafka's name of it.
    pub key: &'static str,
    /// What we set.
    pub value: String,
    /// What will do.
    pub rule: Rule,
}

/// Which values will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Only the value that we set; a list in any order is the same.
    Exactly,
    /// This number or more; negative ones mean no bound.
    AtLeast(i64),
    /// From 1 to this number.
    AtMost(i64),
}

impl Setting {
    /// Only this value.
    pub fn exactly(key: &'static str, value: impl ToString) -> Self {
        Self { key, value: value.to_string(), rule: Rule::Exactly }
    }

    /// This number or more.
    pub fn at_least(key: &'static str, least: i64) -> Self {
        Self { key, value: least.to_string(), rule: Rule::AtLeast(least) }
    }

    /// This number or less.
    pub fn at_most(key: &'static str, most: i64) -> Self {
        Self { key, value: most.to_string(), rule: Rule::AtMost(most) }
    }

    /// The same, where another value than the bound is set.
    #[must_use]
    pub fn set_to(self, value: impl ToString) -> Self {
        Self { value: value.to_string(), ..self }
    }

    /// Whether this value will do. `is_set` says that it is set on the thing itself: what must be small is not left to a
    /// default, which may change.
    pub fn is_met(&self, value: Option<&str>, is_set: bool) -> bool {
        let Some(value) = value else { return false };
        let number = || value.parse::<i64>().ok();
        match self.rule {
            Rule::Exactly => sorted(value) == sorted(&self.value),
            Rule::AtLeast(least) => number().is_some_and(|number| number < 0 || number >= least),
            Rule::AtMost(most) => is_set && number().is_some_and(|number| (1..=most).contains(&number)),
        }
    }

    /// What will do, for people.
    pub fn wanted(&self) -> String {
        match self.rule {
            Rule::Exactly => self.value.clone(),
            Rule::AtLeast(least) => format!("at least {least}"),
            Rule::AtMost(most) => format!("at most {most}"),
        }
    }
}

/// A list in any order is the same.
fn sorted(list: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = list.split(',').map(str::trim).collect();
    parts.sort_unstable();
    parts
}
