//! Names of terminals from device numbers (Documentation/admin-guide/devices.txt of the kernel).

/// The name below /dev of a controlling terminal, from field 7 of `/proc/PID/stat`; `None` for no terminal.
pub(crate) fn name(number: u32) -> Option<String> {
    let major = (number >> 8) & 0xfff;
    let minor = (number & 0xff) | ((number >> 12) & 0xfff00);
    Some(match (major, minor) {
        (0, 0) => return None,
        (136..=143, _) => format!("pts/{}", (major - 136) * 256 + minor),
        (4, 0..=63) => format!("tty{minor}"),
        (4, _) => format!("ttyS{}", minor - 64),
        (5, 1) => "console".to_owned(),
        (188, _) => format!("ttyUSB{minor}"),
        (204, 64..=127) => format!("ttyAMA{}", minor - 64),
        (229, _) => format!("hvc{minor}"),
        _ => format!("{major}:{minor}"),
    })
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn terminals_have_their_names() {
        let cases = [(0, None), (34816, Some("pts/0")), (34819, Some("pts/3")), (1025, Some("tty1"))];
        for (number, expected) in cases {
            assert_eq!(name(number).as_deref(), expected);
        }
        assert_eq!(name((4 << 8) | 64).as_deref(), Some("ttyS0"));
        assert_eq!(name((137 << 8) | 1).as_deref(), Some("pts/257"));
        assert_eq!(name(u32::MAX).as_deref(), Some("4095:1048575"));
    }
}
