//! The script that k6 runs: ours, or the contest's with its imports pointed at local files.
//!
//! The contest's scripts import four libraries from the web. A copy of the script's folder gets the addresses of these
//! replaced by our own small implementations in `k6/lib/`; not another byte is changed, and an import that we have no
//! answer for is an error rather than a silent download. The user's checkout is only read.

use std::fs;
use std::path::{Path, PathBuf};

use crate::repo::{self, Fallible};

/// The name under which the contest's script writes its result.
pub(crate) const PARTICIPANT: &str = "galo";

/// Beginnings of addresses, and what stands in for them.
const LIBRARIES: [(&str, &str); 4] = [
    ("https://jslib.k6.io/k6-summary/", "summary.js"),
    ("https://jslib.k6.io/k6-utils/", "utils.js"),
    ("https://jslib.k6.io/httpx/", "httpx.js"),
    ("https://cdn.jsdelivr.net/npm/big.js@", "big.js"),
];

/// What to run, and where.
pub(crate) struct Script {
    pub(crate) file: PathBuf,
    pub(crate) folder: PathBuf,
    /// Ours takes the path of its result from the environment.
    pub(crate) is_own: bool,
    /// Where the contest's scripts leave their result, each under a name of its own.
    results: Vec<PathBuf>,
}

impl Script {
    pub(crate) fn own() -> Self {
        let folder = repo::root().join("k6");
        Self { file: folder.join("rinha.js"), folder, is_own: true, results: Vec::new() }
    }

    /// A copy of the contest's script below `work`.
    pub(crate) fn of_contest(path: &Path, work: &Path) -> Fallible<Self> {
        let source = find(path)?;
        let source_folder = source.parent().unwrap_or(Path::new("."));
        let file_name = source.file_name().unwrap_or_default();
        let work = work.join("script");
        let folder = work.join("rinha-test");
        let result_folder = work.join("participantes").join(PARTICIPANT);
        let copy = || -> std::io::Result<Vec<PathBuf>> {
            if work.exists() {
                fs::remove_dir_all(&work)?;
            }
            fs::create_dir_all(folder.join("lib"))?;
            fs::create_dir_all(&result_folder)?;
            for (_, library) in LIBRARIES {
                fs::copy(repo::root().join("k6/lib").join(library), folder.join("lib").join(library))?;
            }
            let mut copied = Vec::new();
            for entry in fs::read_dir(source_folder)? {
                let entry = entry?.path();
                if has_extension(&entry, "js") {
                    let target = folder.join(entry.file_name().unwrap_or_default());
                    fs::copy(&entry, &target)?;
                    copied.push(target);
                }
            }
            Ok(copied)
        };
        let copied = copy().map_err(|error| format!("cannot copy {}: {error}", source_folder.display()))?;
        for file in copied {
            let text = fs::read_to_string(&file)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            let text = with_local_imports(&text).map_err(|error| format!("{}: {error}", file.display()))?;
            fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        }
        let results = vec![result_folder, folder.clone()];
        Ok(Self { file: folder.join(file_name), folder, is_own: false, results })
    }

    /// What the run has left: both folders held no such file before it.
    pub(crate) fn result(&self) -> Fallible<PathBuf> {
        let in_folder = |folder: &PathBuf| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| has_extension(path, "json")).collect::<Vec<_>>()
        };
        let mut found: Vec<PathBuf> = self.results.iter().flat_map(in_folder).collect();
        found.sort();
        match &found[..] {
            [one] => Ok(one.clone()),
            [] => Err(format!(
                "left no result: expected a file ending in .json in {}",
                self.results
                    .iter()
                    .map(|folder| folder.display().to_string())
                    .collect::<Vec<_>>()
                    .join(" or ")
            )),
            several => Err(format!("left several results: {several:?}")),
        }
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|it| it == extension)
}

