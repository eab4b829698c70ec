//! Where nobody is sent: to what a cloud tells its machines about themselves.
//!
//! These services give credentials to whoever asks from inside, so an address of one that slips
//! into a configuration, or into the answer of a name server, would send them requests of callers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Whether a provider may be at a link-local address or at one of a metadata service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkLocal {
    /// Such addresses are refused, when a file is read and again when a name is looked up.
    #[default]
    Refused,
    /// The operator means it.
    Allowed,
}

/// Names of metadata services.
const NAMES: [&str; 4] =
    ["metadata.google.internal", "metadata.goog", "metadata", "instance-data.ec2.internal"];

/// Addresses of metadata services that are not link-local: Alibaba, Azure, Oracle.
const V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// The same of AWS and Google.
const V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Whether an address is link-local or one of a metadata service, however it is written.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => it.is_link_local() || V4.contains(&it),
        IpAddr::V6(it) => {
            it.is_unicast_link_local() || V6.contains(&it) || inside(it).is_some_and(is_link_local)
        }
    }
}

/// The address of version 4 inside one of version 6: mapped, or translated (RFC 6052).
fn inside(address: Ipv6Addr) -> Option<IpAddr> {
    let translated = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let [.., a, b, c, d] = address.octets();
    let last = translated.then(|| Ipv4Addr::new(a, b, c, d));
    address.to_ipv4_mapped().or(last).map(IpAddr::V4)
}

/// Whether a URL leads there by its own words; what a name leads to is seen when it is looked up.
pub(super) fn leads_there(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(it)) => is_link_local(it.into()),
        Some(Host::Ipv6(it)) => is_link_local(it.into()),
        Some(Host::Domain(name)) => NAMES.contains(&name.trim_end_matches('.')),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{faults, parse};

    fn with(url: &str, more: &str) -> String {
        format!("[provider.a]\nbase_url = '{url}'\n{more}\n")
    }

    /// B-77
    #[test]
    fn link_local_and_metadata_addresses_are_refused_unless_allowed() {
        for url in [
            "http://169.254.169.254/latest",
            "http://169.254.0.1",
            "https://2852039166/",
            "http://0xa9fea9fe",
            "http://0251.0376.0251.0376",
            "http://[fe80::1]",
            "http://[febf::1]",
            "http://[::ffff:169.254.169.254]",
            "http://[64:ff9b::169.254.169.254]",
            "http://[fd00:ec2::254]",
            "http://[fd20:ce::254]",
            "http://100.100.100.200",
            "http://168.63.129.16",
            "http://METADATA.google.internal./computeMetadata",
            "http://metadata",
        ] {
            let faults = faults(&with(url, ""));
            assert!(faults.contains("link-local"), "{url}: {faults}");
            assert!(faults.contains("allow_link_local = true"), "{url}: {faults}");
            assert!(parse(&with(url, "allow_link_local = true")).is_ok(), "{url}");
        }
        for url in ["http://127.0.0.1:1", "http://10.0.0.1", "http://[fd00::1]", "http://meta.io"] {
            assert!(parse(&with(url, "")).is_ok(), "{url}");
        }
    }

    /// B-77
    #[test]
    fn the_judge_is_held_to_the_same_and_other_schemes_are_refused() {
        let judge = "[judge]\nmodel = 'm'\nbase_url = 'http://169.254.169.254'";
        assert!(faults(&with("http://a", judge)).contains("in [judge] is a link-local"));
        for url in ["file:///etc/passwd", "gopher://a", "unix:/run/a", "ftp://a"] {
            assert!(faults(&with(url, "")).contains("neither http nor https"), "{url}");
        }
    }
}
