use super::*;

const SHA: &str = "a8076d3d28d21e02012b20eaf7dbf75409a6277134439025f282e368e3305abf";
const SUM: &str = "b80613ace788b72ab2b95926517ca448";

fn read(lines: &[String]) -> Vec<Result<Item, Fault>> {
    let mut reader = QueryReader::new("K7");
    lines.iter().map(|line| reader.line(line.as_bytes())).collect()
}

fn package(algorithm: &str) -> String {
    format!("K7\tP\ttool\t3:1-2\tx86_64\t{algorithm}\tK7")
}

fn file(rest: &str) -> String {
    format!("K7\tF\t{rest}\tK7")
}

fn only_file(algorithm: &str, rest: &str) -> RpmFile {
    match read(&[package(algorithm), file(rest)]).pop() {
        Some(Ok(Item::File(file))) => file,
        other => panic!("{rest}: {other:?}"),
    }
}

#[test]
fn packages_and_files_are_read_with_flags_modes_and_states() {
    let said = read(&[package("8")]);
    let Ok(Item::Package(tool)) = &said[0] else { panic!("{said:?}") };
    assert_eq!(tool.to_string(), "tool 3:1-2 x86_64");

    let program = only_file("8", &format!("0\t33261\t0\t{SHA}\t/usr/bin/a\tb"));
    assert_eq!(program.path, b"/usr/bin/a\tb");
    assert_eq!(program.digest.map(|d| d.to_string()), Some(format!("sha256:{SHA}")));
    assert_eq!(program.clone().packaged().map(|p| p.conffile), Some(false));

    let config = only_file("8", &format!("17\t33188\t0\t{SHA}\t/etc/x"));
    assert!(config.config && config.packaged().is_some_and(|p| p.conffile));
    assert!(only_file("8", &format!("2\t33188\t0\t{SHA}\t/usr/share/doc/x")).doc);
    // A ghost, a link, a folder, and one whose place another package took.
    for rest in ["64\t32768\t0\t\t/var/log/x", "0\t41471\t0\t\t/usr/bin/l", "0\t16877\t0\t\t/etc"] {
        assert_eq!(only_file("8", rest).packaged(), None, "{rest}");
    }
    assert_eq!(only_file("8", &format!("0\t33261\t1\t{SHA}\t/usr/bin/x")).packaged(), None);
    assert_eq!(only_file("8", &format!("0\t-32275\t(none)\t{SHA}\t/usr/bin/x")).mode, 0o100_755);
}

#[test]
fn each_package_names_its_algorithm() {
    let kind = |algorithm: &str, digits: &str| {
        let file = only_file(algorithm, &format!("0\t33188\t0\t{digits}\t/x"));
        file.digest.map(|d| d.to_string().split(':').next().map(str::to_owned))
    };
    assert_eq!(kind("(none)", SUM), Some(Some("md5".to_owned())));
    assert_eq!(kind("1", SUM), Some(Some("md5".to_owned())));
    assert_eq!(kind("10", &SHA.repeat(2)), Some(Some("sha512".to_owned())));
    // SHA-1: not known here, so nothing is known of the content.
    assert_eq!(kind("2", &SUM.repeat(2)), None);
    assert_eq!(kind("8", ""), None);
}

#[test]
fn a_digest_of_the_wrong_length_is_a_fault_and_no_missing_digest() {
    let said = read(&[package("8"), file(&format!("0\t33188\t0\t{SUM}\t/x"))]);
    assert_eq!(said[1].as_ref().map_err(|f| f.line), Err(2));
}

#[test]
fn a_line_end_in_a_name_cannot_forge_a_line() {
    let name = format!("/tmp/x\nK8\tP\tbash\t1\tx\t8\tK8\n\tF\t0\t33261\t0\t{SHA}\t/usr/bin/bash");
    let printed = format!("{}\n{}", package("8"), file(&format!("0\t33188\t0\t{SHA}\t{name}")));
    let lines: Vec<String> = printed.lines().map(str::to_owned).collect();
    let said = read(&lines);
    assert!(said[0].is_ok());
    for line in &said[1..] {
        let fault = line.as_ref().expect_err("no line of its own");
        assert!(!fault.message.contains("K7"), "the mark is a secret: {fault}");
    }
}

#[test]
fn files_behind_a_package_that_cannot_be_read_belong_to_no_other() {
    let line = format!("0\t33188\t0\t{SHA}\t/x");
    let said =
        read(&[package("8"), "K7\tP\tno\tfields\tK7".to_owned(), file(&line), package("8"), file(&line)]);
    let ok: Vec<bool> = said.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, false, false, true, true]);
}
