//! `GET /`: the page. One file without any other, so that it can be read in a browser that reaches
//! nothing but this port; the policy in its header has the browser enforce that.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};

const PAGE: &str = include_str!("page.html");

/// Only what stands in the page itself, and only this port to talk to. What peers tell (agents,
/// sentences) is shown as text by the script and never as markup.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) async fn serve() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_no_other_host_and_writes_no_markup() {
        for forbidden in [
            "//cdn",
            "http://",
            "https://",
            "src=",
            "@import",
            "innerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            let found = PAGE
                .replace("http://www.w3.org/2000/svg", "")
                .contains(forbidden);
            assert!(!found, "{forbidden}");
        }
        assert!(PAGE.contains("prefers-color-scheme: dark"));
        assert!(PAGE.is_ascii());
    }
}
