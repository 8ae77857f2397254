//! The JSON Schema of the fleet file, made from the types in [`super::raw`].
//!
//! schemars describes what serde would accept, which is more than a fleet file may hold: it lets every optional field
//! be null. Nulls and Rust's number formats are taken out, so that an editor says what `check` says. What the schema
//! cannot say (references, sums, units that belong together) is checked in [`super::resolve`].

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::raw;

/// The schema as a JSON value, draft 2020-12.
pub fn json_schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let mut schema =
            SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<raw::Fleet>().to_value();
        tidy(&mut schema);
        schema
    })
}

/// The same of a scenario.
pub(crate) fn scenario_schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let generator = SchemaSettings::draft2020_12().into_generator();
        let mut schema = generator.into_root_schema_for::<crate::scenario::raw::Scenario>().to_value();
        tidy(&mut schema);
        schema
    })
}

/// The text of `fleet.schema.json`.
pub fn json_schema_text() -> String {
    format!("{:#}\n", json_schema())
}

/// The text of `scenario.schema.json`.
pub fn scenario_schema_text() -> String {
    format!("{:#}\n", scenario_schema())
}

fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(object) => {
            tidy_object(object);
            object.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

fn tidy_object(object: &mut Map<String, Value>) {
    if object.get("format").is_some_and(|format| format != "uri") && object.contains_key("type") {
        object.remove("format");
    }
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    if let Some(Value::Array(choices)) = object.get_mut("enum") {
        choices.retain(|choice| !choice.is_null());
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|t| t != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            object.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
        branches.retain(|branch| branch != &json!({ "type": "null" }));
        if let [Value::Object(one)] = branches.as_slice() {
            let one = one.clone();
            object.remove("anyOf");
            // The field's own description says more than its type's.
            one.into_iter().for_each(|(key, value)| {
                object.entry(key).or_insert(value);
            });
            tidy_object(object);
        }
    }
}
