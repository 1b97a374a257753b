// Pools and wallets. An address of a wallet counts only when its checksum holds, which the engine tries (`verify`).

rule pool_and_wallet {
    meta:
        description = "a pool's address and a wallet that can be paid to"
        severity = "high"
        verify = "wallet"
    strings:
        $stratum = /stratum[12]?\+(tcp|ssl|tls|tcps|http):\/\/[a-zA-Z0-9._-]{3,100}:[0-9]{2,5}/
        $monero = /[^1-9A-HJ-NP-Za-km-z][48][0-9AB][1-9A-HJ-NP-Za-km-z]{93}/
        $bitcoin = /[^0-9A-Za-z](bc1[02-9ac-hj-np-z]{20,70}|[13][1-9A-HJ-NP-Za-km-z]{25,34})[^0-9A-Za-z]/
        $raven = /[^0-9A-Za-z]R[1-9A-HJ-NP-Za-km-z]{33}[^0-9A-Za-z]/
        $ethereum = /[^0-9A-Za-z]0x[0-9a-fA-F]{40}[^0-9A-Za-z]/
        $kaspa = /kaspa:[qp][a-z0-9]{60,62}/
    condition:
        $stratum and any of ($monero, $bitcoin, $raven, $ethereum, $kaspa)
}

rule miner_login_in_command {
    meta:
        description = "a command that takes a pool and a wallet that can be paid to"
        severity = "high"
        verify = "wallet"
    strings:
        $monero = /(-o|--url|--pool)[ =]["']?[a-z0-9+:\/.-]{4,100}:[0-9]{2,5}["']? [^\n]{0,80}(-u|--user|--wallet)[ =]["']?[48][0-9AB][1-9A-HJ-NP-Za-km-z]{93}/
        $other = /(-o|--url|--pool|-P)[ =]["']?[a-z0-9+:\/.-]{4,100}:[0-9]{2,5}["']? [^\n]{0,80}(-u|--user|--wallet)[ =]["']?(bc1[a-z0-9]{20,70}|R[1-9A-HJ-NP-Za-km-z]{33}|0x[0-9a-fA-F]{40}|kaspa:[a-z0-9]{61,63}|[13LD][1-9A-HJ-NP-Za-km-z]{25,34})/
    condition:
        any of them
}

rule stratum_login : memory {
    meta:
        description = "the conversation of a miner with its pool"
        severity = "high"
    strings:
        $login = /"method": ?"login", ?"params": ?\{ ?"login": ?"/
        $subscribe = /"method": ?"mining\.subscribe", ?"params": ?\["/
        $job = /"job_id": ?"[0-9a-zA-Z+\/=_-]{1,64}"/
        $seed = /"seed_hash": ?"[0-9a-f]{64}"/
        $target = /"target": ?"[0-9a-f]{8,64}"/
        $notify = /"method": ?"mining\.notify", ?"params": ?\["/
        $submit = /"method": ?"(mining\.)?submit", ?"params": ?[\[{]/
    condition:
        ($login and $job and ($seed or $target)) or ($subscribe and $notify and $submit)
}
