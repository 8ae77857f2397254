//! A page that claims something names the test that holds it, and the test is there.
//!
//! In a table whose last column is headed `held by`, every row names at least one test in that column, as its runner calls
//! it: `gateway::secrets::secrets_come_out_nowhere` for one of Rust, by the modules that its file stands in, and
//! `e2e::tls::old_versions_are_refused` for one of `tests/e2e/tls.py`. Whether a test proves what is claimed no gate can
//! say; that it was renamed or deleted it can.

use crate::tree::Tree;

/// The heading of the column.
const HEADING: &str = "held by";

pub(crate) fn claims(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    for (page, text) in tree.texts(".md") {
        let mut in_table = false;
        for (index, line) in text.lines().enumerate() {
            let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
            if !line.starts_with('|') {
                in_table = false;
            } else if cells.last() == Some(&HEADING) {
                in_table = true;
            } else if in_table && !line.starts_with("|--") {
                let place = format!("{page}:{}", index + 1);
                faults
                    .extend(row(tree, cells.last().unwrap_or(&"")).into_iter().map(|what| format!("{place}: {what}")));
            }
        }
    }
    faults
}

fn row(tree: &Tree, cell: &str) -> Vec<String> {
    let named: Vec<&str> = cell.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    if named.is_empty() {
        return vec!["no test is named for this claim: name one, or say elsewhere that it is not tested".to_owned()];
    }
    let absent = named.into_iter().filter(|name| !is_there(tree, name));
    absent.map(|name| format!("there is no test `{name}`: correct the name, or the claim")).collect()
}

fn is_there(tree: &Tree, name: &str) -> bool {
    let mut modules: Vec<&str> = name.split("::").filter(|part| *part != "tests").collect();
    let Some(test) = modules.pop() else { return false };
    if modules.first() == Some(&"e2e") {
        let path = format!("tests/{}.py", modules.join("/"));
        let defined = format!("def {test}(");
        // Once where it is defined, and once where it is run.
        return tree.text(&path).is_some_and(|text| text.contains(&defined) && text.matches(test).count() > 1);
    }
    let end = format!("/{}", modules.join("/"));
    let is_the_file = |path: &str| {
        let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
        path.ends_with(&end)
    };
    tree.texts(".rs").any(|(path, text)| is_the_file(path) && has_test(&text, test))
}

/// A function of that name with `#[test]` among its attributes.
fn has_test(text: &str, name: &str) -> bool {
    let signature = format!("fn {name}(");
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.contains(&signature) && is_test {
            return true;
        }
        let goes_on = line.starts_with("#[") || line.starts_with("//");
        is_test = (is_test && goes_on) || line == "#[test]" || line.starts_with("#[tokio::test");
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted::expect_faults;

    #[test]
    fn a_claim_without_a_test_that_is_there_is_a_fault() {
        let page = "| claim | held by |\n|---|---|\n| a | `gateway::keys::here`, `auth::tests::unit` |\n| b | nothing |\n\
                    | c | `gateway::keys::gone`, `keys::helper` |\n| d | `e2e::tls::old` and `e2e::tls::unused` |\n\n\
                    | other | table |\n|---|---|\n| e | `gone::too` |\n";
        let files = [
            ("docs/security.md", page),
            ("crates/a/tests/gateway/keys.rs", "#[test]\n#[ignore = \"x\"]\nfn here() {}\nfn helper() {}\n"),
            ("crates/b/src/auth.rs", "mod tests {\n    #[test]\n    fn unit() {}\n}\n"),
            ("tests/e2e/tls.py", "def old(g):\n    pass\ndef unused(g):\n    pass\nTESTS = [old]\n"),
        ];
        let expect = [
            "docs/security.md:4: no test is named",
            "docs/security.md:5: there is no test `gateway::keys::gone`",
            "docs/security.md:5: there is no test `keys::helper`",
            "docs/security.md:6: there is no test `e2e::tls::unused`",
        ];
        expect_faults(claims, &files, &expect);
    }
}
