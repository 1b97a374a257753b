//! Answers as they were found right, kept in `tests/golden`.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::path::Path;

/// Compares with `tests/golden/NAME`; with `UPDATE_GOLDEN=1` in the environment, writes it.
pub fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    // The order of an object's fields is no promise.
    let same = match name.ends_with(".json") {
        true => values(&expected) == values(&text),
        false => expected == text,
    };
    assert!(
        same,
        "{} differs; after a look, renew it with UPDATE_GOLDEN=1\n--- expected\n{expected}\n--- found\n{text}",
        path.display()
    );
}

fn values(text: &str) -> Vec<serde_json::Value> {
    serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect()
}
