//! Layer 12: may they, from the RPC's option in the proto.
//!
//! Data calls are decided here from the view: the layer makes the [`DataCall`] that the handler must use to reach a topic,
//! bound to the RPC's permission, and decides at once where the path already names the topic or the group. What the server is may be asked with a grant on
//! anything. Admin and usage calls are
//! forwarded; their service decides inside its transaction, so a change of roles and a call cannot race.

use std::sync::Arc;

use sluice_edge::call::Target;
use sluice_edge::{Answer, Inner, Middleware, Next, Request, call_of};
use sluice_proto::Rpc;
use sluice_runtime::server::ConnHandle;
use sluice_types::error::Error;
use sluice_types::{OpContext, role};

use crate::access::{DataCall, permission_missing};
use crate::quota::TenantLimiter;
use crate::view::View;

/// Records by position. Its calls name topics.
pub const DATA_SERVICE: &str = "sluice.stream.v1.StreamService";
/// Records by group. Its calls name groups.
pub const CONSUMER_SERVICE: &str = "sluice.stream.v1.ConsumerService";
/// What the server is. Its calls name nothing.
pub const SERVER_SERVICE: &str = "sluice.server.v1.ServerService";
/// The services whose calls are decided here.
pub(super) const DECIDED_HERE: &[&str] = &[DATA_SERVICE, CONSUMER_SERVICE, SERVER_SERVICE];

/// The layer.
pub struct Authorize {
    /// Where topics are looked up.
    pub view: Arc<View>,
}

impl Middleware for Authorize {
    const NAME: &'static str = "authorize";

    async fn handle<S: Inner>(&self, mut request: Request, next: Next<'_, S>) -> Answer {
        let call = call_of(&request)?;
        if let Some(rpc) = call.target.rpc().filter(|rpc| DECIDED_HERE.contains(&rpc.service)) {
            if rpc.service == SERVER_SERVICE {
                permit_somewhere(&request, rpc)?;
                return next.run(request).await;
            }
            let data_call = self.data_call(&request, rpc)?;
            if let (Target::Http(route), Some(field)) = (&call.target, rpc.resource_field)
                && let Some((_, name)) = route.vars.iter().find(|(var, _)| *var == field)
            {
                match rpc.service {
                    CONSUMER_SERVICE => drop(data_call.check_group(field, name)?),
                    _ => drop(data_call.check(field, name)?),
                }
            }
            request.extensions_mut().insert(Arc::new(data_call));
        }
        next.run(request).await
    }
}

/// For calls that are about no resource of the tenant.
fn permit_somewhere(request: &Request, rpc: &'static Rpc) -> Result<(), Error> {
    let context = request.extensions().get::<Arc<OpContext>>();
    match context.is_some_and(|context| role::allows_somewhere(&context.principal.grants, rpc.permission)) {
        true => Ok(()),
        false => Err(permission_missing(rpc.permission, "any resource")),
    }
}

impl Authorize {
    fn data_call(&self, request: &Request, rpc: &'static Rpc) -> Result<DataCall, Error> {
        let context = request.extensions().get::<Arc<OpContext>>().cloned();
        let limiter = request.extensions().get::<Arc<TenantLimiter>>().cloned();
        match (context, limiter) {
            (Some(context), Some(limiter)) => {
                let connection = request.extensions().get::<ConnHandle>().cloned().unwrap_or_default();
                Ok(DataCall::new(context, limiter, rpc.permission, Arc::clone(&self.view)).on(connection))
            }
            _ => Err(Error::internal("a call came to the authorization layer without a tenant")),
        }
    }
}
