//! `sluiced`: a subcommand for each role, from its own configuration, `up` for all of them, and `install` for what they need.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, FromArgMatches, Subcommand, value_parser};
use sluice_runtime::config::ConfigError;
use sluiced::role::{self, Role};
use sluiced::{install, up};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What is no role.
#[derive(Subcommand)]
enum Other {
    /// Makes a Kafka cluster and a PostgreSQL server ready, or says what is missing
    Install(install::Args),
    /// All of it on this machine, with a real Kafka and PostgreSQL
    Up(up::Args),
}

const CONFIG: &str = "config";

/// The command line: the table of roles, and what is none.
fn command() -> Command {
    let config = Arg::new(CONFIG).long(CONFIG).value_name("CONFIG").required(true);
    let config = config.help("The configuration file (TOML)").value_parser(value_parser!(PathBuf));
    let roles = Role::ALL.iter().map(|role| Command::new(role.as_str()).about(role.about()).arg(config.clone()));
    let program = Command::new("sluiced")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(roles);
    // After the others, whose own text would win.
    Other::augment_subcommands(program).about("The server of Sluice")
}

fn main() -> ExitCode {
    let matches = match command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return refused(&error),
    };
    let role = matches.subcommand().and_then(|(name, args)| Some((role_of(name)?, args)));
    match role {
        Some((role, args)) => role::main(role, config_of(args)),
        None => match Other::from_arg_matches(&matches) {
            Ok(Other::Install(args)) => install::main(&args),
            Ok(Other::Up(args)) => up::main(args),
            Err(error) => refused(&error),
        },
    }
}

fn role_of(name: &str) -> Option<Role> {
    Role::ALL.iter().copied().find(|role| role.as_str() == name)
}

fn config_of(args: &ArgMatches) -> &PathBuf {
    args.get_one(CONFIG).expect("clap refuses a role without it")
}

fn refused(error: &clap::Error) -> ExitCode {
    // Its own code for wrong usage would be 2, which `install` has for "something differs".
    let code = if error.use_stderr() { ConfigError::EXIT_CODE } else { 0 };
    let _ = error.print();
    ExitCode::from(code)
}
