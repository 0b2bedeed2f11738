//! `cargo xtask tidy`: what compilers do not check about the repository, in well under a second.
//!
//! Each rule is a function that returns the places where it is broken. It reads files that git knows (or would add), so
//! that build results and ignored folders never count, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cargo;
use crate::out::outln;
use crate::repo::{self, Fallible};

/// STYLE: past this, look for the second noun.
const FILE_LINES_MAX: usize = 800;

/// The repository's text files, by path from the root.
struct Files {
    texts: BTreeMap<PathBuf, String>,
}

/// `cargo xtask tidy`.
///
/// # Errors
///
/// With the number of places that break a rule; each is printed.
pub(crate) fn tidy() -> Fallible<()> {
    let complaints = complaints()?;
    for complaint in &complaints {
        outln!("{complaint}");
    }
    match complaints.len() {
        0 => Ok(()),
        count => Err(format!("tidy: {count} complaints")),
    }
}

/// All places that break a rule.
pub(crate) fn complaints() -> Fallible<Vec<String>> {
    let files = Files::read()?;
    let mut complaints = long_files(&files);
    complaints.extend(unfinished_code(&files));
    complaints.extend(broken_links(&files));
    complaints.extend(pages_that_translations_miss(&files));
    complaints.extend(undocumented_variables(&files));
    complaints.extend(undocumented_dependencies(&files, &direct_dependencies()?));
    complaints.extend(members_without_an_image(&files));
    Ok(complaints)
}

impl Files {
    fn read() -> Fallible<Self> {
        let root = repo::root();
        let output = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(&root)
            .output()
            .map_err(|error| format!("cannot run git: {error}"))?;
        if !output.status.success() {
            return Err(format!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        let paths = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from);
        // A file that git lists but that is deleted or binary has no text to check.
        let texts = paths
            .filter_map(|path| Some((path.clone(), fs::read_to_string(root.join(&path)).ok()?)))
            .collect();
        Ok(Self { texts })
    }

    fn with_extension(&self, extension: &str) -> impl Iterator<Item = (&Path, &str)> {
        let matching = self
            .texts
            .iter()
            .filter(move |(path, _)| path.extension().is_some_and(|found| found == extension));
        matching.map(|(path, text)| (path.as_path(), text.as_str()))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(Path::new(path)).map(String::as_str)
    }
}

fn long_files(files: &Files) -> Vec<String> {
    let long = files
        .with_extension("rs")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX);
    long.map(|(path, lines)| {
        format!("{}: {lines} lines; past {FILE_LINES_MAX}, look for the second noun", path.display())
    })
    .collect()
}

fn unfinished_code(files: &Files) -> Vec<String> {
    // Put together here so that this file is not its own first finding.
    let words = [["to", "do!("], ["unimplemen", "ted!("], ["TO", "DO"], ["FIX", "ME"], ["X", "XX"]]
        .map(|halves| halves.concat());
    let mut found = Vec::new();
    for (path, text) in files.with_extension("rs").chain(files.with_extension("js")) {
        for (index, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| has_word(line, word)) {
                found.push(format!("{}:{}: {word}", path.display(), index + 1));
            }
        }
    }
    found
}

/// Whether `word` stands in the line without being the inside of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_letter =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    line.match_indices(word).any(|(at, _)| {
        let after = line[at + word.len()..].chars().next();
        !is_letter(line[..at].chars().next_back()) && (word.ends_with('(') || !is_letter(after))
    })
}

fn broken_links(files: &Files) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in files.with_extension("md") {
        for link in markdown_links(text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                path.to_path_buf()
            } else {
                normal(&path.parent().unwrap_or(Path::new("")).join(file))
            };
            let exists = files.texts.contains_key(&target) || repo::root().join(&target).exists();
            let anchored = anchor.is_empty()
                || files.texts.get(&target).is_none_or(|text| headings(text).contains(anchor));
            if !exists {
                found.push(format!("{}: the link {link} leads nowhere", path.display()));
            } else if !anchored {
                found.push(format!(
                    "{}: the link {link} names no heading of {}",
                    path.display(),
                    target.display()
                ));
            }
        }
    }
    found
}

