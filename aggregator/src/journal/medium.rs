//! The disk's medium behind the page cache.
//!
//! A file that reads well may be in the page cache alone: a process that was killed between a write and its sync leaves such a one, and so
//! does a sync that failed, after which the kernel takes the pages for clean. What is promised to survive the loss of power rests on
//! what is read *after* a file was synced and its pages were dropped.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Opens a file whose bytes come from the medium. Waits for the disk.
///
/// # Errors
/// What the system said; a sync that failed among it.
pub fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // A page that is dirty is not dropped.
    file.sync_data()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(file)
}

/// Whether the disk says that it cannot give back what it was given: another reading would not either.
#[must_use]
pub fn is_damage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EBADMSG | libc::EUCLEAN | libc::EREMOTEIO))
}

/// Syncs the folders whose names lead to `folder`, as far as its file system goes. `first` is the first of them that was there before this process;
/// one above it that may not be read was not made by one like this, and is passed over.
///
/// # Errors
/// Which one could not be synced, and why.
pub fn sync_way_to(folder: &Path, first: &Path) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    let folder = folder.canonicalize().map_err(at(folder))?;
    let first = first.canonicalize().map_err(at(first))?;
    let device = folder.metadata().map_err(at(&folder))?.dev();
    for above in folder.ancestors().skip(1) {
        if above.metadata().map_err(at(above))?.dev() != device {
            break;
        }
        match File::open(above).and_then(|above| above.sync_all()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !above.starts_with(&first) => {}
            result => result.map_err(at(above))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_made_is_synced_up_to_one_that_was_there() {
        let base = std::env::temp_dir().join(format!("galo-way-{}", std::process::id()));
        let folder = base.join("a/b");
        std::fs::create_dir_all(&folder).expect("a folder");
        sync_way_to(&folder, &base).expect("all of them can be read");
        let (path, error) = sync_way_to(&base.join("c"), &base).expect_err("there is none");
        assert_eq!((path, error.kind()), (base.join("c"), io::ErrorKind::NotFound));
        std::fs::remove_dir_all(&base).expect("it is ours");
    }

    #[test]
    fn what_the_disk_cannot_give_back_is_damage_and_nothing_else() {
        assert!(is_damage(&io::Error::from_raw_os_error(libc::EIO)));
        for code in [libc::EMFILE, libc::ENOENT, libc::EACCES] {
            assert!(!is_damage(&io::Error::from_raw_os_error(code)));
        }
    }
}
