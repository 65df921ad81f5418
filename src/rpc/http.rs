//! The HTTP side: who may ask, how much, and how calls reach their methods.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request as HttpRequest, State};
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response, Sse};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::cookie::Cookie;
use super::jsonrpc::{Access, CallError, MAX_BATCH, Method, Params, Request, response};
use super::listener::{self, REQUEST_LIMIT};
use super::live::Events;
use super::{metrics, page};

/// The longest request, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Where browsers say whose page asks (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long answers under way may take once the node stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What is served besides the methods.
pub(super) trait Site: Send + Sync + 'static {
    /// The body of `GET /health`.
    fn health(&self) -> Value;
    /// The body of `GET /metrics`.
    fn metrics(&self) -> impl Future<Output = String> + Send;
    /// What `GET /events` sends; `None` when too many listen already.
    fn events(&self) -> Option<Events>;
}

/// The methods, what they work on, and who may call them.
pub(super) struct Service<C> {
    calls: Arc<C>,
    methods: Vec<Method<C>>,
    cookie: Cookie,
    address: SocketAddr,
}

/// Serves until `cancel`.
pub(super) async fn serve<C: Site>(
    listener: TcpListener,
    service: Service<C>,
    cancel: CancellationToken,
) {
    let service = Arc::new(service);
    let router = Router::new()
        .route("/", post(answer::<C>).get(page::serve))
        .route("/events", get(events::<C>))
        .route("/health", get(health::<C>))
        .route("/metrics", get(metrics::<C>))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(service.clone(), guard::<C>))
        .with_state(service);
    let serving = listener::serve(listener, router, cancel.clone());
    let too_late = async {
        cancel.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        biased;
        () = serving => {}
        () = too_late => {}
    }
}

/// Refuses requests that a web page could have made, and their connections with them: they hold no
/// place afterwards.
async fn guard<C: Site>(
    State(service): State<Arc<Service<C>>>,
    request: HttpRequest,
    next: Next,
) -> Response {
    match service.refusal(request.headers()) {
        Some(sentence) => closing(StatusCode::FORBIDDEN, sentence),
        None => {
            let mut response = next.run(request).await;
            // For browsers that do not say whose page asks: at least it is shown in no frame.
            let headers = response.headers_mut();
            headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
            response
        }
    }
}

/// The last answer on a connection.
fn closing(status: StatusCode, sentence: &'static str) -> Response {
    (status, [(CONNECTION, "close")], sentence).into_response()
}

async fn health<C: Site>(State(service): State<Arc<Service<C>>>) -> Response {
    json(StatusCode::OK, &service.calls.health())
}

async fn metrics<C: Site>(State(service): State<Arc<Service<C>>>) -> Response {
    let content_type = [(CONTENT_TYPE, metrics::CONTENT_TYPE)];
    (content_type, service.calls.metrics().await).into_response()
}

async fn events<C: Site>(State(service): State<Arc<Service<C>>>) -> Response {
    match service.calls.events() {
        Some(events) => Sse::new(events).into_response(),
        None => {
            let sentence = "as many pages are open as are served at a time; close one\n";
            (StatusCode::SERVICE_UNAVAILABLE, sentence).into_response()
        }
    }
}

async fn answer<C: Site>(
    State(service): State<Arc<Service<C>>>,
    headers: HeaderMap,
    request: HttpRequest,
) -> Response {
    let body = match timeout(REQUEST_LIMIT, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return refusal.into_response(),
        Err(_) => {
            let sentence = "the body of the request did not arrive in time\n";
            return closing(StatusCode::REQUEST_TIMEOUT, sentence);
        }
    };
    let trusted = match headers.get(AUTHORIZATION) {
        None => false,
        Some(shown) if service.cookie.matches(shown.as_bytes()) => true,
        // Wrong is not the same as none: the caller believes to be trusted.
        Some(_) => {
            return unauthorized(&refused(CallError::unauthorized()));
        }
    };
    match serde_json::from_slice::<Value>(&body) {
        Err(error) => json(StatusCode::OK, &refused(CallError::parse(error))),
        Ok(Value::Array(calls)) => service.batch(calls, trusted).await,
        Ok(call) => service.single(call, trusted).await,
    }
}

fn refused(error: CallError) -> Value {
    response(Value::Null, Err(error))
}

