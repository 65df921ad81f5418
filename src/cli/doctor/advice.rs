//! The next step for each reason for which two nodes are not connected, by whose refusal it was.

/// Whom the advice is about.
pub(super) struct Case<'a> {
    /// The peer's name, or its address.
    pub(super) peer: &'a str,
    /// Its address.
    pub(super) ip: &'a str,
    /// Its port (UDP).
    pub(super) port: u64,
    /// This node's name, or "this node".
    pub(super) own: &'a str,
    /// This node ended or refused it; otherwise the peer did.
    pub(super) by_us: bool,
}

/// What to do after a refusal or an end with this code.
pub(super) fn next_step(code: &str, case: &Case) -> String {
    let Case {
        peer,
        ip,
        port,
        own,
        by_us,
    } = case;
    match (code, by_us) {
        ("pin_mismatch", true) => format!(
            "{peer} shows a key that its record here does not name: get {peer}'s newest record and \
             certificate, compare the pin with its operator by another way, and put it in force with \"timed cert install\""
        ),
        ("pin_mismatch", false) => format!(
            "{peer} holds another record of {own}: send it the two public files of {own} in certs/; \
             if node.key was replaced, a record with a higher serial must name the new pin"
        ),
        ("wrong_genesis" | "wrong_network", _) => format!(
            "the two nodes are on different chains: compare genesis.toml with {peer}'s operator and \
             install the same file on both"
        ),
        ("wrong_version", _) => "update the node whose version is the older one".into(),
        ("ip_taken", true) => format!(
            "another node is connected from {ip}: only one node behind an address can be; ask who else runs one there"
        ),
        ("ip_taken", false) => format!(
            "another node is connected to {peer} from this node's address: stop it, or give one of them an address of its own"
        ),
        ("banned", true) => {
            format!("lift the ban with \"timed unban {ip}\" if it is no longer wanted")
        }
        ("banned", false) => {
            format!("ask {peer}'s operator why {own} is banned there, and to lift it")
        }
        ("unpinned_refused", true) => {
            format!("put {peer}'s record in certs/, or set accept_unpinned = true in timed.toml")
        }
        ("unpinned_refused", false) => {
            format!(
                "{peer} takes no node without a record: send it the two public files of {own} in certs/"
            )
        }
        ("full", true) => {
            format!(
                "in timed.toml, raise max_unpinned or name {peer} in peers; or put its record in certs/"
            )
        }
        ("full", false) => format!(
            "{peer} has no place for a node without a record: use another peer, or ask its operator"
        ),
        ("self", _) => format!(
            "{ip} is this node itself: remove it from peers in timed.toml, or correct the record"
        ),
        ("shutting_down" | "peer_restarted" | "newer_instance" | "duplicate", _) => {
            format!(
                "nothing: {peer} is dialed again by itself; if it stays away, ask its operator whether it runs"
            )
        }
        ("operator", _) => {
            "nothing: an operator ended the connection, and it is dialed again by itself".into()
        }
        ("transport_lost" | "handshake_timeout" | "silent", _) => format!(
            "no answer comes: ask {peer}'s operator whether it runs, and let UDP port {port} pass at {ip} and this node's own \
             port here"
        ),
        ("tls_refused", _) => format!(
            "the two did not agree on TLS: make sure that a timed node of a current version, and no other program, \
             listens on UDP port {port} of {ip}"
        ),
        ("protocol_violation", true) => {
            format!("{peer} sent what it must not: update both nodes, and report it with the log")
        }
        ("protocol_violation", false) => format!(
            "{peer} says that {own} sent what it must not: update both nodes, and report it with the log"
        ),
        ("internal", _) => "the log of the side that failed says how".into(),
        _ => format!(
            "see the log of both nodes for more, and whether UDP port {port} passes at {ip}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use timed::wire::CloseCode;

    #[test]
    fn every_reason_has_a_next_step_that_fits_whose_refusal_it_was() {
        let mut seen = BTreeSet::new();
        let numbers = (0..=17).chain(1001..=1005);
        for number in numbers {
            let code = CloseCode::from_number(number);
            for by_us in [true, false] {
                let case = Case {
                    peer: "beta",
                    ip: "127.0.0.2",
                    port: 24200,
                    own: "alpha",
                    by_us,
                };
                let step = next_step(code.name(), &case);
                assert!(step.len() > 20 && !step.contains("  "), "{step}");
                seen.insert(step);
            }
        }
        let step = |code, by_us| {
            let case = Case {
                peer: "beta",
                ip: "127.0.0.2",
                port: 24200,
                own: "alpha",
                by_us,
            };
            next_step(code, &case)
        };
        assert!(step("pin_mismatch", true).contains("get beta's newest record"));
        assert!(step("pin_mismatch", false).contains("beta holds another record of alpha"));
        assert!(step("banned", true).contains("timed unban 127.0.0.2"));
        assert!(step("transport_lost", true).contains("UDP port 24200"));
        assert!(seen.len() >= 16, "{seen:?}");
    }
}
