//! Relative links in Markdown: the file must be one of the repository's, and the `#anchor` one of its headings.
//!
//! Links are found by their shape outside code, which is enough for prose that people write by hand; a full Markdown
//! parser would be a dependency for a gate. Links to other hosts are left alone: CI does not use the network.

use std::collections::BTreeMap;

use crate::tree::Tree;

pub(crate) fn links(tree: &Tree) -> Vec<String> {
    let pages: BTreeMap<&str, String> = tree.texts(".md").collect();
    let mut faults = Vec::new();
    for (page, text) in &pages {
        for (line, target) in targets(text) {
            if let Some(why) = broken(tree, &pages, page, &target) {
                faults.push(format!("{page}:{line}: {target}: {why}"));
            }
        }
    }
    faults
}

fn broken(tree: &Tree, pages: &BTreeMap<&str, String>, page: &str, target: &str) -> Option<String> {
    let scheme = target.split(['/', '#', '?']).next().is_some_and(|head| head.contains(':'));
    if scheme || target.starts_with("//") {
        return None;
    }
    let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
    let Some(path) = (if path.is_empty() { Some(page.to_owned()) } else { resolve(page, path) }) else {
        return Some("leaves the repository: link to something in it".to_owned());
    };
    if !tree.has(&path) && !tree.has_dir(&path) {
        return Some(format!("there is no {path}: correct the link or add the file"));
    }
    let (anchor, text) = (anchor?, pages.get(&*path)?);
    let known = anchors(text);
    (!known.iter().any(|one| one == anchor))
        .then(|| format!("{path} has no such heading; it has #{}", known.join(" #")))
}

/// The path below the root that a link on `page` means; `None` when it leads out of the repository.
fn resolve(page: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    if link.starts_with('/') {
        parts.clear();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Every link's target with its line, counted from 1: `[text](target)`, `[name]: target`, `href="…"`, `src="…"`.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        for (open, close) in [("](", ')'), ("href=\"", '"'), ("src=\"", '"')] {
            for (at, _) in line.match_indices(open) {
                let rest = &line[at + open.len()..];
                found.extend(rest.find(close).map(|end| (number, first_word(&rest[..end]))));
            }
        }
        let definition = line.trim_start().strip_prefix('[').filter(|rest| !rest.starts_with('^'));
        if let Some((_, target)) = definition.and_then(|rest| rest.split_once("]:")) {
            found.push((number, first_word(target)));
        }
    }
    found.retain(|(_, target)| !target.is_empty());
    found
}

/// A link may have a title after its target, and angle brackets around it.
fn first_word(target: &str) -> String {
    target.split_whitespace().next().unwrap_or_default().trim_matches(['<', '>']).to_owned()
}

/// The lines outside fenced code, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let trimmed = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|marker| trimmed.starts_with(marker));
        match (fence, marker) {
            (None, None) => return Some((index + 1, line)),
            (None, _) => fence = marker,
            (Some(open), Some(mark)) if open == mark => fence = None,
            (Some(_), _) => {}
        }
        None
    })
}

fn without_code(line: &str) -> String {
    if line.matches('`').count() % 2 == 1 {
        return line.to_owned();
    }
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The anchors that GitHub gives the headings, and those written as `id="…"`.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = Vec::new();
    for (_, line) in prose(text) {
        anchors.extend(line.split("id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        let level = line.bytes().take_while(|&byte| byte == b'#').count();
        if !(1..=6).contains(&level) || !line[level..].starts_with(' ') {
            continue;
        }
        let slug = slug(line[level..].trim().trim_end_matches('#').trim_end());
        let repeats = seen.entry(slug.clone()).or_default();
        anchors.push(if *repeats == 0 { slug } else { format!("{slug}-{repeats}") });
        *repeats += 1;
    }
    anchors
}

fn slug(heading: &str) -> String {
    // Of a link, GitHub keeps the text.
    let mut plain = String::new();
    let mut rest = heading;
    while let Some((before, after)) = rest.split_once("](") {
        plain.push_str(before);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    let kept = plain.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::planted::expect_faults;

    #[test]
    fn links_that_lead_somewhere_pass() {
        let page = "# Life of a request\n## Twice\n## Twice\n## `a_b`, and [more](../README.md)!\n<a id=\"own\"></a>\n\
                    [up](../README.md \"title\") [dir](adr) [adr](<adr/1.md>) [self](#life-of-a-request) [2](#twice-1)\n\
                    [odd](#a_b-and-more) [own](#own) [web](https://example.com/x#y) [mail](mailto:a@example.com)\n\
                    ```\n[not a link](nowhere.md)\n```\nand `[nor this](nowhere.md)`, but [root](/README.md#top)\n[ref]: adr/1.md\n";
        expect_faults(links, &[("docs/page.md", page), ("docs/adr/1.md", ""), ("README.md", "# Top")], &[]);
    }

    #[test]
    fn links_that_lead_nowhere_are_faults() {
        let page = "[gone](gone.md)\n[case](Readme.md)\n[anchor](README.md#bottom)\n[out](../../etc/x.md)\n\
                    <img src=\"gone.svg\">\n[ref]: gone/\n";
        let expect = [
            "page.md:1: gone.md: there is no gone.md",
            "page.md:2: Readme.md: there is no Readme.md",
            "page.md:3: README.md#bottom: README.md has no such heading; it has #top",
            "page.md:4: ../../etc/x.md: leaves the repository",
            "page.md:5: gone.svg: there is no gone.svg",
            "page.md:6: gone/: there is no gone:",
        ];
        expect_faults(links, &[("page.md", page), ("README.md", "# Top")], &expect);
    }
}
