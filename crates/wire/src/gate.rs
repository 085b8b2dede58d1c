//! A bounded set of numbered lanes that is shared fairly: whoever asks for much waits behind those who ask for little.
//!
//! Callers name a share (a tenant). Freed lanes go round the shares that wait, so one share's queue never delays
//! another's by more than one turn each.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::{Error, Result};

/// Callers waiting at one gate; beyond it they are refused at once.
const WAITING_MAX: usize = 20_000;

/// Lanes `0..lanes`.
pub(crate) struct Gate(Mutex<State>);

struct State {
    /// Taken from the end, so low numbers are used most and few connections serve few callers.
    free: Vec<u32>,
    waiting: HashMap<u64, VecDeque<oneshot::Sender<Pass>>>,
    /// Shares that wait, the next one first.
    turns: VecDeque<u64>,
    waiting_count: usize,
}

/// The right to use a lane; dropping it lets the next one in.
pub(crate) struct Pass {
    gate: Arc<Gate>,
    pub(crate) lane: u32,
}

impl Gate {
    pub(crate) fn new(lanes: u32) -> Arc<Self> {
        let free = (0..lanes).rev().collect();
        let state = State { free, waiting: HashMap::new(), turns: VecDeque::new(), waiting_count: 0 };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Waits for a lane. Giving up the wait is safe at any point.
    pub(crate) async fn enter(self: &Arc<Self>, share: u64) -> Result<Pass> {
        let turn = {
            let mut state = self.0.lock();
            if let Some(lane) = state.free.pop() {
                return Ok(Pass { gate: Arc::clone(self), lane });
            }
            if state.waiting_count >= WAITING_MAX {
                return Err(Error::Busy);
            }
            state.enqueue(share)
        };
        turn.await.map_err(|_| Error::Busy)
    }

    fn leave(self: &Arc<Self>, lane: u32) {
        loop {
            let Some(next) = self.0.lock().next_or_free(lane) else { return };
            // A caller that went away between the check and here gives its pass back by dropping it.
            if !next.is_closed() {
                let _given_back_if_gone = next.send(Pass { gate: Arc::clone(self), lane });
                return;
            }
        }
    }
}

impl State {
    fn enqueue(&mut self, share: u64) -> oneshot::Receiver<Pass> {
        let (pass, turn) = oneshot::channel();
        let queue = self.waiting.entry(share).or_default();
        if queue.is_empty() {
            self.turns.push_back(share);
        }
        queue.push_back(pass);
        self.waiting_count += 1;
        turn
    }

    /// The caller whose turn it is; with nobody waiting the lane becomes free.
    fn next_or_free(&mut self, lane: u32) -> Option<oneshot::Sender<Pass>> {
        let Some(share) = self.turns.pop_front() else {
            self.free.push(lane);
            return None;
        };
        let queue = self.waiting.get_mut(&share)?;
        let next = queue.pop_front();
        match queue.is_empty() {
            true => drop(self.waiting.remove(&share)),
            false => self.turns.push_back(share),
        }
        self.waiting_count -= 1;
        next
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.leave(self.lane);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_share_with_a_long_queue_does_not_hold_up_another() {
        let gate = Gate::new(1);
        let held = gate.enter(1).await.unwrap();
        let mut loud: Vec<_> = (0..100).map(|_| Box::pin(gate.enter(1))).collect();
        let mut quiet = Box::pin(gate.enter(2));
        for wait in &mut loud {
            assert!(wait.now_or_never().is_none());
        }
        assert!((&mut quiet).now_or_never().is_none());
        drop(held);
        let first_loud = (&mut loud[0]).now_or_never().expect("came first").unwrap();
        drop(first_loud);
        assert!(quiet.now_or_never().is_some(), "second turn, not the hundred-and-first");
    }

    #[tokio::test]
    async fn lanes_survive_callers_that_give_up() {
        let gate = Gate::new(2);
        let (a, b) = (gate.enter(1).await.unwrap(), gate.enter(1).await.unwrap());
        let mut given_up: Vec<_> = (0..10).map(|share| Box::pin(gate.enter(share))).collect();
        for wait in &mut given_up {
            assert!(wait.now_or_never().is_none());
        }
        drop(a);
        drop(given_up);
        drop(b);
        let again = (gate.enter(3).await.unwrap(), gate.enter(4).await.unwrap());
        assert_ne!(again.0.lane, again.1.lane);
    }
}
