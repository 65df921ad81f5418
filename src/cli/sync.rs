//! `timed sync`.

use serde_json::Value;

use super::client::Client;
use super::status::{list, text};
use super::{Environment, output};

/// How wide the bar is, in characters.
const BAR_WIDTH: u64 = 40;

pub(super) fn run(environment: &Environment) -> anyhow::Result<()> {
    let client = Client::for_view(&environment.data_dir)?;
    let sync: Value = client.get("getsyncinfo")?;
    if environment.json {
        return output::json(&sync);
    }
    output::line(describe(&sync));
    Ok(())
}

fn describe(sync: &Value) -> String {
    let number = |key: &str| sync[key].as_u64().unwrap_or(0);
    let (height, target, behind) = (number("height"), number("target"), number("behind"));
    let mut facts = vec![
        ("height", format!("{height} of {target}")),
        ("behind", behind_text(sync, behind)),
    ];
    if behind > 0 {
        facts.push(("", bar(height, target)));
    }
    let peers: Vec<String> = list(&sync["peers"]).map(text).collect();
    facts.push((
        "fetching",
        match (peers.is_empty(), behind) {
            (true, 0) => "nothing is missing".into(),
            (true, _) => "from nobody: no connected peer serves them now".into(),
            (false, _) => format!("from {}", peers.join(", ")),
        },
    ));
    facts.push((
        "synced",
        format!("{} blocks since start", number("synced_blocks")),
    ));
    let shown = output::facts(&facts);
    let aside: Vec<String> = list(&sync["set_aside"]).map(|one| text(&one[0])).collect();
    // The newest first: that is what a person looks for.
    let mut rows: Vec<Vec<String>> = list(&sync["replaced"])
        .map(|one| {
            let peer = text(&one[0]);
            let state = if aside.contains(&peer) {
                "set aside"
            } else {
                "was replaced"
            };
            vec![peer, state.into(), text(&one[1])]
        })
        .collect();
    rows.reverse();
    match rows.is_empty() {
        true => shown,
        false => format!(
            "{shown}\n\n{}",
            output::table(&["REPLACED", "NOW", "WHY"], &rows, output::red)
        ),
    }
}

fn behind_text(sync: &Value, behind: u64) -> String {
    let rate = sync["blocks_per_s"].as_f64();
    let unsure = list(&sync["set_aside"]).next().is_some();
    match (behind, rate, sync["seconds_left"].as_u64()) {
        (0, ..) if unsure => "not known: no peer that can be asked has more".into(),
        (0, ..) => "no, it is at the tip".into(),
        (_, Some(rate), Some(seconds)) => {
            let left = output::duration(seconds);
            format!("{behind} blocks, about {left} left at {rate} blocks/s")
        }
        (_, Some(_), None) => format!("{behind} blocks, nothing arrives"),
        (_, None, _) => format!("{behind} blocks"),
    }
}

fn bar(height: u64, target: u64) -> String {
    let part = |of: u64| u128::from(height) * u128::from(of) / u128::from(target.max(1));
    let full = part(BAR_WIDTH) as usize;
    let rest = BAR_WIDTH as usize - full;
    format!("[{}{}] {} %", "#".repeat(full), "-".repeat(rest), part(100))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_behind_shows_how_long_from_whom_and_who_was_replaced() {
        let peers: Vec<String> = (2..20).map(|last| format!("127.0.0.{last}")).collect();
        let sync = json!({
            "height": 2_500, "target": 10_000, "behind": 7_500, "syncing": true, "peers": peers,
            "blocks_per_s": 24.5, "seconds_left": 306, "synced_blocks": 2_500,
            "set_aside": [["127.0.0.33", "no progress for 20 s"]],
            "replaced": [
                ["127.0.0.2", "word ".repeat(24)],
                ["127.0.0.33", "no progress for 20 s"],
            ],
        });
        let shown = describe(&sync);
        for expected in [
            "height    2500 of 10000",
            "behind    7500 blocks, about 5 min 6 s left at 24.5 blocks/s",
            "[##########------------------------------] 25 %",
            "fetching  from 127.0.0.2, 127.0.0.3",
            "127.0.0.33  set aside     no progress for 20 s\n127.0.0.2   was replaced  word word",
        ] {
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
        assert!(
            shown.lines().all(|line| line.chars().count() <= 100),
            "{shown}"
        );
    }

    #[test]
    fn a_node_at_the_tip_says_so() {
        let sync = json!({
            "height": 7, "target": 7, "behind": 0, "syncing": false, "peers": [],
            "blocks_per_s": null, "seconds_left": null, "synced_blocks": 3,
            "set_aside": [], "replaced": [],
        });
        assert_eq!(
            describe(&sync),
            "height    7 of 7\nbehind    no, it is at the tip\nfetching  nothing is missing\n\
             synced    3 blocks since start"
        );
    }

    #[test]
    fn a_node_that_nobody_serves_says_so() {
        let sync = json!({
            "height": 0, "target": 9, "behind": 9, "syncing": false, "peers": [],
            "blocks_per_s": 0.0, "seconds_left": null, "synced_blocks": 0,
        });
        let shown = describe(&sync);
        assert!(shown.contains("9 blocks, nothing arrives"), "{shown}");
        assert!(shown.contains("from nobody"), "{shown}");
    }
}
