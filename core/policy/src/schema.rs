//! The policy's shape as a JSON Schema (draft 2020-12), for editors that complete and check TOML.

use serde_json::{Map, Value, json};

use crate::catalogue::{Kind, Section, section};

/// The schema of a policy, as a JSON value.
///
/// It says what each key may hold; the rules that join keys (what an allow entry is known by) are told by
/// [`Policy::parse`](crate::Policy::parse) alone.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = section("").map_or_else(|| json!({}), of_section);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Davy policy".into();
    schema
}

fn of_section(section: &'static Section) -> Value {
    let mut properties = Map::new();
    let mut required: Vec<Value> = Vec::new();
    for key in section.keys.iter().filter(|k| !matches!(k.kind, Kind::Refused { .. })) {
        let mut shape = of_kind(&key.kind);
        shape["description"] = key.doc.into();
        properties.insert(key.name.to_owned(), shape);
        if key.required {
            required.push(key.name.into());
        }
    }
    for child in section.children() {
        let shape = of_section(child);
        let shape = if child.repeated { json!({"type": "array", "items": shape}) } else { shape };
        properties.insert(child.name().to_owned(), shape);
    }
    json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn of_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Mode { enforce: true } => json!({"enum": ["off", "observe", "enforce"]}),
        Kind::Mode { enforce: false } | Kind::Observed { .. } => json!({"enum": ["off", "observe"]}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Integer { min, max } => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Number { min, max } => json!({"type": "number", "minimum": min, "maximum": max}),
        Kind::Duration { off, .. } => {
            let pattern = "(?=.)([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?";
            let pattern = if *off { format!("^(off|{pattern})$") } else { format!("^{pattern}$") };
            json!({"type": "string", "pattern": pattern})
        }
        Kind::Size { .. } => json!({"type": "string", "pattern": "^[0-9]+ *([kMGT]B|[KMGT]iB|B)$"}),
        Kind::Text => json!({"type": "string", "minLength": 1}),
        Kind::File => json!({"type": "string", "minLength": 1, "pattern": "^[^/]"}),
        Kind::Folder => json!({"type": "string", "pattern": "^/[^/]"}),
        Kind::OneOf(words) => json!({"enum": words}),
        Kind::Cgroup => json!({"type": "string", "pattern": "^/"}),
        Kind::Digest => json!({"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"}),
        Kind::Ports => {
            let one = json!({"anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65_535},
                {"type": "string", "pattern": "^[0-9]+( *- *[0-9]+)?$"}
            ]});
            json!({"anyOf": [one, {"type": "array", "items": one}]})
        }
        Kind::Network => json!({"type": "string", "pattern": "^[0-9A-Fa-f.:]+(/[0-9]+)?$"}),
        Kind::Date => json!({"type": "string", "description": "a TOML date"}),
        Kind::Refused { .. } => json!(false),
        Kind::List(one) => json!({"type": "array", "items": of_kind(one), "uniqueItems": true}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_is_in_the_schema() {
        let schema = json_schema();
        assert!(
            schema["properties"]["mining"]["properties"]["allow"]["items"]["properties"]["sha256"]
                .is_object()
        );
        let evidence =
            &schema["properties"]["test"]["items"]["properties"]["given"]["properties"]["evidence"];
        assert_eq!(evidence["properties"].as_object().map(Map::len), Some(14));
        assert!(
            schema["properties"]["mining"]["properties"]["allow"]["items"]["properties"]["path"].is_null()
        );
    }
}
