//! Files that a command makes, takes or replaces: all of them or none, and never ones with which the
//! node does not start.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use super::Place;
use super::commands::contents;

/// Two masternodes and their chain, which is not installed yet.
fn before_install() -> Place {
    let place = Place::new();
    std::fs::create_dir(place.path("public")).unwrap();
    for (name, ip) in [("alpha", "127.0.8.63"), ("beta", "127.0.8.64")] {
        place.must(&format!(
            "init --data-dir {name} --network dev --name {name} --ip {ip}"
        ));
        place.share(name, "public");
    }
    place.must("genesis build --certs public --network dev --output genesis.toml");
    place
}

#[test]
fn only_a_chain_with_which_the_node_starts_is_installed() {
    let place = before_install();
    std::fs::write(place.path("hello.toml"), "hello").unwrap();
    std::fs::create_dir(place.path("strange")).unwrap();
    place.must("init --data-dir gamma --network dev --name gamma --ip 127.0.8.65");
    place.share("gamma", "strange");
    std::fs::create_dir(place.path("edited")).unwrap();
    place.share("beta", "edited");
    place.edit("edited/beta.masternode.toml", "serial = 1", "serial = 2");
    let before = contents(&place.path(""));
    for (arguments, words) in [
        (
            "--data-dir alpha --genesis hello.toml --certs public",
            "hello.toml line 1",
        ),
        (
            "--data-dir alpha --genesis genesis.toml --certs edited",
            "edited/beta.masternode.toml: ",
        ),
        (
            "--data-dir alpha --genesis genesis.toml --certs strange",
            "genesis names no such masternode",
        ),
        // Its own record is there from the start.
        (
            "--data-dir gamma --genesis genesis.toml --certs public",
            "genesis names no such masternode",
        ),
        (
            "--data-dir typo/deep --genesis genesis.toml --certs public",
            "typo/deep/timed.toml is missing",
        ),
    ] {
        place
            .run(&format!("genesis install {arguments}"))
            .failed_with(words);
    }
    assert!(contents(&place.path("")) == before, "a file has changed");
    assert!(!place.path("typo").exists());

    std::fs::remove_dir_all(place.path("alpha/certs")).unwrap();
    place.install("alpha");
    let made = std::fs::metadata(place.path("alpha/certs")).unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o700);
}

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

#[test]
fn a_record_older_than_one_seen_is_not_installed_and_several_are_installed_together() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.68"), ("beta", "127.0.8.69")]);
    place.must("cert move 127.0.8.70 --data-dir beta");
    std::fs::write(place.path("bad.toml"), "hello").unwrap();
    let held = place.path("alpha/certs/beta.masternode.toml");
    let first = std::fs::read(&held).unwrap();
    let install = "cert install --data-dir alpha";
    place
        .run(&format!(
            "{install} beta/certs/beta.masternode.toml bad.toml"
        ))
        .failed_with("bad.toml line 1");
    assert!(std::fs::read(&held).unwrap() == first);
    let done = place.must(&format!("{install} beta/certs/beta.masternode.toml"));
    assert!(
        done.stdout.starts_with("record of beta with serial 2\n"),
        "{}",
        done.stdout
    );

    // A start remembers what it has seen, also when the record's file is lost.
    let node = place.start("alpha");
    place.must("stop --data-dir alpha");
    assert_eq!(node.exit_code(), Some(0));
    std::fs::remove_file(&held).unwrap();
    for command in [
        &format!("{install} public/beta.masternode.toml"),
        "genesis install --data-dir alpha --genesis genesis.toml --certs public",
    ] {
        let refused = place.run(command);
        refused.failed_with("has serial 1");
        refused.failed_with("serial 2");
        assert!(!held.exists());
    }
    let _alpha = place.start("alpha");
}

#[test]
fn an_rpc_port_that_no_command_could_find_is_refused() {
    let place = Place::with_masternodes(&[("alpha", "127.0.8.71")]);
    place.edit("alpha/timed.toml", "rpc_port = 24201", "rpc_port = 0");
    place
        .run("status --data-dir alpha")
        .failed_with("rpc_port = 0 cannot be used");
}

#[test]
fn an_init_that_fails_leaves_nothing_and_can_be_repeated() {
    let place = Place::new();
    std::fs::create_dir(place.path("alpha")).unwrap();
    let certs = place.path("alpha/certs");
    let init = "init --data-dir alpha --network dev --name alpha --ip 127.0.8.72";
    std::fs::write(&certs, "a file").unwrap();
    place.run(init).failed_with("alpha/certs");
    assert_eq!(contents(&place.path("")).len(), 1);
    std::fs::remove_file(&certs).unwrap();

    // A folder in which nobody can make a file.
    symlink("/proc", &certs).unwrap();
    place.run(init).failed_with("alpha/certs/");
    let left = std::fs::read_dir(place.path("alpha")).unwrap();
    assert_eq!(left.count(), 1, "only what was there before");
    std::fs::remove_file(&certs).unwrap();
    place.must(init);
}

#[test]
fn a_testnets_folder_says_how_many_nodes_and_which_port_it_has() {
    let place = Place::new();
    let again = "testnet --dir tn --seconds 1";
    let made = place.run(&format!("{again} --nodes 2 --port 24733"));
    assert!(made.stdout.contains("port 24733"), "{}", made.stdout);
    place
        .run(&format!("{again} --nodes 3"))
        .failed_with("tn holds a testnet of 2 nodes: say --nodes 2");
    place
        .run(&format!("{again} --nodes 2 --port 24743"))
        .failed_with("tn holds a testnet on port 24733");
    let done = place.run(&format!("{again} --nodes 2"));
    assert!(done.stdout.contains("port 24733"), "{}", done.stdout);
}

#[test]
fn help_is_a_command_and_completions_need_nobody_who_reads_them() {
    let place = Place::new();
    let help = place.must("help");
    assert_eq!(help.stdout, place.must("--help").stdout);
    assert!(place.must("help cert rotate").stdout.contains("--force"));
    let completions = place.must("completions bash").stdout;
    assert!(completions.contains("_timed"), "{completions}");
    let to = |stdout: Stdio| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_timed"))
            .args(["completions", "bash"])
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Nobody reads what it writes.
        drop(child.stdout.take());
        let done = child.wait_with_output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    assert_eq!(to(Stdio::piped()), (Some(0), String::new()));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (code, said) = to(full.into());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.starts_with("timed: the standard output cannot be written"),
        "{said}"
    );
}
