//! The repository's own files: what git tracks, and what it would track (a new file is checked before its commit).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    /// Paths below the root with `/` between their parts, in order.
    pub(crate) files: BTreeSet<String>,
}

impl Tree {
    /// The repository that the current directory is in.
    pub(crate) fn of_repository() -> Result<Self> {
        let top = output("git", &["rev-parse", "--show-toplevel"], Path::new("."))?;
        let root = PathBuf::from(top.trim_end());
        let listed = output("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"], &root)?;
        // A file that is deleted but not yet committed is still listed; a link's target is listed itself.
        let is_file = |path: &&str| root.join(path).symlink_metadata().is_ok_and(|meta| meta.is_file());
        let files = listed.split_terminator('\0').filter(is_file).map(str::to_owned).collect();
        Ok(Self { root, files })
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.files.contains(path)
    }

    /// Whether some file lies below this directory.
    pub(crate) fn has_dir(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        path.is_empty() || self.files.range(prefix.clone()..).next().is_some_and(|file| file.starts_with(&prefix))
    }

    /// The files whose names end so, with their text.
    pub(crate) fn texts<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, String)> {
        self.files
            .iter()
            .filter(move |path| path.ends_with(suffix))
            .filter_map(|path| Some((&**path, self.text(path)?)))
    }

    /// `None` for a file that is not UTF-8 text.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let text = String::from_utf8(std::fs::read(self.root.join(path)).ok()?).ok()?;
        (!text.contains('\0')).then_some(text)
    }
}

/// A program's standard output; an error with its standard error when it fails.
pub(crate) fn output(program: &str, args: &[&str], dir: &Path) -> Result<String> {
    let ran = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .with_context(|| format!("could not run {program}"))?;
    if !ran.status.success() {
        bail!("{program} {} failed: {}", args.join(" "), String::from_utf8_lossy(&ran.stderr).trim());
    }
    String::from_utf8(ran.stdout).with_context(|| format!("{program} did not print UTF-8"))
}

#[cfg(test)]
pub(crate) mod planted {
    //! Small trees with a violation in them.

    use std::{
        ops::Deref,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::Tree;

    /// A tree in a directory of its own, removed when dropped.
    #[derive(Debug)]
    pub(crate) struct Planted(Tree);

    impl Deref for Planted {
        type Target = Tree;
        fn deref(&self) -> &Tree {
            &self.0
        }
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0.root));
        }
    }

    pub(crate) fn planted(files: &[(&str, &str)]) -> Planted {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("xtask-{}-{number}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Planted(Tree { root, files: files.iter().map(|(path, _)| (*path).to_owned()).collect() })
    }

    /// Runs one gate and compares what it says, in any order, with the expected beginnings.
    pub(crate) fn expect_faults(check: super::super::gates::Check, files: &[(&str, &str)], expect: &[&str]) {
        let faults = check(&planted(files));
        let all_said = expect.iter().all(|start| faults.iter().any(|fault| fault.starts_with(start)));
        assert!(all_said && faults.len() == expect.len(), "expected {expect:#?}, got {faults:#?}");
    }

    #[test]
    fn a_directory_is_there_when_a_file_lies_below_it() {
        let tree = planted(&[("docs/adr/1.md", ""), ("docs.md", "")]);
        assert!(tree.has_dir("docs") && tree.has_dir("docs/adr") && !tree.has_dir("doc") && !tree.has_dir("docs.md"));
    }
}
