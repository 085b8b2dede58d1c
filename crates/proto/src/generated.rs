//! What the build script wrote, in modules named after the packages. Lints are off: nobody reads this code.
#![allow(
    clippy::all,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    unreachable_pub,
    unused_qualifications,
    rustdoc::all,
    missing_docs
)]

macro_rules! package {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
        include!(concat!(env!("OUT_DIR"), "/", $name, ".serde.rs"));
    };
}

pub mod sluice {
    pub mod stream {
        //! Publish and read.
        pub mod v1 {
            //! Package `sluice.stream.v1`.
            package!("sluice.stream.v1");
        }
    }
    pub mod admin {
        //! What a tenant manages alone.
        pub mod v1 {
            //! Package `sluice.admin.v1`.
            package!("sluice.admin.v1");
        }
    }
    pub mod operator {
        //! What the operator of an installation does.
        pub mod v1 {
            //! Package `sluice.operator.v1`.
            package!("sluice.operator.v1");
        }
    }
    pub mod billing {
        //! What a tenant used.
        pub mod v1 {
            //! Package `sluice.billing.v1`.
            package!("sluice.billing.v1");
        }
    }
    pub mod server {
        //! What the server itself is.
        pub mod v1 {
            //! Package `sluice.server.v1`.
            package!("sluice.server.v1");
        }
    }
    pub mod options {
        //! Options that our RPCs carry.
        pub mod v1 {
            //! Package `sluice.options.v1`.
            package!("sluice.options.v1");
        }
    }
    pub mod internal {
        //! Contracts between our own processes.
        pub mod control {
            //! The control log and its services.
            pub mod v1 {
                //! Package `sluice.internal.control.v1`.
                package!("sluice.internal.control.v1");
            }
        }
        pub mod usage {
            //! Usage windows.
            pub mod v1 {
                //! Package `sluice.internal.usage.v1`.
                package!("sluice.internal.usage.v1");
            }
        }
        pub mod gateway {
            //! Gateways among themselves.
            pub mod v1 {
                //! Package `sluice.internal.gateway.v1`.
                package!("sluice.internal.gateway.v1");
            }
        }
    }
}

pub mod google {
    //! Messages of Google's that our API uses.
    pub mod rpc {
        //! Package `google.rpc`: the status and its details.
        package!("google.rpc");
    }
    pub mod longrunning {
        //! Package `google.longrunning`: operations.
        package!("google.longrunning");
    }
}
