//! What a PostgreSQL server needs to be ours: per service a database and three roles, `sluice_{service}_{owner|app|system}`, of
//! which none may bypass row-level security, make roles or make databases. Migrations of the service do the rest, as the owner.
//!
//! Rights that our own role needs: none to look; CREATEROLE and CREATEDB to apply. It need not be a super user.

mod plan;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use secrecy::SecretString;
use sluice_db::DbError;

pub use plan::plan;
pub use server::Server;

use crate::difference;

/// The parts that roles of a service play.
pub const PARTS: [&str; 3] = ["owner", "app", "system"];

/// A service with a database of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `control` or `billing`: the schema, and what its roles are named after.
    pub name: String,
    /// Its database.
    pub database: String,
}

impl Service {
    /// Name of the role that plays a part (`owner`, `app`, `system`).
    pub fn role(&self, part: &str) -> String {
        role(&self.name, part)
    }

    /// All its roles.
    pub fn roles(&self) -> [String; 3] {
        PARTS.map(|part| self.role(part))
    }
}

fn role(service: &str, part: &str) -> String {
    format!("sluice_{service}_{part}")
}

/// What must be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The services.
    pub services: Vec<Service>,
    /// Passwords by role, where they are known. One that is not known is not checked.
    pub passwords: BTreeMap<String, SecretString>,
}

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Our own role.
    pub admin: Admin,
    /// The server's version as a number, e.g. 150004.
    pub version: i32,
    /// Our roles that exist.
    pub roles: BTreeMap<String, Attributes>,
    /// Those of them that the server does not let in with the password we know.
    pub locked_out: BTreeSet<String>,
    /// Our databases that exist.
    pub databases: BTreeMap<String, Database>,
}

/// Our own role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Its name.
    pub name: String,
    /// May do everything.
    pub superuser: bool,
    /// May make roles.
    pub create_role: bool,
    /// May make databases.
    pub create_database: bool,
}

/// What a role may do beyond its grants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// May log in.
    pub login: bool,
    /// May do everything.
    pub superuser: bool,
    /// May make databases.
    pub create_database: bool,
    /// May make roles.
    pub create_role: bool,
    /// May read the write-ahead log.
    pub replication: bool,
    /// Is not bound by row-level security.
    pub bypass_rls: bool,
}

/// A database as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Its encoding, e.g. `UTF8`.
    pub encoding: String,
    /// Who may do what with it: role (or `PUBLIC`) and privilege.
    pub grants: BTreeSet<(String, String)>,
    /// Whether everybody may use the schema `public`; absent: we may not look inside.
    pub public_schema_open: Option<bool>,
}

/// What mends a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a role that may log in, with a password.
    CreateRole {
        /// The role.
        role: String,
    },
    /// Set a role's password.
    SetPassword {
        /// The role.
        role: String,
    },
    /// Set an attribute of a role.
    SetAttribute {
        /// The role.
        role: String,
        /// E.g. `NOBYPASSRLS`.
        attribute: &'static str,
    },
    /// Make a database.
    CreateDatabase {
        /// Its name.
        database: String,
        /// Its owner.
        owner: String,
    },
    /// Let a role do something with a database.
    Grant {
        /// The database.
        database: String,
        /// The role.
        role: String,
        /// `CREATE` or `CONNECT`.
        privilege: &'static str,
    },
    /// Take from everybody what everybody may do with a new database.
    CloseDatabase {
        /// The database.
        database: String,
    },
    /// Take from everybody what everybody may do with its schema `public`.
    CloseSchema {
        /// The database.
        database: String,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateRole { role } => write!(f, "make the role {role}"),
            Self::SetPassword { role } => write!(f, "set the password of {role}"),
            Self::SetAttribute { role, attribute } => write!(f, "set {attribute} on {role}"),
            Self::CreateDatabase { database, owner } => write!(f, "make {database} for {owner}"),
            Self::Grant { database, role, privilege } => write!(f, "grant {privilege} on {database} to {role}"),
            Self::CloseDatabase { database } => write!(f, "revoke everything on {database} from PUBLIC"),
            Self::CloseSchema { database } => {
                write!(f, "revoke everything on the schema public of {database} from PUBLIC")
            }
        }
    }
}

/// A difference of a PostgreSQL server.
pub type Difference = difference::Difference<Action>;

/// The roles of one service with their passwords.
#[derive(Debug, Clone)]
pub struct Roles {
    /// E.g. `control`.
    pub service: &'static str,
    /// Owns the schema; migrates.
    pub owner_password: SecretString,
    /// Serves tenants, under row-level security.
    pub app_password: SecretString,
    /// Relays, reconcilers, operator.
    pub system_password: SecretString,
}

impl Roles {
    /// Name of a role.
    pub fn name(&self, part: &str) -> String {
        role(self.service, part)
    }
}

/// Makes a service's roles and database as they must be, at once and without asking. Harmless to repeat, from several processes
/// at once. `admin_url` may name any database; `database` is `[a-z0-9_]+`.
///
/// # Errors
/// What the server refuses, and what fails.
pub async fn bootstrap(admin_url: &SecretString, database: &str, roles: &Roles) -> Result<(), DbError> {
    let service = Service { name: roles.service.to_owned(), database: database.to_owned() };
    let passwords = [&roles.owner_password, &roles.app_password, &roles.system_password];
    let passwords = service.roles().into_iter().zip(passwords.into_iter().cloned()).collect();
    let wanted = Wanted { services: vec![service], passwords };
    let mut server = Server::connect(admin_url).await?;
    server.lock().await?;
    let observed = server.observe(&wanted).await?;
    for difference in plan(&wanted, &observed) {
        if let Some(action) = difference.action() {
            server.apply(action, |role| wanted.passwords.get(role).cloned()).await?;
        }
    }
    server.close().await
}
