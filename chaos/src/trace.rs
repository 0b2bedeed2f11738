//! Every POST and every kill as a line each, for whoever looks into a failed run. Times are µs since the run's start.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::killer::Kill;
use crate::load::Post;

/// Writes `posts.csv` and `kills.csv`.
pub(crate) fn write(folder: &Path, posts: &[Post], kills: &[Kill]) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(folder.join("posts.csv"))?);
        writeln!(file, "intended_us,answered_us,first,retry")?;
        for post in posts {
            let retry = post.retry.map(|retry| retry.name()).unwrap_or_default();
            writeln!(file, "{},{},{},{retry}", post.intended_us, post.answered_us, post.first.name())?;
        }
        file.flush()?;
        let mut file = File::create(folder.join("kills.csv"))?;
        writeln!(file, "process,at_us,restarted_us,back_us,marked_down,up_us")?;
        for kill in kills {
            let time = |time: Option<u64>| time.map(|us| us.to_string()).unwrap_or_default();
            writeln!(
                file,
                "{},{},{},{},{},{}",
                kill.process,
                kill.at_us,
                time(kill.restarted_us),
                time(kill.back_us),
                kill.marked_down,
                time(kill.up_us)
            )?;
        }
        Ok(())
    };
    write().map_err(|error| format!("cannot write into {}: {error}", folder.display()))
}
