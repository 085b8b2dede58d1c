//! Calls between our processes: channels over mutual TLS, and the signed token that says for whom a call is made.
//!
//! A gateway wraps a channel in [`SignedChannel`] and builds requests with [`call_as`]; the server puts [`CallerLayer`] (for
//! calls made for tenants) or [`RequireRole`] (for calls a process makes for itself) around its services.

mod caller;
mod channel;
mod layer;
mod role;
mod signed;
mod token;

pub use caller::CallerClaims;
pub use channel::{CALL_MAX, internal_channel};
pub use layer::{CallerLayer, CallerService};
pub use role::{RequireRole, RoleService};
pub use signed::{SignedChannel, call_as};
pub use token::{CALLER_KEY, CLOCK_SKEW_MAX, CallerSigner, CallerVerifier, TOKEN_LIFE, TokenError};
