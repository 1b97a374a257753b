// The scripts around miners: they fetch, make room, dig in.

rule kills_competitors {
    meta:
        description = "a list of other people's miners to end, as scripts of mining campaigns carry it"
        severity = "high"
    strings:
        $n01 = "kdevtmpfsi"
        $n02 = "kinsing"
        $n03 = "kthreaddi"
        $n04 = "watchbog"
        $n05 = "sysrv"
        $n06 = "ddgs"
        $n07 = "qW3xT"
        $n08 = "sourplum"
        $n09 = "xmr-stak"
        $n10 = "cryptonight"
        $n11 = "minerd"
        $n12 = "xmrig"
        $n13 = "cnrig"
        $n14 = "networkservice"
        $n15 = "sysguard"
        $n16 = "sysupdate"
        $n17 = "solrd"
        $n18 = "zzh"
        $n19 = "crypto-pool"
        $n20 = "monerohash"
        $n21 = "xmrpool"
        $n22 = "supportxmr"
        $n23 = "c3pool"
        $n24 = "Circle_MI"
        $n25 = "wnTKYg"
        $kill1 = /(pkill|killall)( -9| -f| -KILL){0,3} [a-zA-Z0-9._"'-]{2,40}/
        $kill2 = /xargs( -r| -I ?[%{}]+| -n ?1)? ?kill -9/
        $kill3 = /kill -9 (\$|`)/
    condition:
        filesize < 2MB and 5 of ($n*) and any of ($kill*)
}

rule removes_cloud_agents {
    meta:
        description = "takes away a cloud provider's security agents, as scripts of mining campaigns do"
        severity = "high"
    strings:
        $a = "update.aegis.aliyun.com/download/uninstall.sh"
        $b = "update.aegis.aliyun.com/download/quartz_uninstall.sh"
        $c = "/usr/local/qcloud/YunJing/uninst.sh"
        $d = "/usr/local/qcloud/stargate/admin/uninstall.sh"
        $e = "/usr/local/qcloud/monitor/barad/admin/uninstall.sh"
        $f = /(systemctl (stop|disable)|service|pkill|killall)[a-z0-9 -]{0,12} (aliyun\.service|aliyun-service|AliYunDun|bcm-si\.service|cloudmonitor)/
        $g = "/usr/local/cloudmonitor/CmsGoAgent.linux-amd64 stop"
    condition:
        2 of them
}

rule cron_fetches_and_runs {
    meta:
        description = "a line for cron that fetches a script and runs it"
        severity = "high"
    strings:
        $a = /(\*\/[0-9]{1,2}|\*|[0-9]{1,2})( [*0-9\/,-]{1,10}){4} [^\n]{0,60}(curl|wget|wdl|cdt)[^\n|]{4,200}\| ?(\/bin\/|\/usr\/bin\/env )?(ba|da|z)?sh\b/
    condition:
        $a
}

rule fetches_from_address_and_runs {
    meta:
        description = "fetches a script from a bare address and runs it at once"
        severity = "medium"
    strings:
        $a = /(curl|wget)[^\n|;]{1,80}https?:\/\/[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(:[0-9]{2,5})?\/[^\n|;]{1,120}\| ?(\/bin\/)?(ba|da)?sh\b/
        $b = /(ba|da)?sh -c ["']?\$\((curl|wget)[^\n)]{1,80}https?:\/\/[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(:[0-9]{2,5})?\//
        $local1 = "//127.0.0.1"
        $local2 = "//192.168."
        $local3 = "//10."
        $local4 = "//0.0.0.0"
    condition:
        any of ($a, $b) and none of ($local*)
}

rule fetches_to_temporary_and_runs {
    meta:
        description = "fetches a program into a temporary folder, makes it executable, runs it and removes it"
        severity = "medium"
    strings:
        $a = /cd (\/tmp|\/var\/tmp|\/dev\/shm|\/var\/run)[ ;|&\/]{1,4}/
        $fetch = /(wget|curl|tftp|busybox wget|ftpget)[^\n;]{1,160}https?:\/\/[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}/
        $mode = /chmod (\+x|777|755|0777) [^\n;]{1,60};? ?\.\//
        $gone = /(\.\/[^\n;]{1,60}|&);? ?rm -rf? /
    condition:
        filesize < 1MB and $a and $fetch and $mode and $gone
}

rule encoded_shell_payload {
    meta:
        description = "decodes a long text and gives it to a shell"
        severity = "medium"
    strings:
        $a = /echo ["']?[A-Za-z0-9+\/]{120,4000}={0,2}["']? ?\| ?base64 (-d|--decode|-D|-di) ?\| ?(\/bin\/)?(ba|da)?sh\b/
        $b = /base64 (-d|--decode) ?<<< ?["']?[A-Za-z0-9+\/]{120,4000}={0,2}["']? ?\| ?(\/bin\/)?(ba|da)?sh\b/
        $c = /python[23]? -c ["']import base64[,;][^\n]{0,40}exec\(base64\.b64decode\(["'][A-Za-z0-9+\/]{120,4000}/
    condition:
        any of them
}

rule prepares_machine_for_randomx {
    meta:
        description = "sets the processor's prefetchers and reserves huge pages as RandomX wants them"
        severity = "high"
    strings:
        $msr1 = /wrmsr -a 0x1a4 (0x)?f\b/
        $msr2 = /wrmsr -a 0xc0011022 /
        $msr3 = /wrmsr -a 0xc0011020 /
        $msr4 = /wrmsr -a 0xc001102b /
        $load = /modprobe msr( allow_writes=on)?/
        $pages = /(vm\.nr_hugepages ?= ?|nr_hugepages ?$)/
        $runs = /(xmrig|-o [a-z0-9.-]{4,60}:[0-9]{2,5}|randomx)/
    condition:
        filesize < 1MB and $load and 2 of ($msr*) or (any of ($msr*) and $pages and $runs)
}

rule digs_in {
    meta:
        description = "blinds a machine's defences and makes itself hard to remove, as scripts of mining campaigns do"
        severity = "high"
    strings:
        $a = /chattr -[a-zA-Z]{1,6} [^\n]{0,60}(\/var\/spool\/cron|\/etc\/cron|\/etc\/ld\.so\.preload|authorized_keys)/
        $b = /chattr \+[a-zA-Z]{1,4} [^\n]{0,60}(\/var\/spool\/cron|\/etc\/cron|\/etc\/ld\.so\.preload|authorized_keys|\/etc\/hosts)/
        $c = "setenforce 0"
        $d = /(ufw disable|iptables -F|systemctl (stop|disable) firewalld)/
        $e = /(>|tee) ?\/etc\/ld\.so\.preload/
        $f = "kernel.nmi_watchdog=0"
        $g = /(>|rm -rf?) ?\/var\/log\/(syslog|secure|wtmp|cron|auth\.log)/
        $h = /history -c/
        $i = /echo ["']?ssh-(rsa|ed25519) AAAA[A-Za-z0-9+\/=]{40,800}[^\n]{0,80}>> ?[^\n]{0,40}authorized_keys/
        $j = /crontab -r/
        $k = /(echo|printf) [^\n]{0,300}\| ?crontab -/
        $l = /mv (-f )?\/(usr\/)?bin\/(curl|wget) \/(usr\/)?bin\/[a-z0-9]{2,8}/
    condition:
        filesize < 2MB and 5 of them
}

rule spreads_by_known_hosts {
    meta:
        description = "goes on to every machine that keys and known hosts lead to"
        severity = "high"
    strings:
        $a = /\.ssh\/known_hosts/
        $b = /(id_rsa|\.ssh\/id_|\*\.pem)/
        $c = /BatchMode=yes/
        $d = /StrictHostKeyChecking=no/
        $e = /(curl|wget)[^\n]{4,160}\| ?(ba)?sh/
        $f = /ConnectTimeout=[0-9]+/
        $loop = /for [a-z]{1,8} in \$/
    condition:
        filesize < 1MB and $a and $b and $c and $d and $e and $f and $loop
}

rule spreads_by_redis {
    meta:
        description = "writes itself into cron or authorized_keys through open Redis servers"
        severity = "high"
    strings:
        $a = /config set dir ["']?(\/var\/spool\/cron|\/etc\/cron\.d|\/root\/\.ssh)/ nocase
        $b = /config set dbfilename ["']?(root|authorized_keys|crontab|zzh|apache)/ nocase
        $c = /set [a-zA-Z0-9_]{1,20} ["']?(\\n){1,4}[^\n]{0,30}(\*\/[0-9]{1,2} \*|ssh-rsa)/ nocase
        $d = /(masscan|pnscan|zgrab|redis-cli)/
    condition:
        $a and $b and ($c or $d)
}
