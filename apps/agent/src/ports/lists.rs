//! What the policy says of ports, with the files that it names.

use std::io::Read;
use std::path::Path;

use davy_net::inbound::Plan;
use davy_policy::Policy;

/// The longest file of networks that is read.
const LONGEST: u64 = 16 << 20;

/// Looks up everything that the section `[inbound]` names, in files below the configuration folder.
///
/// # Errors
/// Every file that cannot be used, and every group that holds nothing, a sentence each with its place in the policy.
pub fn inbound_plan(policy: &Policy, config: &Path) -> Result<Plan, Vec<String>> {
    Plan::make(&policy.inbound, &policy.origin, |file| read(&config.join(file)))
}

fn read(file: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let opened = std::fs::File::open(file).map_err(cannot)?;
    let mut text = String::new();
    let length = opened.take(LONGEST + 1).read_to_string(&mut text).map_err(cannot)?;
    if length as u64 > LONGEST {
        return Err(format!("is longer than {LONGEST} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_read_below_the_configuration_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("de.txt"), "198.51.100.0/24\n").unwrap();
        std::fs::write(folder.path().join("bytes"), [0xff, 0xfe]).unwrap();
        let plan = |files: &str| {
            let text = format!(
                "[[inbound.group]]\nname = \"g\"\nfiles = [{files}]\n[[inbound.allow]]\nport = 1\nfrom = [\"g\"]\nreason = \"r\"\n"
            );
            inbound_plan(&Policy::parse("p", &text).unwrap(), folder.path())
        };
        assert_eq!(plan("\"de.txt\"").unwrap().entries[0].from.as_ref().map(Vec::len), Some(1));
        let faults = plan("\"gone\", \"bytes\"").unwrap_err();
        assert!(
            faults.len() == 2 && faults.iter().all(|fault| fault.contains("cannot be read")),
            "{faults:?}"
        );
    }
}
