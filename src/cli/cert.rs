//! `timed cert show`.

use std::path::PathBuf;

use anyhow::Context;
use serde_json::json;
use timed::net::identity::inspect_certificate;
use timed::node::files::DataDir;

use super::{Environment, output};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Show a certificate: its pin, addresses, names and validity
    Show {
        /// The certificate [default: the node's own]
        file: Option<PathBuf>,
    },
}

pub(super) fn run(environment: &Environment, command: Command) -> anyhow::Result<()> {
    let Command::Show { file } = command;
    let file = file.unwrap_or_else(|| DataDir::new(&environment.data_dir).node_certificate());
    let shown = file.display();
    let pem = std::fs::read_to_string(&file)
        .with_context(|| format!("{shown} cannot be read (\"timed init\" makes a node's own)"))?;
    let info = inspect_certificate(&pem).with_context(|| shown.to_string())?;
    if environment.json {
        let mut value = serde_json::to_value(&info)?;
        value["file"] = json!(file);
        return output::json(&value);
    }
    let ips: Vec<String> = info.ips.iter().map(ToString::to_string).collect();
    output::line(output::facts(&[
        ("file", shown.to_string()),
        ("pin", info.pin.to_string()),
        ("addresses", ips.join(", ")),
        ("names", info.names.join(", ")),
        (
            "valid",
            format!(
                "{} to {} (the pin decides)",
                date(info.not_before),
                date(info.not_after)
            ),
        ),
    ]));
    Ok(())
}

/// The UTC date of a Unix time (civil calendar from days, after Howard Hinnant's algorithm).
fn date(unix_seconds: i64) -> String {
    let days = unix_seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_civil() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_305_600), "2026-11-22");
        assert_eq!(date(-86_400), "1969-12-31");
    }
}
