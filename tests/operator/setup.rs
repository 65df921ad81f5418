//! Files that a command makes, takes or replaces: all of them or none, and never ones with which the
//! node does not start.

use super::Place;
use super::commands::contents;

#[test]
fn a_masternode_does_not_move_onto_another() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.66"), ("beta", "127.0.8.67")]);
    let before = contents(&place.path("alpha"));
    place
        .run("cert move 127.0.8.67 --data-dir alpha")
        .failed_with("share the address 127.0.8.67");
    assert!(contents(&place.path("alpha")) == before);
    let _alpha = place.start("alpha");
}