/// Every page that README.md names is named by its translations, `README.LANGUAGE.md`, too.
fn pages_that_translations_miss(files: &Files) -> Vec<String> {
    let pages = |text: &str| -> BTreeSet<String> {
        let links = markdown_links(text).into_iter();
        let pages = links.map(|link| link.split('#').next().unwrap_or_default().to_owned());
        pages.filter(|page| page.ends_with(".md") && !page.contains("://")).collect()
    };
    let is_readme = |page: &str| page.starts_with("README");
    let named = pages(files.text("README.md").unwrap_or_default());
    let mut found = Vec::new();
    for (path, text) in files.with_extension("md") {
        let name = path.to_string_lossy();
        if name == "README.md" || !is_readme(&name) {
            continue;
        }
        let here = pages(text);
        let missing = named.iter().filter(|page| !is_readme(page) && !here.contains(*page));
        found.extend(missing.map(|page| format!("{name} does not name {page}, which README.md names")));
    }
    found
}

/// The targets of `[text](target)`, outside of code blocks.
fn markdown_links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        let mut rest = line;
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            let Some(end) = rest.find(')') else { break };
            // A title may follow the target: [text](target "title").
            links.extend(rest[..end].split_whitespace().next().map(str::to_owned));
            rest = &rest[end..];
        }
    }
    links
}

fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// The anchors that GitHub makes of headings: lower case, punctuation dropped, spaces to hyphens.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = prose(text).filter_map(|line| Some(line.strip_prefix('#')?.trim_start_matches('#').trim()));
    titles
        .map(|title| {
            let kept = title
                .to_lowercase()
                .chars()
                .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
                .collect::<String>();
            kept.replace(' ', "-")
        })
        .collect()
}

/// `a/../b` as `b`.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(result.pop()),
            Component::CurDir => {}
            other => result.push(other),
        }
    }
    result
}

/// Every variable that the programs read has a row in the README's configuration table.
fn undocumented_variables(files: &Files) -> Vec<String> {
    let Some(readme) = files.text("README.md") else { return vec!["README.md is missing".to_owned()] };
    let documented: BTreeSet<&str> = readme
        .lines()
        .filter(|line| line.trim_start().starts_with('|'))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect();
    let mut found = Vec::new();
    for (path, text) in files.with_extension("rs") {
        // Every package but this one, which sets the programs' variables and has none of its own.
        let program = !path.starts_with("xtask")
            && path.components().nth(1).is_some_and(|part| part.as_os_str() == "src");
        if !program || path.components().any(|component| component.as_os_str() == "tests") {
            continue;
        }
        // What follows a file's test module names variables on purpose wrong.
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        for name in variable_names(code).into_iter().filter(|name| !documented.contains(name.as_str())) {
            found.push(format!("{}: {name} has no row in README.md's configuration table", path.display()));
        }
    }
    found
}

/// String literals that look like a variable's name: upper case, with an underscore or one of the few without.
fn variable_names(code: &str) -> BTreeSet<String> {
    const WITHOUT_UNDERSCORE: [&str; 1] = ["LOG"];
    // Cargo's own, there at compile time only; a state of a Pix charge.
    const FOREIGN: [&str; 2] = ["CARGO_", "REMOVIDA_"];
    let literals = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| line.split('"').skip(1).step_by(2));
    let is_name = |text: &&str| {
        let shape = text.contains('_') && text.starts_with(|letter: char| letter.is_ascii_uppercase());
        let letters = text
            .chars()
            .all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_');
        (shape && letters || WITHOUT_UNDERSCORE.contains(text))
            && !FOREIGN.iter().any(|prefix| text.starts_with(prefix))
    };
    literals.filter(is_name).map(str::to_owned).collect()
}

/// The crates that the workspace's own packages depend on.
fn direct_dependencies() -> Fallible<BTreeSet<String>> {
    let output = cargo::cargo()
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let dependencies = packages.iter().filter_map(|package| package["dependencies"].as_array()).flatten();
    // A path is a package of our own.
    let foreign = dependencies.filter(|dependency| dependency["path"].is_null());
    Ok(foreign.filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned).collect())
}

fn undocumented_dependencies(files: &Files, dependencies: &BTreeSet<String>) -> Vec<String> {
    let Some(text) = files.text("docs/dependencies.md") else {
        return vec!["docs/dependencies.md is missing".to_owned()];
    };
    let named: BTreeSet<&str> = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).collect();
    let missing = dependencies.iter().filter(|name| !named.contains(name.as_str()));
    missing.map(|name| format!("docs/dependencies.md has no line for `{name}`")).collect()
}

