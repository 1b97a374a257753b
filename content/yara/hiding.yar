// What hides a miner, or brings it in.

rule hides_processes {
    meta:
        description = "a library that hides processes from ps and top when it is preloaded"
        severity = "high"
    strings:
        $a = "process_to_filter"
        $b = "/proc/self/fd/%d"
        $c = "readdir64"
        $d = "Error in dlsym: %s"
        $e = "/proc/%s/stat"
    condition:
        4 of them
}

rule kernel_rootkit {
    meta:
        description = "a kernel module that hides processes, files or itself"
        severity = "critical"
    strings:
        $a = "diamorphine_init"
        $b = "hacked_getdents64"
        $c = "hacked_kill"
        $d = "get_syscall_table_bf"
        $e = "module_hide"
        $f = "reptile_init"
        $g = "hook_sys_getdents64"
        $h = "orig_getdents64"
        $i = "is_invisible"
        $j = "give_root"
    condition:
        3 of them
}

rule hides_connections {
    meta:
        description = "a library that hides files and connections and runs miners, when it is preloaded"
        severity = "high"
    strings:
        $a = "ld.so.preload"
        $b = "/proc/net/tcp"
        $c = "readdir64"
        $d = "fopen64"
        $e = "__lxstat64"
        $f = /(xmrig|stratum|mining\.|minerd|\.hashrate)/
        $g = "forge_proc_net_tcp"
        $h = "hide_tcp_ports"
    condition:
        $g or $h or (filesize < 1MB and $a and $b and $c and $d and $e and $f)
}

rule fetcher_in_memory {
    meta:
        description = "fetches a program and runs it from memory without a file"
        severity = "medium"
    strings:
        $perl1 = /syscall\(3[12]9, ?\$[a-z]{1,12}, ?[01x]{1,4}\)/
        $perl2 = /exec \{?["']?\/proc\/(\$\$|self)\/fd\/\$?[a-z0-9]{1,8}/
        $python1 = /ctypes\.CDLL\(None\)\.syscall\(3[12]9/
        $python2 = /os\.exec[a-z]{1,3}\(["']\/proc\/self\/fd\//
        $python3 = /os\.memfd_create\([^\n]{0,60}\n?[^\n]{0,120}\n?[^\n]{0,200}urlopen/
        $python4 = /\/proc\/(self|%d)\/fd\/%d/
    condition:
        filesize < 1MB and (($perl1 and $perl2) or ($python1 and $python2) or ($python3 and ($python2 or $python4)))
}

rule service_of_a_miner {
    meta:
        description = "a systemd unit that keeps a miner running"
        severity = "high"
    strings:
        $unit = "[Service]"
        $start = /ExecStart ?=[^\n]{0,200}(--donate-level|stratum\+(tcp|ssl):\/\/|--cpu-max-threads-hint|--randomx-|--coin[ =](monero|xmr))/
        $hidden = /ExecStart ?= ?(\/tmp|\/var\/tmp|\/dev\/shm)\/\.?[^\n]{0,120} (-o|--url|-c|--config)[ =]/
    condition:
        filesize < 64KB and $unit and ($start or $hidden)
}

rule container_of_a_miner {
    meta:
        description = "a container, a pod or a compose file that runs a miner"
        severity = "high"
    strings:
        $kind = /(image: ?["']?|docker run[^\n]{0,120} |FROM )[a-z0-9._\/-]{0,60}(xmrig|minerd|cpuminer|xmr-stak|monero-miner|nanominer|lolminer)/
        $pool = /(stratum\+(tcp|ssl):\/\/|--donate-level|-o [a-z0-9.-]{4,60}:[0-9]{2,5}|pool\.[a-z0-9-]{3,40}\.[a-z]{2,8}:[0-9]{2,5})/
    condition:
        filesize < 1MB and $kind and $pool
}
