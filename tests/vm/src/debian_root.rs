use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::{keep_fresh, run, source, with_patience};
use crate::unbooted::{Missing, not_started};

/// The release whose systemd the package is tried on.
const SUITE: &str = "bookworm";

/// Which Debian is made.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its name in the store.
    name: &'static str,
    /// What is installed besides the essential packages and what these depend on.
    packages: &'static str,
}

impl Recipe {
    /// What `dpkg -i davy.deb` needs, and systemd as the first program; the rest of a Debian is left out.
    pub const SMALL: Self = Self { name: "debian_root", packages: "usr-is-merged,systemd,systemd-sysv" };

    /// The same with what servers run: a package manager, a compiler, and the languages that services are written in.
    pub const SERVER: Self = Self {
        name: "debian_server",
        packages: "usr-is-merged,systemd,systemd-sysv,apt,gcc,libc6-dev,make,python3,nodejs,php-cli,\
                   openjdk-17-jre-headless,libhsqldb-java",
    };

    /// The same with what servers talk by: a web server, a database, logins, jobs by the clock, and the clock.
    pub const NETWORK: Self = Self {
        name: "debian_network",
        packages: "usr-is-merged,systemd,systemd-sysv,apt,nginx-light,php-fpm,php-pgsql,postgresql,openssh-server,\
                   openssh-client,cron,chrony,curl,iproute2,kmod,python3,ca-certificates",
    };
}

/// What a Debian has and the test never reads. Folders of manual pages stay: Java's package makes links there.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/doc/*", "/usr/share/man/*/*", "/usr/share/info/*", "/usr/share/locale/*"];

/// Run in the new root: the kernel starts `/init`; nothing asks on the console who this machine is; what mmdebstrap itself
/// would take away after this goes, so that packages start their services and are unpacked whole; and so does the full
/// perl, which is not the one that Debian's scripts run.
const CUSTOMIZE: &str = r#"set -e
cd "$1"
ln -s lib/systemd/systemd init
printf '%032x\n' 1 >etc/machine-id
echo host >etc/hostname
rm -f etc/dpkg/dpkg.cfg.d/99mmdebstrap usr/sbin/policy-rc.d
rm -rf var/lib/apt var/cache/apt usr/share/perl usr/lib/x86_64-linux-gnu/perl usr/lib/x86_64-linux-gnu/gconv
find . -xdev -print0 | cpio --null --create --quiet --format=newc >"$DAVY_IMAGE""#;

/// A small Debian with systemd, as an initramfs.
pub struct DebianRoot {
    image: PathBuf,
}

impl DebianRoot {
    /// The one of this recipe in `store` when it is fresh, else made out of Debian's archive.
    ///
    /// # Errors
    /// When there is none in `store` and mmdebstrap is missing, may not make one here, or does not reach the archive.
    pub fn obtain(store: &Path, recipe: Recipe) -> Result<Self> {
        let Recipe { name, packages } = recipe;
        let image = std::path::absolute(store.join(format!("{name}.cpio")))?;
        // One made by another recipe is not the one that is asked for.
        let (recipe, recipe_file) =
            (format!("{SUITE} {packages} {LEFT_OUT:?}\n{CUSTOMIZE}\n"), image.with_extension("recipe"));
        if fs::read_to_string(&recipe_file).ok().as_deref() != Some(&recipe) {
            let _ = fs::remove_file(&image);
        }
        keep_fresh(&image, || {
            let installed = Command::new("mmdebstrap").arg("--version").output();
            installed.map_err(|error| not_started("mmdebstrap (package mmdebstrap)", error))?;
            let scratch = image.with_extension("new");
            let sources = source(SUITE)?;
            with_patience(|| {
                let mut command = Command::new("mmdebstrap");
                command.args(["--variant=essential", "--format=null"]);
                command.arg(format!("--include={packages}"));
                command.args(["--aptopt=Acquire::Retries \"4\"", "--aptopt=Acquire::http::Timeout \"30\""]);
                command.args(LEFT_OUT.map(|left_out| format!("--dpkgopt=path-exclude={left_out}")));
                command.arg(format!("--customize-hook={CUSTOMIZE}")).env("DAVY_IMAGE", &scratch);
                run(command.args([SUITE, "-"]).arg(&sources))
            })
            .map_err(|error| {
                if rustix::process::geteuid().is_root() {
                    return error;
                }
                Missing(format!("root, which mmdebstrap may need to make a Debian: {error:#}")).into()
            })?;
            fs::rename(&scratch, &image).context("the root was not packed")?;
            Ok(fs::write(&recipe_file, recipe)?)
        })?;
        Ok(Self { image })
    }

    /// Writes the root and an archive of more files, which go over it, as one initramfs.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn with(&self, more: &Path, image: &Path) -> Result<()> {
        let mut whole = File::create(image).with_context(|| format!("making {}", image.display()))?;
        // The kernel unpacks archives that follow one another in order.
        for part in [&self.image, more] {
            io::copy(&mut File::open(part)?, &mut whole)
                .with_context(|| format!("adding {}", part.display()))?;
        }
        Ok(())
    }
}