/// Cargo reads a workspace only if all its members are there, in an image too: each one's manifest and its programs' roots must
/// pass `.dockerignore`, which lets through what it names. A folder with a workspace of its own is no member.
fn members_without_an_image(files: &Files) -> Vec<String> {
    let passed: Vec<&Path> = files
        .text(".dockerignore")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.strip_prefix('!').map(Path::new))
        .collect();
    let is_needed = |path: &Path| {
        ["Cargo.toml", "src/main.rs", "src/lib.rs"].iter().any(|name| {
            path.ends_with(name) && path.components().count() == 1 + Path::new(name).components().count()
        })
    };
    let is_apart = |path: &Path| {
        let manifest = path.iter().next().map(|folder| Path::new(folder).join("Cargo.toml"));
        let text = manifest.and_then(|manifest| files.texts.get(&manifest));
        text.is_some_and(|text| text.lines().any(|line| line == "[workspace]"))
    };
    files
        .texts
        .keys()
        .filter(|path| {
            is_needed(path) && !is_apart(path) && !passed.iter().any(|passed| path.starts_with(passed))
        })
        .map(|path| format!(".dockerignore keeps {} from the images' builds", path.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Files {
        Files { texts: texts.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect() }
    }

    #[test]
    fn unfinished_code_is_found_where_it_stands() {
        let code = format!(
            "fn a() {{ {}do!() }}\nlet mastodon = 1; // {}DO: more\nlet x = \"T{}\";\n",
            "to", "TO", "ODOS"
        );
        assert_eq!(unfinished_code(&files(&[("a.rs", &code)])).len(), 2);
    }

    #[test]
    fn long_files_are_named() {
        let (long, short) = ("\n".repeat(FILE_LINES_MAX + 1), "\n".repeat(FILE_LINES_MAX));
        assert_eq!(long_files(&files(&[("long.rs", &long), ("short.rs", &short)])).len(), 1);
    }

    #[test]
    fn links_resolve_or_are_named() {
        let readme = "# One: `two`\n[a](docs/a.md) [b](docs/b.md#x) [c](#one-two) [d](https://example.com)\n```\n[e](nowhere)\n```\n";
        let found = broken_links(&files(&[
            ("README.md", readme),
            ("docs/a.md", "[up](../README.md#one-two) [no](../README.md#three)\n"),
        ]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("docs/b.md#x") && found[1].contains("#three"), "{found:?}");
    }

    #[test]
    fn a_page_that_a_translation_misses_is_named() {
        let found = pages_that_translations_miss(&files(&[
            (
                "README.md",
                "[pt](README.pt.md) [a](docs/a.md#x) [b](docs/b.md) [c](https://c/c.md) [d](d.rs)\n",
            ),
            ("README.pt.md", "[en](README.md) [a](docs/a.md)\n"),
            ("docs/README.md", "nothing\n"),
        ]));
        assert_eq!(found, ["README.pt.md does not name docs/b.md, which README.md names"]);
    }

    #[test]
    fn a_variable_without_a_row_is_named() {
        let code = "let a = read(\"QUEUE_LEN_MAX\"); let b = read(\"LOG\"); // \n// \"WHOLE_LINE\"\n#[cfg(test)]\nmod tests { \"NOT_READ\" }\n";
        let readme = "| `LOG` | x |\nNot in a table: `QUEUE_LEN_MAX`\n";
        let found = undocumented_variables(&files(&[
            ("README.md", readme),
            ("gateway/src/config.rs", code),
            ("xtask/src/a.rs", code),
        ]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.iter().any(|line| line.contains("QUEUE_LEN_MAX")), "{found:?}");
    }

    #[test]
    fn a_dependency_without_a_line_is_named() {
        let dependencies = ["clap", "rkyv"].map(str::to_owned).into();
        let found = undocumented_dependencies(
            &files(&[("docs/dependencies.md", "| `clap` | flags |\n")]),
            &dependencies,
        );
        assert_eq!(found, ["docs/dependencies.md has no line for `rkyv`"]);
    }

    #[test]
    fn a_member_that_no_image_would_find_is_named() {
        let found = members_without_an_image(&files(&[
            (".dockerignore", "*\n!wire\n!chaos/Cargo.toml\n"),
            ("wire/Cargo.toml", ""),
            ("wire/src/lib.rs", ""),
            ("chaos/Cargo.toml", ""),
            ("chaos/src/main.rs", ""),
            ("chaos/src/deep/main.rs", ""),
            ("apart/Cargo.toml", "[package]\n\n[workspace]\n"),
            ("apart/src/lib.rs", ""),
        ]));
        assert_eq!(found, [".dockerignore keeps chaos/src/main.rs from the images' builds"]);
    }
}
