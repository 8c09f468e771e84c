#!/usr/bin/env bash
# Everything that a machine with one GPU has to show, in the order of what it is worth, within MINUTES:
#
#     bash gpu_session.sh MINUTES [OUT]        # OUT: folder of JSON lines and table.md; build/gpu where it is absent
#
# Each part has a time of its own and writes every figure when it is there, so that a part that is cut off leaves
# what it has. DEVICE=cpu shows that the parts run. PYTHON names another Python.
set -uo pipefail
cd "$(dirname "$0")" || exit 1
minutes=${1:?usage: gpu_session.sh MINUTES [OUT]}
out=$(mkdir -p "${2:-build/gpu}" && cd "${2:-build/gpu}" && pwd)
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
ends=$(awk -v m="$minutes" 'BEGIN { printf "%d", systime() + 60 * m - 5 }')

here=$PWD
export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$here:$here/sweeps/plugins" PYTHONUNBUFFERED=1
[ -d "$here/site" ] && PYTHONPATH="$here/site:$PYTHONPATH"
[ -d "$here/site" ] && timeout 30 "$python" -m compileall -q -j 0 "$here/site" >/dev/null  # else every process does, at once
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

# part NAME SECONDS ARGUMENTS...: the script benchmarks/NAME.py within its seconds and the session's.
part() {
    local name=$1 seconds=$2 left began=$SECONDS
    shift 2
    left=$((ends - $(date +%s)))
    [ "$seconds" -gt "$left" ] && seconds=$left
    if [ "$seconds" -lt 10 ]; then
        echo "== $name: not reached" | tee -a "$out/session.log"
        return
    fi
    echo "== $name: at most $seconds s" | tee -a "$out/session.log"
    # The script's own --minutes, counted from after its imports, end it in order; TERM lets it name what it did not reach.
    timeout --signal=TERM --kill-after=20 "$seconds" "$python" "benchmarks/$name.py" --device "$device" --out "$out" \
        --minutes "$(awk -v s="$seconds" 'BEGIN { print (s - 25) / 60 }')" "$@" 2>&1 | tee -a "$out/$name.log"
    echo "== $name: $((SECONDS - began)) s, exit code ${PIPESTATUS[0]}" | tee -a "$out/session.log"
}

if [ "$device" = cpu ]; then
    part gpu_check 300 --only process_group masking export scoring
    part gpu_study 300 --data "$here/data"
    part gpu_training 120 --models proxy_1m --no-compile --steps 1 --rounds 1
    part gpu_scoring 120 --sizes 0.5M --count 4 --repeats 1
else
    part gpu_check 140 --at-once 16
    part gpu_study 170 --data "$here/data"
    part gpu_training 220 --steps 3 --models smollm2_135m proxy_15m smollm2_360m smollm2_1b7 proxy_1m
    part gpu_scoring 90 --sizes 25M 135M
    part gpu_training 600 --steps 5 --models proxy_60m
fi
"$python" benchmarks/gpu_table.py "$out" | tee "$out/table.md"
