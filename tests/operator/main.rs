//! A node as its operator sees it: the page, metrics, the doctor's sentences.
#![expect(clippy::unwrap_used, reason = "a step that fails must fail its test")]

mod commands;
mod doctor;
mod faults;
mod methods;
mod page;
mod payment;
mod reindex;
mod rotation;
mod service;
mod setup;
mod site;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "each test program uses its part")]
mod support;
mod sync;
mod wallet;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::{Done, Place, Running};
use tokio::time::Instant;

/// No step of a test takes so long, on a busy machine either; what hangs fails.
const LIMIT: Duration = Duration::from_secs(180);

/// Asks a node again and again until it says what it should.
#[track_caller]
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < LIMIT, "not in time: {what}");
        // Asking is work for the node, too.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends `GET path` to a node's RPC port and gives the connection, with the answer unread.
fn open(address: &str, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The status, the head and the body of an answer.
fn get(address: &str, path: &str, headers: &str) -> (u16, String, String) {
    let mut answer = String::new();
    open(address, path, headers)
        .read_to_string(&mut answer)
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

/// Sends a body to a node's RPC without its cookie; gives the status and the answer.
fn post(address: &str, body: &str) -> (u16, String) {
    post_with(address, "", body)
}

/// The same with further headers.
fn post_with(address: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
