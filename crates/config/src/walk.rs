//! The structural check: every key known, none missing, every value of its type.
//!
//! It walks the tree and the JSON Schema together and returns the value with what was at fault cut out, so that one
//! wrong key does not hide the faults behind it. A deserializer would stop at the first. Patterns are left to
//! [`super::resolve`], which can say what is wrong with a duration rather than that it does not match.

use serde_json::{Map, Number, Value as Json};

use super::{
    collect::{At, shown},
    fault::Code,
    tree::{Entry, Kind, Scalar, Value},
};

/// Checks `at` against `schema`; what is left of the value after cutting out faults.
pub(crate) fn walk(schema: &Json, at: &At<'_>) -> Option<Json> {
    Walk { root: schema }.node(schema, at)
}

struct Walk<'s> {
    root: &'s Json,
}

impl<'s> Walk<'s> {
    fn node(&self, schema: &'s Json, at: &At<'_>) -> Option<Json> {
        let node = at.node?;
        let branches = self.branches(schema);
        let fitting = |kind: &str| branches.iter().copied().find(|branch| branch["type"] == kind);
        match &node.value {
            Value::Broken => None,
            Value::Map(entries) => match fitting("object") {
                Some(branch) => Some(self.object(branch, entries, at)),
                None => wrong_type(&branches, "an object", at),
            },
            Value::Seq(items) => match fitting("array") {
                Some(branch) => self.list(branch, items.len(), at),
                None => wrong_type(&branches, "a list", at),
            },
            Value::Scalar(text) => scalar(&branches, text, at),
        }
    }

