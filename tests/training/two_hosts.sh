#!/bin/bash
# Trains a recipe by two hosts: network namespaces of this machine, joined by a link of 1 Gbit/s. As root.
#
#   two_hosts.sh RECIPE              one training by a process on each
#   two_hosts.sh RECIPE LOG LINES    the same; once LOG has so many lines, the link is down for 40 s
#
# Exits as torchrun does on the first host. Nothing of it is seen outside of the two namespaces.
set -u
recipe=$1 log=${2:-} lines=${3:-0}
python=${PYTHON:-python}
one=hostone-$$ two=hosttwo-$$
near=va$$ far=vb$$

clean() {
    for host in "$one" "$two"; do
        ip netns pids "$host" 2>/dev/null | xargs -r kill -9 2>/dev/null
        ip netns del "$host" 2>/dev/null
    done
    wait 2>/dev/null
}
trap clean EXIT

set -e
for host in "$one" "$two"; do
    ip netns add "$host"
    ip -n "$host" link set lo up
done
ip link add "$near" netns "$one" type veth peer name "$far" netns "$two"
ip -n "$one" addr add 10.77.0.1/24 dev "$near"
ip -n "$two" addr add 10.77.0.2/24 dev "$far"
for end in "$one $near" "$two $far"; do
    set -- $end
    ip -n "$1" link set "$2" up
    tc -n "$1" qdisc add dev "$2" root tbf rate 1gbit burst 256k latency 50ms
done
set +e

agent() { # HOST LINK ADDRESS IS_HOST
    local nodes=2 restarts=0
    [ -n "$log" ] && nodes=1:2 restarts=3
    GLOO_SOCKET_IFNAME=$2 exec ip netns exec "$1" "$python" -m torch.distributed.run \
        --nnodes "$nodes" --nproc-per-node 1 --max-restarts "$restarts" --local-addr "$3" \
        --rdzv-backend c10d --rdzv-endpoint 10.77.0.1:29577 --rdzv-conf "is_host=$4,last_call_timeout=5" \
        --rdzv-id two-hosts -m sourcewise train "$recipe"
}

(agent "$one" "$near" 10.77.0.1 true) & first=$!
(agent "$two" "$far" 10.77.0.2 false) & second=$!
if [ -n "$log" ]; then
    until [ "$(cat "$log" 2>/dev/null | wc -l)" -ge "$lines" ]; do
        kill -0 "$first" 2>/dev/null || break
        sleep 0.1
    done
    ip -n "$one" link set "$near" down
    echo "two_hosts: the link is down at $(wc -l <"$log") lines" >&2
    sleep 40
    ip -n "$one" link set "$near" up
    echo "two_hosts: the link is up at $(wc -l <"$log") lines" >&2
fi
wait "$first"
status=$?
[ -z "$log" ] && { wait "$second" || status=$?; }
exit "$status"