/// The script that a path leads to: itself, the one that a checkout of the contest has, or the only one in a folder.
fn find(path: &Path) -> Fallible<PathBuf> {
    let usual = [path.to_path_buf(), path.join("rinha.js"), path.join("rinha-test/rinha.js")];
    if let Some(script) = usual.into_iter().find(|candidate| candidate.is_file()) {
        return Ok(script);
    }
    let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // What k6 runs has options; what is imported by it has none.
    let is_script = |path: &PathBuf| {
        has_extension(path, "js")
            && fs::read_to_string(path).is_ok_and(|text| text.contains("export const options"))
    };
    let mut scripts: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_script).collect();
    scripts.sort();
    match &scripts[..] {
        [one] => Ok(one.clone()),
        [] => Err(format!("{} is neither a script for k6 nor a folder that holds one", path.display())),
        several => Err(format!("{} holds several scripts, name one of them: {several:?}", path.display())),
    }
}

/// The script with the imported addresses replaced, and nothing else.
fn with_local_imports(text: &str) -> Fallible<String> {
    let mut result = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let Some((start, address)) = imported_address(line) else {
            result.push_str(line);
            continue;
        };
        let library = LIBRARIES.iter().find(|(beginning, _)| address.starts_with(beginning));
        let (_, library) =
            library.ok_or_else(|| format!("imports {address}, for which there is no local copy"))?;
        result.push_str(&line[..start]);
        result.push_str(&format!("./lib/{library}"));
        result.push_str(&line[start + address.len()..]);
    }
    Ok(result)
}

/// The web address that a line imports, and where it starts. The import may have begun on a line before.
fn imported_address(line: &str) -> Option<(usize, &str)> {
    if line.trim_start().starts_with("//") {
        return None;
    }
    let start = line.find("https://").or_else(|| line.find("http://"))?;
    let before = line[..start].strip_suffix(['"', '\''])?.trim_end();
    let is_imported = ["import", "from", "import(", "require("].iter().any(|word| before.ends_with(word));
    let end = line[start..].find(['"', '\''])?;
    is_imported.then(|| (start, &line[start..start + end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_imported_addresses_change() {
        let script = "import { Httpx } from 'https://jslib.k6.io/httpx/0.1.0/index.js';\nimport exec from \"k6/execution\";\n\
                      // https://mikemcl.github.io/big.js/\nimport Big from \"https://cdn.jsdelivr.net/npm/big.js@7.0.1/big.min.js\";\n\
                      const url = \"http://localhost:9999\";\n";
        let expected = "import { Httpx } from './lib/httpx.js';\nimport exec from \"k6/execution\";\n\
                        // https://mikemcl.github.io/big.js/\nimport Big from \"./lib/big.js\";\n\
                        const url = \"http://localhost:9999\";\n";
        assert_eq!(with_local_imports(script).unwrap(), expected);
    }

    #[test]
    fn a_script_is_found_by_path_or_folder_and_its_result_by_being_the_only_one() {
        let folder = std::env::temp_dir().join(format!("galo-scripts-{}", std::process::id()));
        let (source, work) = (folder.join("source"), folder.join("work"));
        fs::create_dir_all(&source).unwrap();
        let script = source.join("rinha-final.js");
        assert!(find(&source).unwrap_err().contains("neither a script"));
        fs::write(&script, "export const options = {};\n").unwrap();
        fs::write(source.join("requests.js"), "export const token = 1;\n").unwrap();
        assert_eq!((find(&source).unwrap(), find(&script).unwrap()), (script.clone(), script));

        let copied = Script::of_contest(&source, &work).unwrap();
        assert!(copied.file.ends_with("rinha-test/rinha-final.js") && copied.file.is_file());
        assert!(copied.result().unwrap_err().contains("left no result"));
        let result = work.join("script/participantes").join(PARTICIPANT).join("final-results.json");
        fs::write(&result, "{}").unwrap();
        assert_eq!(copied.result().unwrap(), result);
        fs::write(copied.folder.join("other.json"), "{}").unwrap();
        assert!(copied.result().unwrap_err().contains("several results"));

        fs::write(source.join("other.js"), "export const options = {};\n").unwrap();
        assert!(find(&source).unwrap_err().contains("several scripts"));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn an_unknown_import_is_named() {
        for import in [
            "import x from 'https://example.com/x.js';",
            "import 'https://example.com/x.js';",
            "import {\n  x,\n} from \"https://example.com/x.js\";",
            "export { x } from 'https://example.com/x.js';",
            "const x = require('https://example.com/x.js');",
        ] {
            let error = with_local_imports(import).unwrap_err();
            assert!(error.contains("https://example.com/x.js"), "{error}");
        }
    }
}
