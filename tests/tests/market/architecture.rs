//! The directions between crates (ARCHITECTURE.md), held against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// What each package of ours may use of ours, and the one package that may use
/// a library that is to stay behind it.
const OURS: &[(&str, &[&str])] = &[
    ("infernet-protocol", &[]),
    ("infernet-node", &[]),
    ("infernet-engine", &["infernet-protocol"]),
    ("infernet-blobs", &["infernet-protocol", "infernet-node"]),
    ("infernet-payments", &["infernet-protocol", "infernet-node"]),
    ("infernet-relay", &["infernet-protocol", "infernet-node"]),
    (
        "infernet-provider",
        &[
            "infernet-protocol",
            "infernet-node",
            "infernet-blobs",
            "infernet-engine",
            "infernet-payments",
        ],
    ),
    (
        "infernet-client",
        &[
            "infernet-protocol",
            "infernet-node",
            "infernet-blobs",
            "infernet-payments",
        ],
    ),
    (
        // It buys, as any client does.
        "infernet-aggregator",
        &[
            "infernet-protocol",
            "infernet-node",
            "infernet-blobs",
            "infernet-payments",
            "infernet-client",
        ],
    ),
    ("infernet-regtest", &[]),
    (
        "infernet-tests",
        &["infernet-protocol", "infernet-payments", "infernet-regtest"],
    ),
];
const BEHIND: &[(&str, &str)] = &[
    ("tch", "infernet-engine"),
    ("heed", "infernet-relay"),
    ("lightning-invoice", "infernet-payments"),
];
/// What only tests and benchmarks use, as peers of ours.
const PEERS: &[&str] = &["nostr-relay-builder", "nostr-lmdb"];
/// What would bring a clock, randomness or I/O into the protocol.
const IMPURE: &[&str] = &[
    "tokio", "sqlx", "reqwest", "rand", "chrono", "time", "tracing", "futures",
];

#[test]
fn packages_use_each_other_in_one_direction() {
    let uses = dependencies();
    let allowed: BTreeMap<_, BTreeSet<_>> = OURS
        .iter()
        .map(|(package, of)| (*package, of.iter().copied().collect()))
        .collect();
    for (package, dependencies) in &uses {
        let allowed = allowed
            .get(package.as_str())
            .unwrap_or_else(|| panic!("{package} has no place in ARCHITECTURE.md's map"));
        for dependency in dependencies.iter().filter(|d| d.starts_with("infernet-")) {
            assert!(
                allowed.contains(dependency.as_str()),
                "{package} must not use {dependency}"
            );
        }
    }
    assert_eq!(uses.len(), OURS.len(), "a package is missing");
}

#[test]
fn libraries_stay_behind_their_package() {
    for (package, dependencies) in dependencies() {
        for (library, owner) in BEHIND {
            assert!(
                package == *owner || !dependencies.contains(*library),
                "only {owner} may use {library}, and {package} does"
            );
        }
    }
}

#[test]
fn no_program_uses_what_it_is_compared_with() {
    for (package, dependencies) in dependencies() {
        for library in PEERS {
            assert!(
                !dependencies.contains(*library),
                "{package} must not use {library}, tests aside"
            );
        }
    }
}

#[test]
fn the_protocol_is_pure() {
    let uses = dependencies();
    for library in IMPURE {
        assert!(
            !uses["infernet-protocol"].contains(*library),
            "protocol must not use {library}"
        );
    }
}

/// What each package of the workspace uses, tests aside.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let used = package["dependencies"].as_array().unwrap().iter();
            let names = used
                .filter(|d| d["kind"].is_null())
                .map(|d| d["name"].as_str().unwrap().to_owned())
                .collect();
            (package["name"].as_str().unwrap().to_owned(), names)
        })
        .collect()
}
