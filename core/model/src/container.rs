//! Container ids in cgroup paths, as the common runtimes write them.

/// How many characters of an id people are shown.
const SHOWN: usize = 12;

/// Scope names carry the runtime before the id: `docker-<id>.scope`.
const SCOPE_PREFIXES: &[&str] = &[
    "docker-",
    "cri-containerd-",
    "containerd-",
    "crio-",
    "libpod-payload-",
    "libpod-",
    "nerdctl-",
    "podman-",
    "buildkit-",
    "rkt-",
    "garden-",
];

/// Monitors that stand beside a container and are not in it.
const MONITORS: &[&str] = &["crio-conmon-", "libpod-conmon-", "lxc.monitor.", "lxc.monitor"];

/// The id of the container that a cgroup path leads into, shortened to 12 characters; `None` outside of any.
///
/// Understood are the forms of Docker, containerd, CRI-O, Podman, LXC, systemd-nspawn, Kubernetes and ECS, with the
/// cgroupfs and the systemd driver. Of nested containers the innermost counts. `cgroup` is one path, without the
/// `0::` of `/proc/PID/cgroup`.
#[must_use]
pub fn container_of(cgroup: &str) -> Option<String> {
    let segments: Vec<&str> = cgroup.split('/').filter(|s| !s.is_empty()).collect();
    (0..segments.len()).rev().find_map(|i| {
        let before = i.checked_sub(1).map_or("", |b| segments[b]);
        in_segment(before, segments[i])
    })
}

fn in_segment(before: &str, segment: &str) -> Option<String> {
    if MONITORS.iter().any(|m| segment.starts_with(m)) {
        return None;
    }
    if let Some(name) = segment.strip_prefix("lxc.payload.").or_else(|| segment.strip_prefix("lxc.payload/"))
    {
        return shown(name);
    }
    if before == "lxc" || before == "lxc.payload" {
        return shown(segment);
    }
    if let Some(name) = segment.strip_prefix("machine-").and_then(|s| s.strip_suffix(".scope")) {
        return shown(name);
    }
    // containerd in CRI without the systemd driver writes `<slice>:cri-containerd:<id>`.
    let last = segment.rsplit(':').next().unwrap_or(segment);
    let bare = last.strip_suffix(".scope").unwrap_or(last);
    let id = SCOPE_PREFIXES.iter().find_map(|p| bare.strip_prefix(p)).unwrap_or(bare);
    (is_long_hex(id) || is_ecs_task(id)).then(|| shown(id)).flatten()
}

/// The 64 hexadecimal digits that every OCI runtime uses.
fn is_long_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `<32 hexadecimal digits>-<digits>`, as ECS on Fargate names its containers.
fn is_ecs_task(text: &str) -> bool {
    text.split_once('-').is_some_and(|(task, number)| {
        task.len() == 32
            && task.bytes().all(|b| b.is_ascii_hexdigit())
            && (5..=20).contains(&number.len())
            && number.bytes().all(|b| b.is_ascii_digit())
    })
}

fn shown(id: &str) -> Option<String> {
    (!id.is_empty()).then(|| id.chars().take(SHOWN).collect())
}

#[cfg(test)]
mod tests {
    use super::container_of;
    use proptest::prelude::*;

    const ID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

    #[test]
    fn the_forms_of_the_runtimes_are_known() {
        let forms = [
            "/docker/{}",
            "/system.slice/docker-{}.scope",
            "/system.slice/docker-{}.scope/init.scope",
            "/kubepods/besteffort/pod8a1b2c3d-0000-1111-2222-333344445555/{}",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod8a.slice/cri-containerd-{}.scope",
            "/system.slice/containerd.service/kubepods-burstable-pod8a.slice:cri-containerd:{}",
            "/kubepods.slice/kubepods-pod8a.slice/crio-{}.scope",
            "/machine.slice/libpod-{}.scope/container",
            "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{}.scope",
            "/default/{}",
            "/ecs/5555-task/{}",
            "/docker/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/docker/{}",
        ];
        for form in forms {
            let path = form.replace("{}", ID);
            assert_eq!(container_of(&path).as_deref(), Some("0f1e2d3c4b5a"), "{path}");
        }
        assert_eq!(container_of("/lxc/web1").as_deref(), Some("web1"));
        assert_eq!(container_of("/lxc.payload.web1/system.slice/cron.service").as_deref(), Some("web1"));
        assert_eq!(container_of("/machine.slice/machine-db.scope").as_deref(), Some("db"));
        let task = "/ecs/0f1e2d3c4b5a69788796a5b4c3d2e1f0/0f1e2d3c4b5a69788796a5b4c3d2e1f0-2574285551";
        assert_eq!(container_of(task).as_deref(), Some("0f1e2d3c4b5a"));
    }

    #[test]
    fn what_is_no_container_is_none() {
        for path in [
            "",
            "/",
            "/system.slice/ssh.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/process_api/0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            "/lxc.monitor.web1",
            "/docker",
        ] {
            assert_eq!(container_of(path), None, "{path}");
        }
        assert_eq!(container_of(&format!("/machine.slice/libpod-conmon-{ID}.scope")), None);
        assert_eq!(container_of(&format!("/kubepods.slice/crio-conmon-{ID}.scope")), None);
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "(/|[a-f0-9]{31,65}|docker-|\\.scope|lxc|machine-|:|\\PC{0,5}){0,10}") {
            prop_assert!(container_of(&path).is_none_or(|id| (1..=12).contains(&id.chars().count())));
        }
    }
}
