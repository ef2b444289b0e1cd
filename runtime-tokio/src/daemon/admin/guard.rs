//! Who may ask: nobody who was sent here by a web page from elsewhere (P11).
//!
//! `Host` must be an address, `localhost` or an allowed name, so that a foreign name that was made
//! to resolve to this machine is refused. `Origin`, which browsers send with whatever a page does
//! that is more than reading, must name the very host that was asked.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use super::reply::ReplyFailure;

/// Lets a request pass, or says why not.
pub(super) fn check(
    uri: &Uri,
    headers: &HeaderMap,
    allowed_hosts: &[String],
) -> Result<(), ReplyFailure> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let Some(host) = host.filter(|_| hosts.next().is_none()) else {
        return Err(ReplyFailure::forbidden("the request needs one well-formed Host header"));
    };
    for authority in [Some(&host), uri.authority()].into_iter().flatten() {
        if !is_answered(authority.host(), allowed_hosts) {
            return Err(ReplyFailure::forbidden(
                "this Host is neither an address nor localhost nor in listen.allowed_hosts",
            ));
        }
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    if origins.all(|origin| origin.to_str().is_ok_and(|origin| is_same(origin, &host))) {
        Ok(())
    } else {
        Err(ReplyFailure::forbidden("requests of web pages from elsewhere are refused (Origin)"))
    }
}

fn is_answered(host: &str, allowed_hosts: &[String]) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

/// Whether a page of this origin came from `host`; a proxy may have changed the scheme.
fn is_same(origin: &str, host: &Authority) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let standard = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(standard);
    authority.host().eq_ignore_ascii_case(host.host()) && port(&authority) == port(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().expect("a header"));
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().expect("a header"));
        }
        check(&Uri::from_static("/status"), &headers, &["ops.example".to_owned()]).is_ok()
    }

    #[test]
    fn addresses_localhost_and_allowed_names_are_answered() {
        for host in [
            "127.0.0.1:7401",
            "10.1.2.3",
            "[::1]:7401",
            "localhost:7401",
            "LocalHost",
            "ops.example:80",
            "OPS.example",
        ] {
            assert!(passes(host, None), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:7401", "ops.example.evil", "", "a b"] {
            assert!(!passes(host, None), "{host}");
        }
        assert!(check(&Uri::from_static("/"), &HeaderMap::new(), &[]).is_err());
    }

    // keeps: foreign-pages
    #[test]
    fn only_pages_from_the_same_host_may_ask() {
        assert!(passes("127.0.0.1:7401", Some("http://127.0.0.1:7401")));
        assert!(passes("ops.example", Some("https://ops.example")));
        assert!(passes("ops.example:443", Some("https://ops.example")));
        for origin in [
            "http://evil.example",
            "http://127.0.0.1:8080",
            "http://127.0.0.1",
            "null",
            "file://",
            "",
            "http://localhost:7401",
        ] {
            assert!(!passes("127.0.0.1:7401", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn a_request_for_another_host_by_its_whole_url_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().expect("a header"));
        assert!(check(&Uri::from_static("http://evil.example/status"), &headers, &[]).is_err());
    }
}
