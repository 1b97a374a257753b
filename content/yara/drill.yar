// What `davy drill` writes to see whether scans find it.

rule davy_drill_sample : file {
    meta:
        description = "the inert sample of `davy drill`, which does nothing"
        severity = "high"
    strings:
        $mark = "davy-drill-inert-sample-5b1e0a3f9c7d4e62"
    condition:
        uint16(0) == 0x2123 and filesize < 4KB and $mark
}
