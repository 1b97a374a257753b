// Programs that mine, by what stays when they are renamed, stripped or rebuilt: names of options and of configuration keys,
// formats of their messages, tables of algorithms.

rule xmrig_options {
    meta:
        description = "the options of XMRig or one of its descendants: a program that mines Monero and its relatives"
        severity = "high"
    strings:
        $a = "donate-over-proxy"
        $b = "randomx-wrmsr"
        $c = "randomx-1gb-pages"
        $d = "cpu-max-threads-hint"
        $e = "huge-pages-jit"
        $f = "randomx-cache-qos"
        $g = "randomx-no-rdmsr"
        $h = "submit-to-origin"
        $i = "cpu-memory-pool"
        $j = "randomx-no-numa"
        $k = "daemon-poll-interval"
    condition:
        5 of them
}

rule xmrig_algorithms {
    meta:
        description = "the table of algorithms of XMRig and its descendants"
        severity = "high"
    strings:
        $a = "cn-heavy/tube"
        $b = "cn-heavy/xhv"
        $c = "cn-pico/tlo"
        $d = "cn-lite/1"
        $e = "cn/upx2"
        $f = "rx/graft"
        $g = "rx/arq"
        $h = "rx/wow"
        $i = "argon2/chukwav2"
        $j = "cryptonight-monerov7"
        $k = "cryptonight_lite_v7"
        $l = "cryptonight-bittube2"
    condition:
        5 of them
}

rule xmrig_configuration {
    meta:
        description = "a configuration of XMRig or one of its descendants"
        severity = "high"
    strings:
        $a = "\"donate-level\""
        $b = "\"donate-over-proxy\""
        $c = "\"max-threads-hint\""
        $d = "\"huge-pages-jit\""
        $e = "\"rig-id\""
        $f = "\"scratchpad_prefetch_mode\""
        $g = "\"argon2-impl\""
        $h = "\"1gb-pages\""
        $i = "\"self-select\""
        $j = "\"nicehash\""
        $pools = "\"pools\""
        $url = "\"url\""
    condition:
        $pools and $url and 3 of ($a, $b, $c, $d, $e, $f, $g, $h, $i, $j)
}

rule xmrig_command {
    meta:
        description = "a command that starts a miner with a pool and the options of XMRig"
        severity = "high"
    strings:
        $pool = /(-o|--url)[ =]["']?(stratum\+(tcp|ssl):\/\/)?[a-z0-9.-]{4,80}:[0-9]{2,5}/
        $donate = /--donate-level[ =][0-9]{1,2}/
        $coin = /(--coin|--algo|-a)[ =]["']?(monero|rx\/0|rx\/wow|rx\/arq|cn\/[a-z0-9]{1,6}|ghostrider|kawpow|argon2\/chukwa)/
        $keep = /(--keepalive|--cpu-max-threads-hint|--randomx-mode|--nicehash|--tls-fingerprint|--rig-id)/
    condition:
        $pool and 2 of ($donate, $coin, $keep)
}

rule cpuminer_messages {
    meta:
        description = "the messages of cpuminer or one of its descendants: a program that mines"
        severity = "high"
    strings:
        $a = "Stratum session id: %s"
        $b = "Stratum difficulty set to %"
        $c = "stratum_recv_line failed"
        $d = "Stratum connection timed out"
        $e = "Stratum authentication failed"
        $f = "\"method\": \"mining.subscribe\", \"params\": ["
        $g = "\"method\": \"mining.authorize\", \"params\": [\"%s\""
        $h = "\"method\": \"mining.submit\", \"params\": [\"%s\""
        $i = "json_rpc_call failed, retry after %d seconds"
        $j = "JSON-RPC call failed: %s"
        $k = "--coinbase-addr=ADDR"
        $l = "getwork inval"
        $m = "thread %d: %lu hashes, %s khash/s"
    condition:
        4 of them
}

rule xmr_stak_options {
    meta:
        description = "the options of xmr-stak: a program that mines"
        severity = "high"
    strings:
        $a = "\"use_tls\" : "
        $b = "pool_weight"
        $c = "giveup_limit"
        $d = "verbose_level"
        $e = "h_print_time"
        $f = "use_slow_memory"
        $g = "aes_override"
        $h = "cpu_threads_conf"
        $i = "xmr-stak"
    condition:
        5 of them
}

rule graphics_miner_options {
    meta:
        description = "the options of a program that mines on graphics processors"
        severity = "high"
    strings:
        $a = "--ethstratum"
        $b = "--nicehash"
        $c = "--dag-build-mode"
        $d = "--gpu-report-interval"
        $e = "--dualmode"
        $f = "--dualstratum"
        $g = "--dualpool"
        $h = "--gpu-boost"
        $i = "--randomx-use-1gb-pages"
        $j = "--disable-gpu-tweaking"
        $k = "--multi-algorithm-job-mode"
        $l = "--farm-recheck"
        $m = "--cuda-parallel-hash"
        $n = "--stratum-email"
        $o = "--work-timeout"
        $p = "--response-timeout"
        $q = "--eres"
        $r = "--lock-cclock"
        $s = "--lhr-tune"
        $t = "--pers"
        $u = "--ZILpool"
        $pool = "stratum"
    condition:
        $pool and 5 of ($a, $b, $c, $d, $e, $f, $g, $h, $i, $j, $k, $l, $m, $n, $o, $p, $q, $r, $s, $t, $u)
}

rule asic_miner_options {
    meta:
        description = "the options of cgminer or bfgminer"
        severity = "high"
    strings:
        $a = "--api-allow"
        $b = "--failover-only"
        $c = "--benchfile"
        $d = "--hotplug"
        $e = "--no-submit-stale"
        $f = "--scan-time|-s"
        $g = "--expiry|-E"
        $h = "--rotate"
        $i = "--round-robin"
        $j = "--load-balance"
        $k = "mining.extranonce.subscribe"
        $l = "Stratum from pool %"
    condition:
        5 of them and ($k or $l)
}

rule stratum_client {
    meta:
        description = "the methods of a mining client: it logs in, asks for jobs and submits shares"
        severity = "high"
    strings:
        $tcp = "stratum+tcp://"
        $ssl = /stratum\+(ssl|tls|tcps):\/\//
        $notify = "mining.notify"
        $difficulty = "mining.set_difficulty"
        $submit = "mining.submit"
        $subscribe = "mining.subscribe"
        $authorize = "mining.authorize"
        $extranonce = "mining.set_extranonce"
        $job = "job_id"
        $seed = "seed_hash"
        $keep = "keepalived"
        $rate = /(hashrate|hash rate|[kMG]?H\/s|khash)/
    condition:
        ($tcp or $ssl) and $rate and (4 of ($notify, $difficulty, $submit, $subscribe, $authorize, $extranonce)
            or ($job and $seed and $keep))
}

rule browser_miner {
    meta:
        description = "a miner for browsers"
        severity = "medium"
    strings:
        $a = /new CoinHive\.(Anonymous|User|Token)\(/
        $b = /new Client\.Anonymous\(['"][0-9a-zA-Z]{32,64}['"], ?\{ ?throttle/
        $c = /CryptoLoot\.(Anonymous|User)\(/
        $d = "CryptonightWASMWrapper"
        $e = /deepMiner\.(Init|Anonymous)\(/
    condition:
        any of them
}
