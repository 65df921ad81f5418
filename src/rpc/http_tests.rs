use std::sync::atomic::{AtomicU64, Ordering};

use axum::response::sse::Event;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::env::Entropy;
use crate::rpc::listener::MAX_CONNECTIONS;

/// Counts what was changed.
#[derive(Default)]
struct Counter {
    changes: AtomicU64,
    /// To the page that listens; only one may.
    page: std::sync::OnceLock<mpsc::Sender<Event>>,
}

impl Site for Counter {
    fn health(&self) -> Value {
        json!({ "status": "ok" })
    }

    async fn metrics(&self) -> String {
        "# EOF\n".into()
    }

    fn events(&self) -> Option<Events> {
        let (page, events) = mpsc::channel(1);
        self.page.set(page).ok()?;
        Some(Events::of(events))
    }
}

fn methods() -> Vec<Method<Counter>> {
    vec![
        Method {
            name: "double",
            access: Access::Read,
            params: &["number"],
            help: "",
            call: |_, mut params| {
                Box::pin(async move { Ok(json!(2 * params.required::<u64>("number")?)) })
            },
        },
        Method {
            name: "change",
            access: Access::Change,
            params: &[],
            help: "",
            call: |counter, _| {
                Box::pin(async move { Ok(json!(counter.changes.fetch_add(1, Ordering::SeqCst))) })
            },
        },
    ]
}

struct Server {
    address: SocketAddr,
    authorization: String,
    counter: Arc<Counter>,
    cancel: CancellationToken,
    running: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cookie = Cookie::new(&Entropy::from_seed([1; 32]));
        let authorization = cookie.authorization().to_string();
        let counter = Arc::new(Counter::default());
        let service = Service::new(counter.clone(), methods(), cookie, address);
        let cancel = CancellationToken::new();
        let running = tokio::spawn(serve(listener, service, cancel.clone()));
        Self {
            address,
            authorization,
            counter,
            cancel,
            running,
        }
    }

    /// Sends a request with these header lines; gives the status and the body.
    async fn send(&self, line: &str, headers: &str, body: &str) -> (u16, String) {
        let (head, body) = self.send_whole(line, headers, body).await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body)
    }

    /// The same; gives the head, in lower case, and the body.
    async fn send_whole(&self, line: &str, headers: &str, body: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{line} HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }

    /// A connection with these bytes sent.
    async fn open(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    fn host(&self) -> String {
        format!("Host: {}\r\n", self.address)
    }

    async fn post(&self, body: Value) -> (u16, Value) {
        self.post_text(&self.host(), &body.to_string()).await
    }

    async fn post_trusted(&self, body: Value) -> (u16, Value) {
        let headers = format!("{}Authorization: {}\r\n", self.host(), self.authorization);
        self.post_text(&headers, &body.to_string()).await
    }

    async fn post_text(&self, headers: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.send("POST /", headers, body).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.running.await.unwrap();
    }
}

fn call(method: &str, params: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params })
}

#[tokio::test]
async fn calls_are_answered_with_their_id() {
    let server = Server::start().await;
    for params in [json!([21]), json!({ "number": 21 })] {
        let (status, answer) = server.post(call("double", params)).await;
        assert_eq!(status, 200);
        assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 7, "result": 42 }));
    }
    for (body, code) in [
        (call("triple", json!([])), -32601),
        (call("double", json!([1, 2])), -32602),
        (call("double", json!([])), -32602),
        (json!({ "id": 7 }), -32600),
        (json!([]), -32600),
    ] {
        let (status, answer) = server.post(body).await;
        assert_eq!((status, &answer["error"]["code"]), (200, &json!(code)));
    }
    let (_, answer) = server.post_text(&server.host(), "{").await;
    assert_eq!(answer["error"]["code"], -32700);
    server.stop().await;
}

#[tokio::test]
async fn a_batch_is_answered_in_order_without_its_notifications() {
    let server = Server::start().await;
    let notification = json!({ "method": "double", "params": [1] });
    let (_, answers) = server
        .post(json!([
            call("double", json!([1])),
            notification,
            call("change", json!([])),
            call("double", json!([3])),
        ]))
        .await;
    assert_eq!(answers[0]["result"], 2);
    assert_eq!(answers[1]["error"]["code"], -32001);
    assert_eq!(answers[2]["result"], 6);
    assert_eq!(answers.as_array().unwrap().len(), 3);
    let (status, answer) = server.post(json!([notification])).await;
    assert_eq!((status, answer), (204, Value::Null));
    let many: Vec<Value> = vec![call("double", json!([1])); MAX_BATCH + 1];
    let (_, answer) = server.post(json!(many)).await;
    assert_eq!(answer["error"]["code"], -32600);
    server.stop().await;
}

#[tokio::test]
async fn changes_need_the_cookie_and_a_wrong_one_is_refused_for_everything() {
    let server = Server::start().await;
    let body = call("change", json!([])).to_string();
    let (head, answer) = server.send_whole("POST /", &server.host(), &body).await;
    assert!(head.starts_with("http/1.1 401"), "{head}");
    assert!(
        head.contains("www-authenticate: basic realm=\"timed\""),
        "{head}"
    );
    assert!(answer.contains("-32001"), "{answer}");
    assert_eq!(server.counter.changes.load(Ordering::SeqCst), 0);

    let (status, answer) = server.post_trusted(call("change", json!([]))).await;
    assert_eq!((status, &answer["result"]), (200, &json!(0)));
    assert_eq!(server.counter.changes.load(Ordering::SeqCst), 1);

    let wrong = format!("{}Authorization: Basic AAAA\r\n", server.host());
    let body = call("double", json!([1])).to_string();
    let (head, _) = server.send_whole("POST /", &wrong, &body).await;
    assert!(head.starts_with("http/1.1 401"), "{head}");
    assert!(
        head.contains("www-authenticate: basic realm=\"timed\""),
        "{head}"
    );
    server.stop().await;
}

