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
    /// Where the contest's script leaves its result; ours takes the path from the environment.
    pub(crate) result: Option<PathBuf>,
}

impl Script {
    pub(crate) fn own() -> Self {
        let folder = repo::root().join("k6");
        Self { file: folder.join("rinha.js"), folder, result: None }
    }

    /// A copy of the contest's script below `work`.
    pub(crate) fn of_contest(path: &Path, work: &Path) -> Fallible<Self> {
        let source = [path.to_path_buf(), path.join("rinha.js"), path.join("rinha-test/rinha.js")]
            .into_iter()
            .find(|candidate| candidate.is_file())
            .ok_or_else(|| {
                format!(
                    "{} is neither a script nor a folder with rinha.js or rinha-test/rinha.js",
                    path.display()
                )
            })?;
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
                if entry.extension().is_some_and(|extension| extension == "js") {
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
        Ok(Self {
            file: folder.join(file_name),
            folder,
            result: Some(result_folder.join("partial-results.json")),
        })
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

/// The web address that a line imports, and where it starts.
fn imported_address(line: &str) -> Option<(usize, &str)> {
    line.trim_start().strip_prefix("import ")?;
    let start = line.find("https://").or_else(|| line.find("http://"))?;
    let end = line[start..].find(['"', '\''])?;
    Some((start, &line[start..start + end]))
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
    fn an_unknown_import_is_named() {
        let error = with_local_imports("import x from 'https://example.com/x.js';").unwrap_err();
        assert!(error.contains("https://example.com/x.js"), "{error}");
    }
}
