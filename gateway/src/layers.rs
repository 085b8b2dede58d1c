//! The request path of tenants' calls: every call goes through these layers, outermost first. The order is the design; [`ORDER`]
//! writes it down and a test holds the stack to it. The first eight are those of every listener ([`sluice_edge`]).
//!
//! | # | layer | why here |
//! |---|---|---|
//! | 1 | [`identify`](sluice_edge::identify) | everything after it logs and answers with the request id, route and trace |
//! | 2 | [`observe`](sluice_edge::observe) | sees every answer, also those of the layers below |
//! | 3 | [`rescue`](sluice_edge::rescue) | the one place where an error becomes an answer |
//! | 4 | [`catch_panic`](sluice_edge::catch_panic) | a panic is an error like others |
//! | 5 | [`admit`](sluice_edge::admit) | what is too much is refused before it costs anything |
//! | 6 | [`deadline`](sluice_edge::deadline) | all that waits, waits within it |
//! | 7 | [`body_limit`](sluice_edge::body_limit) | no layer or handler can read more |
//! | 8 | [`authenticate`](sluice_edge::authenticate) | who calls, by [`auth::api_keys`](crate::auth::api_keys) |
//! | 9 | [`tenant`] | for whom, with which limits, on which revision |
//! | 10 | [`quota`] | before the body is read |
//! | 11 | [`audit`] | sees what authorization and handlers deny |
//! | 12 | [`authorize`] | may they |

pub mod audit;
pub mod authorize;
pub mod quota;
pub mod stack;
pub mod tenant;

use sluice_edge::{Middleware, common};

/// The layers by name, outermost first.
pub const ORDER: [&str; 12] = {
    let [a, b, c, d, e, f, g, h] = common::ORDER;
    [a, b, c, d, e, f, g, h, tenant::Tenant::NAME, quota::Quota::NAME, audit::Audit::NAME, authorize::Authorize::NAME]
};