#[tokio::test]
async fn what_a_web_page_could_send_is_refused() {
    let server = Server::start().await;
    let port = server.address.port();
    let body = call("double", json!([1])).to_string();
    let other_port = port ^ 1;
    let own = [
        format!("Host: localhost:{port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n"),
        format!("Host: [::1]:{port}\r\n"),
        "Host: LOCALHOST\r\n".into(),
    ];
    for headers in own {
        assert_eq!(server.post_text(&headers, &body).await.0, 200, "{headers}");
    }
    let foreign = [
        format!("Host: evil.example:{port}\r\n"),
        format!("Host: 10.0.0.1:{port}\r\n"),
        format!("Host: 127.0.0.1.evil.example:{port}\r\n"),
        format!("Host: localhost:{other_port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nOrigin: http://evil.example\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nOrigin: https://127.0.0.1:{port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{other_port}\r\n"),
        format!("Host: 127.0.0.1:{port}\r\nOrigin: null\r\n"),
    ];
    for headers in foreign {
        assert_eq!(server.post_text(&headers, &body).await.0, 403, "{headers}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_a_page_of_another_site_asks_for_without_an_origin_is_refused() {
    let server = Server::start().await;
    let get = |path: &'static str, site: &str| {
        let headers = format!("{}Sec-Fetch-Site: {site}\r\n", server.host());
        let server = &server;
        async move { server.send_whole(path, &headers, "").await.0 }
    };
    for path in ["GET /", "GET /events", "GET /health", "GET /metrics"] {
        for site in ["cross-site", "same-site", "nonsense"] {
            let head = get(path, site).await;
            assert!(head.starts_with("http/1.1 403"), "{path} {site}: {head}");
        }
    }
    assert!(
        server.counter.page.get().is_none(),
        "a place for a page is taken"
    );
    // Typed by a person, and asked for by the page itself.
    for site in ["none", "same-origin"] {
        let head = get("GET /", site).await;
        assert!(head.starts_with("http/1.1 200"), "{site}: {head}");
        assert!(head.contains("x-frame-options: deny"), "{head}");
        assert!(head.contains("frame-ancestors 'none'"), "{head}");
    }
    server.stop().await;
}

/// What keeps a connection open without asking for anything.
fn idle(server: &Server, kind: usize) -> String {
    let whole = |host: String, length: usize| {
        format!("POST / HTTP/1.1\r\n{host}Content-Length: {length}\r\n\r\n")
    };
    match kind % 5 {
        0 => String::new(),
        1 => "GET /health HTTP/1.1\r\nHost: loc".into(),
        2 => format!("GET /health HTTP/1.1\r\n{}\r\n", server.host()),
        3 => whole(server.host(), 7),
        _ => whole("Host: evil.example\r\n".into(), 0),
    }
}

#[tokio::test(start_paused = true)]
async fn connections_that_ask_for_nothing_lock_nobody_out() {
    let server = Server::start().await;
    let mut held = Vec::new();
    for kind in 0..MAX_CONNECTIONS {
        held.push(server.open(&idle(&server, kind)).await);
    }
    let host = server.host();
    let asked = server.send("GET /health", &host, "");
    let (status, _) = timeout(10 * REQUEST_LIMIT, asked).await.expect("in time");
    assert_eq!(status, 200);
    for mut stream in held {
        let mut rest = Vec::new();
        let closed = timeout(10 * REQUEST_LIMIT, stream.read_to_end(&mut rest));
        closed.await.expect("each is closed").unwrap();
    }
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_closed() {
    let server = Server::start().await;
    let request = "GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let mut answer = String::new();
    let mut stream = server.open(request).await;
    let closed = timeout(10 * REQUEST_LIMIT, stream.read_to_string(&mut answer));
    closed.await.expect("it is closed").unwrap();
    let answer = answer.to_lowercase();
    assert!(answer.starts_with("http/1.1 403"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_page_may_listen_for_as_long_as_it_likes() {
    let server = Server::start().await;
    let request = format!("GET /events HTTP/1.1\r\n{}\r\n", server.host());
    let mut stream = server.open(&request).await;
    let mut read = [0; 1_024];
    let length = stream.read(&mut read).await.unwrap();
    assert!(read[..length].starts_with(b"HTTP/1.1 200"));
    tokio::time::sleep(1_000 * REQUEST_LIMIT).await;
    let event = Event::default().data("late");
    server
        .counter
        .page
        .get()
        .unwrap()
        .send(event)
        .await
        .unwrap();
    let length = stream.read(&mut read).await.unwrap();
    let said = String::from_utf8_lossy(&read[..length]);
    assert!(said.contains("data: late"), "{said}");
    server.stop().await;
}

#[tokio::test]
async fn size_path_and_verb_are_limited() {
    let server = Server::start().await;
    let long = "x".repeat(MAX_BODY_BYTES + 1);
    let (status, _) = server.send("POST /", &server.host(), &long).await;
    assert_eq!(status, 413);
    assert_eq!(server.send("PUT /", &server.host(), "").await.0, 405);
    assert_eq!(server.send("GET /other", &server.host(), "").await.0, 404);
    let (status, body) = server.send("GET /health", &server.host(), "").await;
    assert_eq!((status, body.as_str()), (200, "{\"status\":\"ok\"}"));
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_the_stop_back() {
    let server = Server::start().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"POST / HTTP/1.1\r\nHost: loc")
        .await
        .unwrap();
    server.stop().await;
}
