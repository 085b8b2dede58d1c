//! Writes the HTTP dispatchers, the two-protocol servers and the forwarders of each service.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::model::{Rpc, rust_type, snake};

/// Modules `dispatch` and `serve`, and the impls of `Forward`.
pub(crate) fn write(rpcs: &[Rpc]) -> String {
    let mut services: BTreeMap<String, Vec<&Rpc>> = BTreeMap::new();
    for rpc in rpcs {
        services.entry(rpc.service()).or_default().push(rpc);
    }
    let mut out = String::from(
        "pub mod dispatch {\n    use crate::dispatch::{HttpCall, HttpError, HttpReply, not_served, unary};\n\n",
    );
    let public = || services.iter().filter(|(_, rpcs)| rpcs[0].audience != "Internal");
    for (service, rpcs) in public() {
        out.push_str(&dispatcher(service, rpcs));
    }
    out.push_str(
        "}\n\npub mod serve {\n    use crate::serve::pair;\n    use tonic::codec::CompressionEncoding::Gzip;\n\n",
    );
    for (service, _) in public() {
        out.push_str(&server(service));
    }
    out.push_str("}\n\n");
    let forwarded = |name: &str| name.starts_with("sluice.admin.") || name.starts_with("sluice.billing.");
    for (service, rpcs) in services.iter().filter(|(name, _)| forwarded(name)) {
        out.push_str(&forwarder(service, rpcs));
    }
    out
}

/// `crate::admin::v1::topic_service_server::TopicService` of `sluice.admin.v1.TopicService`.
fn server_trait(service: &str) -> String {
    let path = service.strip_prefix("sluice.").unwrap_or(service);
    let (package, name) = path.rsplit_once('.').unwrap_or(("", path));
    format!("crate::{}::{}_server::{name}", package.replace('.', "::"), snake(name))
}

fn dispatcher(service: &str, rpcs: &[&Rpc]) -> String {
    let name = snake(service.rsplit('.').next().unwrap_or(service));
    let mut arms = String::new();
    for rpc in rpcs.iter().filter(|rpc| !rpc.streaming()) {
        let method = rpc.method.name();
        let _ = writeln!(
            arms,
            "            {method:?} => unary(call, |request| service.{}(request)).await,",
            snake(method)
        );
    }
    format!(
        "    /// Serves an HTTP call of `{service}`; UNIMPLEMENTED for a route of another service.\n    \
         pub async fn dispatch_{name}_http<S: {}>(service: &S, call: HttpCall) -> Result<HttpReply, HttpError> {{\n        \
         if call.route.rpc.service != {service:?} {{\n            return Err(not_served(&call));\n        }}\n        \
         match call.route.rpc.method {{\n{arms}            _ => Err(not_served(&call)),\n        }}\n    }}\n\n",
        server_trait(service),
    )
}

/// A function that makes a service of ours one that can be served without its type.
fn server(service: &str) -> String {
    let name = snake(service.rsplit('.').next().unwrap_or(service));
    let service_trait = server_trait(service);
    format!(
        "    /// Serves `{service}` over both protocols. `message_bytes_max` bounds a request message of gRPC, after inflation.\n    \
         pub fn serve_{name}<S: {service_trait}>(service: std::sync::Arc<S>, message_bytes_max: usize) -> Box<dyn crate::serve::Served> {{\n        \
         let grpc = {service_trait}Server::from_arc(std::sync::Arc::clone(&service)).max_decoding_message_size(message_bytes_max).accept_compressed(Gzip);\n        \
         pair({service:?}, grpc, move |call| {{\n            let service = std::sync::Arc::clone(&service);\n            \
         Box::pin(async move {{ crate::dispatch::dispatch_{name}_http(&*service, call).await }})\n        }})\n    }}\n\n"
    )
}

fn forwarder(service: &str, rpcs: &[&Rpc]) -> String {
    let mut methods = String::new();
    for rpc in rpcs {
        let _ = writeln!(
            methods,
            "    async fn {}(&self, request: tonic::Request<{}>) -> Result<tonic::Response<{}>, tonic::Status> {{\n        self.call(request).await\n    }}",
            snake(rpc.method.name()),
            rust_type(&rpc.method.input()),
            rust_type(&rpc.method.output()),
        );
    }
    format!(
        "#[tonic::async_trait]\nimpl<C: crate::forward::ForwardContext> {} for crate::forward::Forward<C> {{\n{methods}}}\n\n",
        server_trait(service)
    )
}
