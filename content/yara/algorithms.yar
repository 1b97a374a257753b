// Numbers that an algorithm cannot do without, wherever its compiler put them. A library that only implements one is
// told as such: it is a reason to look, and on a server that does not mine, rarely a good sign.

rule randomx {
    meta:
        description = "the constants of RandomX: it computes Monero's proof of work"
        severity = "high"
    strings:
        $s1 = { fc a1 f5 59 8a 97 0a 81 }
        $s2 = { 46 d8 c2 38 df 99 70 a7 }
        $s3 = { 5c 49 22 bf 1c b9 26 81 }
        $s4 = { 62 8a 9f 17 97 25 4d 49 }
        $s5 = { 0c ec aa ce b9 ef 37 92 }
        $s6 = { 78 2d e6 6c 74 56 2a 2f }
        $s7 = { 4e e5 2c b6 f7 3b 85 84 }
        $fill_a = { dd aa 21 64 db 3d 83 d1 2b 6d 54 2f 3f d2 e5 99 }
        $fill_b = { 50 34 0e b2 55 3f 91 b6 53 9d f7 06 e5 cd df a5 }
        $generate = { 53 a5 ac 6d 09 66 71 62 2b 55 b5 db 17 49 f4 b4 }
        $hash = { 0d 2c b5 92 de 56 a8 9f 47 db 82 cc ad 3a 98 d7 }
    condition:
        4 of ($s*) or 2 of ($fill_a, $fill_b, $generate, $hash)
}

rule cryptonight {
    meta:
        description = "the closing hashes of CryptoNight together: JH and Skein beside its names"
        severity = "high"
    strings:
        $jh = { eb 98 a3 41 2c 20 d3 eb 92 cd be 7b 9c b2 45 c1 }
        $skein = { 13 3e db 2f a1 44 d0 cc eb a9 79 1a 30 90 35 e8 }
        $skein_a = { 13 3e db 2f a1 44 d0 cc }
        $skein_b = { eb a9 79 1a 30 90 35 e8 }
        $name = "cryptonight"
        $short = "cn/fast"
    condition:
        $jh and ($skein or ($skein_a and $skein_b)) and ($name or $short)
}

rule kawpow {
    meta:
        description = "the constants of KawPow: it computes Ravencoin's proof of work"
        severity = "high"
    strings:
        $state = { 72 00 00 00 41 00 00 00 56 00 00 00 45 00 00 00 4e 00 00 00 43 00 00 00 4f 00 00 00 49 00 00 00 4e 00 00 00 }
    condition:
        $state
}

rule ethash_kernel {
    meta:
        description = "a kernel of Ethash or ProgPoW for graphics processors"
        severity = "high"
    strings:
        $a = "progPowLoop"
        $b = "PROGPOW_CACHE_BYTES"
        $c = "PROGPOW_DAG_LOADS"
        $d = "ethash_calculate_dag_item"
        $e = "GenerateDAG"
        $f = "ethash_search"
        $g = "GROUP_SHARE"
        $h = "ETHASH_DATASET_PARENTS"
    condition:
        4 of them
}

rule equihash_personalisation {
    meta:
        description = "the marks of Equihash for several currencies: it computes their proof of work"
        severity = "medium"
    strings:
        $zcash = "ZcashPoW"
        $gold = "BgoldPoW"
        $zero = "ZERO_PoW"
        $beam = "Beam-PoW"
        $safe = "Safecoin"
        $any = /--?pers/
        $stratum = /stratum\+(tcp|ssl):\/\//
        $submit = "mining.submit"
    condition:
        2 of ($zcash, $gold, $zero, $beam, $safe) and ($any or $stratum or $submit)
}

rule argon2_coins {
    meta:
        description = "Argon2 as currencies use it: it computes their proof of work"
        severity = "high"
    strings:
        $a = "argon2/chukwa"
        $b = "argon2/chukwav2"
        $c = "argon2/ninja"
        $d = "argon2/wrkz"
        $e = "chukwa-v2"
    condition:
        2 of ($a, $b, $c, $d, $e)
}