/// Says also how to show the secret: clients that wait to be asked send it then.
fn unauthorized(body: &Value) -> Response {
    let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"timed\"")];
    (challenge, json(StatusCode::UNAUTHORIZED, body)).into_response()
}

fn json(status: StatusCode, body: &Value) -> Response {
    let content_type = [(CONTENT_TYPE, "application/json")];
    (status, content_type, body.to_string()).into_response()
}

impl<C: Site> Service<C> {
    pub(super) fn new(
        calls: Arc<C>,
        methods: Vec<Method<C>>,
        cookie: Cookie,
        address: SocketAddr,
    ) -> Self {
        Self {
            calls,
            methods,
            cookie,
            address,
        }
    }

    async fn single(&self, call: Value, trusted: bool) -> Response {
        match self.call(call, trusted).await {
            None => StatusCode::NO_CONTENT.into_response(),
            Some(answer) => {
                let code = answer["error"]["code"].as_i64();
                match code == Some(CallError::unauthorized().code.into()) {
                    true => unauthorized(&answer),
                    false => json(StatusCode::OK, &answer),
                }
            }
        }
    }

    /// Calls one after the other, in their order.
    async fn batch(&self, calls: Vec<Value>, trusted: bool) -> Response {
        if calls.is_empty() || calls.len() > MAX_BATCH {
            let detail = format!("a batch holds 1 to {MAX_BATCH} calls");
            return json(
                StatusCode::OK,
                &refused(CallError::invalid_request(&detail)),
            );
        }
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            answers.extend(self.call(call, trusted).await);
        }
        if answers.is_empty() {
            return StatusCode::NO_CONTENT.into_response();
        }
        json(StatusCode::OK, &Value::Array(answers))
    }

    /// The answer to one call; `None` to a notification.
    async fn call(&self, call: Value, trusted: bool) -> Option<Value> {
        match Request::read(call) {
            Err((id, error)) => Some(response(id, Err(error))),
            Ok(request) => {
                let result = self.run(&request.method, request.params, trusted).await;
                request.id.map(|id| response(id, result))
            }
        }
    }

    async fn run(
        &self,
        name: &str,
        params: Option<Value>,
        trusted: bool,
    ) -> Result<Value, CallError> {
        let mut methods = self.methods.iter();
        let method = methods
            .find(|method| method.name == name)
            .ok_or_else(|| CallError::unknown_method(name))?;
        if method.access == Access::Change && !trusted {
            return Err(CallError::unauthorized());
        }
        let params = Params::read(params, method.params)?;
        (method.call)(self.calls.clone(), params).await
    }

    /// Why a request is not answered at all: a foreign `Host` or `Origin`, or a browser that says
    /// that a page of another site asks, which needs no `Origin` to read and to hold connections.
    fn refusal(&self, headers: &HeaderMap) -> Option<&'static str> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
        if !text(HOST).is_some_and(|host| self.is_own_host(host)) {
            return Some("the Host header must be localhost or a loopback address\n");
        }
        if text(ORIGIN).is_some_and(|origin| !self.is_own_origin(origin)) {
            return Some("requests from web pages of other origins are refused\n");
        }
        // "none": a person typed the address.
        match text(SEC_FETCH_SITE) {
            None | Some("same-origin" | "none") => None,
            Some(_) => {
                Some("requests from web pages of other sites are refused: type the address\n")
            }
        }
    }

    fn is_own_host(&self, authority: &str) -> bool {
        let (host, port) = split_authority(authority);
        let own_port = port.is_none_or(|port| port == self.address.port().to_string());
        let ip = host.trim_start_matches('[').trim_end_matches(']');
        let own_ip = |ip: IpAddr| ip.is_loopback() || ip == self.address.ip();
        own_port && (host.eq_ignore_ascii_case("localhost") || ip.parse().is_ok_and(own_ip))
    }

    fn is_own_origin(&self, origin: &str) -> bool {
        origin.strip_prefix("http://").is_some_and(|authority| {
            split_authority(authority).1.is_some() && self.is_own_host(authority)
        })
    }
}

/// Host and port; the brackets of an IPv6 address stay.
fn split_authority(authority: &str) -> (&str, Option<&str>) {
    let host_end = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[host_end..].find(':') {
        Some(at) => {
            let (host, port) = authority.split_at(host_end + at);
            (host, Some(&port[1..]))
        }
        None => (authority, None),
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
