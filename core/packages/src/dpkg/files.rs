//! A package's files, from everything that dpkg keeps of it.

use crate::alias::Aliases;
use crate::dpkg::{Diversions, Installed, Md5sums};
use crate::package::{FileDigest, PackagedFile};

/// What `list` names, where it lies and what its content is to be. A configuration file's digest is in `status`, that of
/// the others in `md5sums`; both go by the names before diversions.
pub fn files_of(
    installed: &Installed,
    list: &[&[u8]],
    md5sums: &Md5sums,
    diversions: &Diversions,
    aliases: &Aliases,
) -> Vec<PackagedFile> {
    let mut files = Vec::with_capacity(list.len());
    for path in list {
        let conffile = installed.conffiles.iter().find(|c| c.path == *path);
        let md5 = conffile.and_then(|c| c.md5).or_else(|| md5sums.get(path));
        let lies = diversions.resolve(path, &installed.package.name);
        files.push(PackagedFile {
            path: aliases.resolve(lies).into_owned(),
            digest: md5.map(FileDigest::Md5),
            conffile: conffile.is_some(),
        });
    }
    files
}

/// The files of a package in an image that was built without dpkg ("distroless"): there are digests and no list.
pub fn files_of_distroless(md5sums: &Md5sums, aliases: &Aliases) -> Vec<PackagedFile> {
    md5sums
        .iter()
        .map(|(path, md5)| PackagedFile {
            path: aliases.resolve(path).into_owned(),
            digest: Some(FileDigest::Md5(md5)),
            conffile: false,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dpkg::{read_diversions, read_list, read_md5sums, read_status};

    #[test]
    fn list_digests_conffiles_diversions_and_merged_folders_come_together() {
        let installed = read_status(
            "status",
            b"Package: tool\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nConffiles:\n \
              /etc/tool.conf cc3493ecd2d09837ffdcc3e25fdfff18\n /etc/fresh newconffile\n",
        );
        let list =
            read_list("l", b"/.\n/bin\n/bin/tool\n/etc/tool.conf\n/etc/fresh\n/lib/libtool.so\n/usr/doc\n");
        let md5sums = read_md5sums(
            "m",
            b"b80613ace788b72ab2b95926517ca448  bin/tool\n6a260d456769adba6fea8e8fdf0e9f5f  lib/libtool.so\n",
        );
        let diversions =
            read_diversions("d", b"/bin/tool\n/bin/tool.real\nwrapper\n/lib/libtool.so\n/x\ntool\n");
        let aliases =
            Aliases::new([(b"bin".to_vec(), b"usr/bin".to_vec()), (b"lib".to_vec(), b"usr/lib".to_vec())]);
        let files =
            files_of(&installed.entries[0], &list.entries, &md5sums.entries, &diversions.entries, &aliases);
        let said: Vec<String> = files
            .iter()
            .map(|f| {
                let digest = f.digest.map_or("none".to_owned(), |d| d.to_string()[..8].to_owned());
                format!("{} {digest} {}", String::from_utf8_lossy(&f.path), f.conffile)
            })
            .collect();
        assert_eq!(
            said,
            [
                "/bin none false",
                "/usr/bin/tool.real md5:b806 false",
                "/etc/tool.conf md5:cc34 true",
                "/etc/fresh none true",
                "/usr/lib/libtool.so md5:6a26 false",
                "/usr/doc none false",
            ]
        );
    }
}
