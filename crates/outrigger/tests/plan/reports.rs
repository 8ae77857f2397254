//! The page with plots, and two scenarios beside each other.

use std::path::{Path, PathBuf};

use super::{DAY, SCENARIO, outrigger, plan};

fn folder() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plan-reports");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn the_page_needs_nothing_else_and_shows_names_as_they_are() {
    let page = folder().join("page.html");
    let odd = SCENARIO.replace("version: 1", "version: 1\nname: \"a <b> & \\\"c\\\"\"");
    let ran = plan(&odd, &["--html", page.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let text = std::fs::read_to_string(&page).unwrap();
    assert_eq!(text.matches("<svg").count(), 3);
    assert!(text.contains("a &lt;b&gt; &amp; &quot;c&quot;") && !text.contains("<b>"), "{}", &text[..400]);
    for outside in ["<script", "src=", "href=", "url("] {
        assert!(!text.contains(outside), "{outside}");
    }
    assert!(text.contains("pattern1-lambda") && text.contains("Worth it"), "{}", &text[..400]);
    let nowhere = plan(SCENARIO, &["--html", "/nowhere/page.html"]);
    assert_eq!(nowhere.code, Some(3), "{}", nowhere.err);
}

#[test]
fn a_change_of_the_file_is_a_change_of_the_answer() {
    let dir = folder();
    let (old, new) = (dir.join("old.yaml"), dir.join("new.yaml"));
    std::fs::write(&old, SCENARIO).unwrap();
    std::fs::write(
        &new,
        format!("{SCENARIO}constraints: {{ only_clouds: [aws], platform_team: false }}\n")
            .replace("aws, gpus: 24", "aws, gpus: 16"),
    )
    .unwrap();
    let args = [&["plan", "--diff", old.to_str().unwrap(), new.to_str().unwrap()], &DAY[..]].concat();
    let ran = outrigger(&args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("**The answer changes** from worth it: `"), "{}", ran.out);
    // 8 GPUs fewer at 6.88 for 730 hours.
    assert!(ran.out.contains("| `today` | $125,537.60 | $85,358.40 | -$40,179.20 (-32.0 %) |"), "{}", ran.out);
    let same =
        outrigger(&[&["plan", "--diff", old.to_str().unwrap(), old.to_str().unwrap(), "--json"], &DAY[..]].concat());
    let json = same.json();
    assert_eq!(json["before"], json["after"]);
    assert!(
        json["options"]
            .as_array()
            .unwrap()
            .iter()
            .all(|option| option["change_usd"] == 0.0 || option["before_usd"].is_null()),
        "{json:#}"
    );
}
