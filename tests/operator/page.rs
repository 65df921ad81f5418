//! The live page in a browser: Debian's Chromium, without a window, driven over its DevTools pipe.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use super::{LIMIT, Place, get, until};

const BROWSER: &str = "/usr/bin/chromium";

/// A browser with one page; every message ends with a zero byte.
struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    next_id: u64,
    session: Option<String>,
    /// What the page did meanwhile.
    events: Vec<Value>,
}

impl Browser {
    fn start(place: &Place) -> Self {
        let profile = place.path("profile");
        // The pipe's ends are descriptors 3 and 4.
        let script = format!(
            "exec {BROWSER} --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
             --disable-background-networking --disable-component-update --disable-sync \
             --remote-debugging-pipe --user-data-dir={} about:blank \
             3<&0 4>&1 </dev/null >/dev/null 2>/dev/null",
            profile.display()
        );
        let mut process = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut messages = BufReader::new(process.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while messages.read_until(0, &mut message).unwrap_or(0) > 0 {
                message.pop();
                let parsed = serde_json::from_slice(&message).unwrap();
                if sender.send(parsed).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            to: process.stdin.take().unwrap(),
            from,
            process,
            next_id: 0,
            session: None,
            events: Vec::new(),
        };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for part in ["Log", "Runtime", "Network", "Page"] {
            browser.call(&format!("{part}.enable"), json!({}));
        }
        let enabled = json!({ "enabled": true });
        browser.call("Page.setLifecycleEventsEnabled", enabled);
        browser
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next_id += 1;
        let mut message = json!({ "id": self.next_id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to
            .write_all(format!("{message}\0").as_bytes())
            .unwrap();
        loop {
            let answer = self.next(method);
            if answer["id"] == self.next_id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// The browser's next message; one that says nothing for long, or has ended, fails the test.
    fn next(&mut self, awaited: &str) -> Value {
        let message = self.from.recv_timeout(LIMIT);
        message.unwrap_or_else(|error| panic!("the browser does not answer {awaited}: {error}"))
    }

    /// Goes to a page and waits until it is loaded: a question asked earlier is put to the page before, whose own load
    /// event may still come, and is lost with it.
    fn open(&mut self, url: &str) {
        let gone = self.call("Page.navigate", json!({ "url": url }));
        let loaded = |event: &Value| {
            event["loaderId"] == gone["loaderId"] && event["name"].as_str() == Some("load")
        };
        while !self.events("Page.lifecycleEvent").any(loaded) {
            let event = self.next(url);
            self.events.push(event);
        }
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true });
        self.call("Runtime.evaluate", params)["result"]["value"].clone()
    }

    /// Sets the size and the colour scheme that the page is to be shown in.
    fn show_as(&mut self, width: u32, scheme: &str) {
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call(
            "Emulation.setEmulatedMedia",
            json!({ "features": [feature] }),
        );
    }

    fn events(&self, method: &str) -> impl Iterator<Item = &Value> {
        let found = self
            .events
            .iter()
            .filter(move |one| one["method"] == method);
        found.map(|one| &one["params"])
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn a_browser_shows_the_node_live_in_light_and_dark_wide_and_narrow() {
    if !std::path::Path::new(BROWSER).exists() {
        eprintln!("skipped: {BROWSER} is not installed");
        return;
    }
    let place = Place::with_masternodes(&[("alpha", "127.0.8.13"), ("beta", "127.0.8.14")]);
    let _alpha = place.start("alpha");
    let _beta = place.start("beta");
    // One block, so that there is something to show.
    let (address, host) = ("127.0.8.13:24201", "Host: 127.0.8.13:24201\r\n");
    until("a block", || {
        let health = get(address, "/health", host).2;
        (!health.contains("\"height\":0")).then_some(())
    });

    let mut browser = Browser::start(&place);
    browser.open(&format!("http://{address}/"));
    let words = [
        "height",
        "quorum",
        "signing",
        "at the tip",
        "round-trip time",
        "recent blocks",
    ];
    // Who signed is listed in the order of the keys, which are drawn.
    let both = ["2 of 2: alpha, beta", "2 of 2: beta, alpha"];
    let text = until("both masternodes on the page", || {
        let text = browser.evaluate("document.body.innerText");
        let text = text.as_str().unwrap().to_lowercase();
        let all_said = words.iter().all(|words| text.contains(words));
        let both_sign = both.iter().any(|signers| text.contains(signers));
        (all_said && both_sign).then_some(text)
    });

    let mut backgrounds = Vec::new();
    for (width, scheme) in [
        (1_280, "light"),
        (1_280, "dark"),
        (400, "light"),
        (400, "dark"),
    ] {
        browser.show_as(width, scheme);
        let wide = browser.evaluate("document.documentElement.scrollWidth");
        assert!(wide.as_u64().unwrap() <= width.into(), "{wide} of {width}");
        let background = browser.evaluate("getComputedStyle(document.body).backgroundColor");
        backgrounds.push(background.as_str().unwrap().to_owned());
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
    assert_eq!(backgrounds[..2], backgrounds[2..]);

    // It moves, without being loaded again.
    let height = "document.body.innerText.match(/height\\s+(\\d+)/i)?.[1]";
    let before = browser.evaluate(height);
    assert!(before.is_string(), "{text}");
    until("the height moves", || {
        (browser.evaluate(height) != before).then_some(())
    });

    let own = format!("http://{address}/");
    for request in browser.events("Network.requestWillBeSent") {
        let url = request["request"]["url"].as_str().unwrap();
        assert!(url.starts_with(&own) || url.starts_with("data:"), "{url}");
    }
    let thrown: Vec<_> = browser.events("Runtime.exceptionThrown").collect();
    assert!(thrown.is_empty(), "{thrown:?}");
    let logged = browser.events("Log.entryAdded");
    let errors: Vec<_> = logged
        .filter(|one| one["entry"]["level"] == "error")
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}
