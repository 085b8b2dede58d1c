//! Layers around a handler, with their names.

use crate::{Answering, Inner, Middleware};

/// Layers around a handler. It is built from the inside: each layer is put around what is there.
#[derive(Clone)]
pub struct Stack<S> {
    service: S,
    /// Innermost first.
    names: Vec<&'static str>,
}

impl<S: Inner> Stack<S> {
    /// Only the handler.
    pub fn of(handler: S) -> Self {
        Self { service: handler, names: Vec::new() }
    }

    /// With `layer` around what is there.
    #[must_use]
    pub fn within<M: Middleware>(mut self, layer: M) -> Stack<Answering<(M, S)>> {
        self.names.push(M::NAME);
        Stack { service: Answering::new((layer, self.service)), names: self.names }
    }

    /// The names of the layers, outermost first.
    pub fn order(&self) -> Vec<&'static str> {
        self.names.iter().rev().copied().collect()
    }

    /// As a service.
    pub fn into_service(self) -> S {
        self.service
    }
}
