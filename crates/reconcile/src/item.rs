//! What the driver must know of the things that it drives.

use std::fmt;
use std::hash::Hash;

/// One thing with its intent, as it was last read.
pub trait Item: Clone + Send + 'static {
    /// Which one it is. At most one run works on it at a time.
    type Key: Copy + Eq + Hash + fmt::Display + fmt::Debug + Send;
    /// Whose it is. Those with something to do take turns.
    type Turn: Copy + Eq + Hash + fmt::Debug + Send;
    /// Where the work is done. What hangs in one place takes no run from another.
    type Place: Copy + Ord + Hash + fmt::Display + fmt::Debug + Send;
    /// What is wanted. A pause ends when something else is.
    type Want: Copy + Eq + fmt::Debug + Send;

    /// Which one it is.
    fn key(&self) -> Self::Key;
    /// Whose it is.
    fn turn(&self) -> Self::Turn;
    /// Where the work is done.
    fn place(&self) -> Self::Place;
    /// What is wanted.
    fn want(&self) -> Self::Want;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do for this intent.
    Settled,
    /// To be tried again after a pause.
    Failed,
}
