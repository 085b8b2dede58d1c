//! The well-known types of `google.protobuf` that our API uses, with canonical proto3 JSON.
//!
//! Our own, because the published sets differ from the JSON mapping where clients notice (times without `Z`, field masks as
//! objects, whole numbers as `11.0`, object keys in random order).

mod any;
mod duration;
mod field_mask;
mod timestamp;
pub mod value;

pub use any::Any;
pub use duration::Duration;
pub use field_mask::FieldMask;
pub use timestamp::Timestamp;
pub use value::{ListValue, NullValue, Struct, Value};

/// `google.protobuf.Empty`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Empty {}

impl prost::Name for Empty {
    const NAME: &'static str = "Empty";
    const PACKAGE: &'static str = "google.protobuf";

    fn type_url() -> String {
        "type.googleapis.com/google.protobuf.Empty".into()
    }
}