    /// The alternatives that a value may follow, references followed.
    fn branches(&self, schema: &'s Json) -> Vec<&'s Json> {
        let schema = self.deref(schema);
        let alternatives =
            |key: &str| schema[key].as_array().filter(|all| all.iter().all(|one| one.get("const").is_none()));
        match alternatives("anyOf").or_else(|| alternatives("oneOf")) {
            Some(all) => all.iter().flat_map(|one| self.branches(one)).collect(),
            None => vec![schema],
        }
    }

    fn deref(&self, schema: &'s Json) -> &'s Json {
        match schema["$ref"].as_str().and_then(|to| to.strip_prefix('#')) {
            Some(pointer) => self.root.pointer(pointer).unwrap_or(schema),
            None => schema,
        }
    }

    fn object<'a>(&self, schema: &'s Json, entries: &'a [Entry], at: &At<'a>) -> Json {
        let mut object = Map::new();
        let mut guessed = Vec::new();
        for entry in entries {
            let here = at.entry(&entry.key, Some(entry));
            if let Some(child) = schema["properties"].get(&entry.key) {
                if let Some(value) = self.node(child, &here) {
                    object.insert(entry.key.clone(), value);
                }
            } else if schema["additionalProperties"].is_object() {
                let value = self.node(&schema["additionalProperties"], &here);
                object.insert(entry.key.clone(), value.unwrap_or(Json::Null));
            } else {
                guessed.extend(unknown_key(schema, &entry.key, entries, &here));
            }
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
        for key in required.filter(|key| !entries.iter().any(|entry| entry.key == *key) && !guessed.contains(key)) {
            let message = if at.path.is_empty() {
                format!("the {} has no `{key}`", at.thing())
            } else {
                format!("`{}` has no `{key}`", at.path)
            };
            let missing = at.key(key);
            missing.error_at_key(
                Code::MissingKey,
                message,
                format!("add `{key}:` {}", self.purpose(&schema["properties"][key])),
            );
        }
        Json::Object(object)
    }

    /// What a key is for, in the words of the schema.
    fn purpose(&self, schema: &'s Json) -> String {
        let own = schema["description"].as_str().or_else(|| self.deref(schema)["description"].as_str());
        let text = own.unwrap_or_default().replace('\n', " ");
        let text = text.trim().trim_end_matches('.');
        if text.is_empty() { "here".to_owned() } else { format!("({})", shown_purpose(text)) }
    }

    fn list(&self, schema: &'s Json, length: usize, at: &At<'_>) -> Option<Json> {
        if length == 0 && schema["minItems"].as_u64().is_some_and(|least| least > 0) {
            at.error_at_value(
                Code::Empty,
                "this list is empty",
                "put something into it, or remove the key to get its default",
            );
            return None;
        }
        let item = |index| self.node(&schema["items"], &at.index(index)).unwrap_or(Json::Null);
        Some(Json::Array((0..length).map(item).collect()))
    }
}

fn scalar(branches: &[&Json], scalar: &Scalar, at: &At<'_>) -> Option<Json> {
    let kind = scalar.kind();
    let takes = |name: &str| branches.iter().copied().find(|branch| takes(branch, name));
    let fitting = match kind {
        Kind::Null => None,
        Kind::Bool(_) => takes("boolean"),
        Kind::Int(_) => takes("integer").or_else(|| takes("number")),
        Kind::Float(_) => takes("number"),
        Kind::Text => takes("string"),
    };
    let Some(branch) = fitting else { return wrong_scalar(branches, scalar, kind, at) };
    if let Some(allowed) = choices(branch) {
        return choose(&allowed, scalar, kind, at);
    }
    let value = match kind {
        Kind::Bool(truth) => Json::Bool(truth),
        Kind::Int(int) => Json::Number(int.into()),
        Kind::Float(float) => {
            let Some(number) = Number::from_f64(float) else {
                at.error(Code::OutOfRange, "this number is too large", "write a number that fits here");
                return None;
            };
            Json::Number(number)
        }
        _ => return Some(Json::String(scalar.text.clone())),
    };
    in_range(branch, &value, at).then_some(value)
}

fn wrong_type(branches: &[&Json], found: &str, at: &At<'_>) -> Option<Json> {
    let wanted = wanted(branches);
    let help = match example(branches) {
        Some(example) => format!("write {wanted}, such as `{example}`"),
        None => format!("write {wanted} here"),
    };
    at.error_at_value(Code::WrongType, format!("{wanted} belongs here, and {found} stands here"), help);
    None
}

/// Reports a key that does not exist; the known key that was probably meant.
fn unknown_key<'s>(schema: &'s Json, key: &str, entries: &[Entry], here: &At<'_>) -> Option<&'s str> {
    let known = || schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let nearest = nearest(key, known());
    let help = match nearest {
        Some(name) if entries.iter().any(|entry| entry.key == name) => {
            format!("remove it; `{name}` is here already")
        }
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("remove it, or use one of: {}", known().collect::<Vec<_>>().join(", ")),
    };
    here.error_at_key(Code::UnknownKey, format!("there is no key `{}` here", shown(key)), help);
    nearest
}

/// The candidate with the fewest edits, if it is near enough to be a slip.
pub(crate) fn nearest<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const LONGEST: usize = 80;
    if name.len() > LONGEST {
        return None;
    }
    let near_enough = (name.chars().count() / 3).max(1);
    let lower = name.to_ascii_lowercase();
    candidates
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (strsim::osa_distance(&lower, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= near_enough)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn takes(branch: &Json, kind: &str) -> bool {
    branch["type"] == kind || choices(branch).is_some_and(|all| all.iter().all(|one| json_type(one) == kind))
}

fn json_type(value: &Json) -> &'static str {
    match value {
        Json::String(_) => "string",
        Json::Number(_) => "integer",
        _ => "other",
    }
}

/// The values of an enumeration.
fn choices(branch: &Json) -> Option<Vec<&Json>> {
    if let Some(all) = branch["enum"].as_array() {
        return Some(all.iter().collect());
    }
    branch["oneOf"].as_array()?.iter().map(|one| one.get("const")).collect()
}

fn choose(allowed: &[&Json], scalar: &Scalar, kind: Kind, at: &At<'_>) -> Option<Json> {
    let value = match kind {
        Kind::Int(int) => Json::Number(int.into()),
        _ => Json::String(scalar.text.clone()),
    };
    if allowed.contains(&&value) {
        return Some(value);
    }
    if at.path == "version" {
        at.error(
            Code::UnsupportedVersion,
            format!("version {} is not one that this release reads", shown(&scalar.text)),
            "write `version: 1`, or use the release of Outrigger that this file was written for",
        );
        return None;
    }
    let words = || allowed.iter().filter_map(|one| one.as_str());
    let all: Vec<String> =
        allowed.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
    let all = all.join(", ");
    let help = match nearest(&scalar.text, words()) {
        Some(word) => format!("did you mean `{word}`? It may be: {all}"),
        None => format!("write one of: {all}"),
    };
    at.error(Code::NotOneOf, format!("{} is not a value of this key", at.shown()), help);
    None
}

fn in_range(branch: &Json, value: &Json, at: &At<'_>) -> bool {
    let Some(number) = value.as_f64() else { return true };
    let least = branch["minimum"].as_f64();
    let most = branch["maximum"].as_f64();
    if least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most) {
        return true;
    }
    let bounds = match (least, most) {
        (Some(least), Some(most)) => format!("from {least} to {most}"),
        (Some(least), None) => format!("of at least {least}"),
        (None, Some(most)) => format!("of at most {most}"),
        (None, None) => String::new(),
    };
    at.error(Code::OutOfRange, format!("{} is out of range", at.shown()), format!("write a number {bounds}"));
    false
}

/// A scalar of a type that does not belong here; the units and quotes that were forgotten have their own words.
fn wrong_scalar(branches: &[&Json], scalar: &Scalar, kind: Kind, at: &At<'_>) -> Option<Json> {
    let wanted = wanted(branches);
    let text = shown(&scalar.text);
    let takes_any = |names: &[&str]| branches.iter().any(|branch| names.iter().any(|name| takes(branch, name)));
    let is_number = matches!(kind, Kind::Int(_) | Kind::Float(_));
    let title = branches.iter().find_map(|branch| branch["title"].as_str().filter(|_| branch["type"] == "string"));
    let (code, message, help) = match title {
        _ if kind == Kind::Null => {
            let message = "there is no value here".to_owned();
            let help = if takes_any(&["object"]) {
                "write `{}` if everything in it is left to its defaults, or remove the key".to_owned()
            } else {
                format!("write {wanted}, or remove the key")
            };
            (Code::WrongType, message, help)
        }
        Some("duration") if is_number => {
            let message = format!("`{text}` has no unit");
            (Code::BadDuration, message, format!("write {text}ms for milliseconds, or {text}s for seconds"))
        }
        Some("size") if is_number => {
            let message = format!("`{text}` has no unit");
            (Code::BadSize, message, format!("write {text}MiB, or {text}B for bytes"))
        }
        _ if is_number && takes_any(&["integer"]) => {
            let message = format!("{} is not a whole number that fits here", at.shown());
            let is_weight = at.path.contains(".split");
            let relative = if is_weight { "; weights are relative, so 0.6 and 0.4 are 60 and 40" } else { "" };
            (Code::WrongType, message, format!("write a whole number{relative}"))
        }
        _ if takes_any(&["string"]) && kind != Kind::Text => {
            let message = format!("{wanted} belongs here, and {} stands here", name_of(kind));
            let help = match example(branches) {
                Some(example) => format!("write {wanted}, such as `{example}`"),
                None => format!("quote it: \"{text}\""),
            };
            (Code::WrongType, message, if at_secret(at) { "write it in quotes".to_owned() } else { help })
        }
        _ if !scalar.plain && Scalar { text: scalar.text.clone(), plain: true }.kind() != Kind::Text => {
            let message = format!("{wanted} belongs here, and text stands here");
            (Code::WrongType, message, "remove the quotes".to_owned())
        }
        _ => {
            let message = format!("{wanted} belongs here, and {} stands here", name_of(kind));
            let help =
                example(branches).map_or(format!("write {wanted} here"), |e| format!("write {wanted}, such as `{e}`"));
            (Code::WrongType, message, help)
        }
    };
    at.error(code, message, help);
    None
}

fn at_secret(at: &At<'_>) -> bool {
    at.shown() == "this value"
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "nothing",
        Kind::Bool(_) => "a truth value",
        Kind::Int(_) | Kind::Float(_) => "a number",
        Kind::Text => "text",
    }
}

