//! The command line as a whole; each command's own arguments are with the command.

use clap::Parser;

use super::commands::Command;

/// Replicates messages between applications and nodes, over whatever links there are.
#[derive(Debug, Parser)]
#[command(
    name = "slipstream",
    version,
    after_help = "Examples:\n  slipstream run -c slipstream.toml\n  slipstream status\n\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, \
                  3 storage that can no longer be trusted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The command that was given. Wrong usage ends the process here, with code 2.
pub(super) fn parse() -> Command {
    Cli::parse().command
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    // keeps: help-examples
    #[test]
    fn every_command_has_an_example() {
        let mut cli = Cli::command();
        cli.build();
        cli.clone().debug_assert();
        for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("slipstream"), "{} has none", command.get_name());
        }
    }
}
