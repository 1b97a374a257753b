# Adds up the numbers to the one that is given.
sum=0
n=1
while [ "$n" -le "$1" ]; do
    sum=$((sum + n))
    n=$((n + 1))
done
echo "$sum"
