<?php
function fibonacci(int $n): int
{
    return $n < 2 ? $n : fibonacci($n - 1) + fibonacci($n - 2);
}
for ($turn = 0; $turn < 3; $turn++) {
    $number = fibonacci(20);
}
$compiler = opcache_get_status(false)['jit'];
echo 'php answers ', $number, $compiler['on'] && $compiler['buffer_free'] < $compiler['buffer_size'] ? ', compiled' : '';
