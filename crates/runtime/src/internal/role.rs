//! A layer around internal gRPC services that other processes call for themselves: only peers of the named roles pass.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Layer, Service};

use super::layer::refusal;
use super::token::TokenError;
use crate::server::ConnInfo;

/// Wraps services in [`RoleService`].
#[derive(Debug, Clone, Copy)]
pub struct RequireRole(&'static [&'static str]);

impl RequireRole {
    /// Peers of these roles pass.
    pub const fn new(roles: &'static [&'static str]) -> Self {
        Self(roles)
    }
}

impl<S> Layer<S> for RequireRole {
    type Service = RoleService<S>;

    fn layer(&self, inner: S) -> RoleService<S> {
        RoleService { inner, roles: self.0 }
    }
}

/// A gRPC service for peers of some roles.
#[derive(Debug, Clone)]
pub struct RoleService<S> {
    inner: S,
    roles: &'static [&'static str],
}

impl<S: NamedService> NamedService for RoleService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for RoleService<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let peer = request.extensions().get::<ConnInfo>().and_then(|connection| connection.client.as_ref());
        match peer {
            Some(peer) if self.roles.contains(&peer.role.as_str()) => Either::Left(self.inner.call(request)),
            peer => {
                let role = peer.map_or("none", |peer| peer.role.as_str()).to_owned();
                Either::Right(ready(Ok(refusal(&TokenError::Sender(role), request.headers()))))
            }
        }
    }
}
