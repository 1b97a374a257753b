//! An administrator who is logged in from afar, played where only the agent looks.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

/// Which program the part is played by: one that lets people in, and is on every Debian.
const DOOR: &str = "/usr/bin/login";

/// A session of root's. It ends when this is dropped.
#[derive(Debug)]
pub struct Administrator(Child);

impl Administrator {
    /// What a shell has to do in the mount namespace of an agent before a session can be played there: a shell of the test's own
    /// lies over the program that lets people in, for whoever is in that namespace.
    ///
    /// # Errors
    /// When the shell cannot be copied.
    pub fn stage(folder: &Path) -> Result<String> {
        let shell: PathBuf = folder.join("login");
        if !shell.exists() {
            std::fs::copy("/bin/sh", &shell).context("/bin/sh cannot be copied")?;
            std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(format!("mount --bind '{}' {DOOR}", shell.display()))
    }

    /// Logs in from this address to this port of the host, as far as an agent can see whose namespace was staged.
    ///
    /// # Errors
    /// When nsenter(1) is missing, or the session does not begin.
    pub fn log_in(agent: u32, from: &str, port: u16) -> Result<Self> {
        let connection = format!("{from} 50022 10.78.0.1 {port}");
        // The session is below what let it in, and lives until nobody writes to it any more.
        let line = format!("SSH_CONNECTION='{connection}' /bin/sh -c 'echo in; read end'; true");
        let mut child = Command::new("nsenter")
            .args([&format!("--mount=/proc/{agent}/ns/mnt"), "--", DOOR, "-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("nsenter did not start")?;
        let mut said = [0; 3];
        let begun = child.stdout.as_mut().is_some_and(|out| {
            use std::io::Read;
            out.read_exact(&mut said).is_ok()
        });
        if !begun {
            let _ = child.kill();
            let _ = child.wait();
            bail!("no session began");
        }
        Ok(Self(child))
    }
}

impl Drop for Administrator {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