/// What belongs here, in words.
fn wanted(branches: &[&Json]) -> String {
    let mut words: Vec<String> = Vec::new();
    for branch in branches {
        let word = match (branch["type"].as_str(), branch["title"].as_str()) {
            (Some("string"), Some("address" | "url")) => format!("an {}", branch["title"].as_str().unwrap_or_default()),
            (Some("string"), Some(title)) => format!("a {title}"),
            (Some("object"), _) => "an object".to_owned(),
            (Some("array"), _) => "a list".to_owned(),
            (Some("integer"), _) => "a whole number".to_owned(),
            (Some("number"), _) => "a number".to_owned(),
            (Some("boolean"), _) => "`true` or `false`".to_owned(),
            (Some("string"), _) => "text".to_owned(),
            _ => "a word".to_owned(),
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" or ")
}

fn example(branches: &[&Json]) -> Option<String> {
    let example = branches.iter().find_map(|branch| branch["examples"].as_array()?.first()?.as_str())?;
    // Only within quotes is it what it looks like.
    Some(if example.starts_with('$') { format!("\"{example}\"") } else { example.to_owned() })
}

/// The first sentence, so that a help text stays one line.
fn shown_purpose(text: &str) -> String {
    let first = text.split(". ").next().unwrap_or(text);
    let mut letters = first.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(letter), Some(second)) if second.is_lowercase() => letter.to_lowercase().chain(letters).collect(),
        _ => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_a_slip_away_or_none() {
        let known = ["llama", "mixtral", "qwen"];
        assert_eq!(nearest("lama", known.into_iter()), Some("llama"));
        assert_eq!(nearest("Qwen", known.into_iter()), Some("qwen"));
        assert_eq!(nearest("gpt", known.into_iter()), None);
    }
}
