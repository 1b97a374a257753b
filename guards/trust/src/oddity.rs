//! What is odd about code that nobody vouches for: the first thing to look at before it is allowed.

use davy_model::Oddity;

/// Folders anyone may write to.
const WORLD_WRITABLE: [&str; 4] = ["/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/"];

/// Folders that only packages should fill.
const PACKAGED: [&str; 9] = [
    "/usr/bin/",
    "/usr/sbin/",
    "/usr/lib/",
    "/usr/lib64/",
    "/usr/libexec/",
    "/bin/",
    "/sbin/",
    "/lib/",
    "/lib64/",
];

/// Users that serve the network.
const SERVICES: [&str; 12] = [
    "www-data", "apache", "nginx", "http", "postgres", "mysql", "redis", "tomcat", "jenkins", "nobody",
    "daemon", "git",
];

/// All that is odd, from the path and the user.
#[must_use]
pub fn oddities(path: &str, user: Option<&str>, altered: bool, nameless: bool) -> Vec<Oddity> {
    let within = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    let mut odd = Vec::new();
    let mut add = |is: bool, oddity: Oddity| {
        if is {
            odd.push(oddity);
        }
    };
    add(within(&WORLD_WRITABLE), Oddity::WorldWritable);
    add(!altered && within(&PACKAGED), Oddity::Unpackaged);
    add(altered, Oddity::Altered);
    add(path.split('/').any(|part| part.len() > 1 && part.starts_with('.')), Oddity::Hidden);
    add(user.is_some_and(|user| SERVICES.contains(&user)), Oddity::Service);
    add(nameless, Oddity::Nameless);
    odd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_administrator_would_look_at_first_is_named() {
        use Oddity::{Altered, Hidden, Service, Unpackaged, WorldWritable};
        let table: [(&str, Option<&str>, bool, &[Oddity]); 5] = [
            ("/tmp/.x/kdevtmpfsi", Some("redis"), false, &[WorldWritable, Hidden, Service]),
            ("/usr/bin/sshd2", Some("root"), false, &[Unpackaged]),
            ("/usr/bin/ls", None, true, &[Altered]),
            ("/opt/app/run", Some("app"), false, &[]),
            ("/home/me/.cargo/bin/rg", Some("me"), false, &[Hidden]),
        ];
        for (path, user, altered, expected) in table {
            assert_eq!(oddities(path, user, altered, false), expected, "{path}");
        }
    }
}
