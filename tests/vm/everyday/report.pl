use strict;
use warnings;
my $sum = 0;
$sum += $_ for 1 .. $ARGV[0];
print "$sum\n";
