#!/usr/bin/env bash
# Run the GPU specs on a machine without internet, with its own Python and a folder of wheels. See docs/gpu.md.
set -u
usage="usage, from the root of the repository: scripts/gpu.sh WHEELS RESULTS [OPTIONS]
  WHEELS   folder of wheels, collected as in docs/gpu.md
  RESULTS  folder for records and logs
  OPTIONS  of pytest suite/training, such as --profile course
environment: DEVICE (default: cuda), PYTHON (default: python3), LIMIT of each part (default: 60m), HF_HOME (hub cache)"
if [ $# -lt 2 ] || [ ! -d "$1" ] || [ ! -f scripts/gpu.sh ]; then
    echo "$usage" >&2
    exit 2
fi
wheels=$(realpath "$1") && mkdir -p "$2/logs" && results=$(realpath "$2") || exit 2
shift 2
device=${DEVICE:-cuda} python=${PYTHON:-python3} limit=${LIMIT:-60m}

# Set up ---------------------------------------------------------------------------------------------------------------
env=.tox/carried
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "$python is older than Python 3.11: choose another with PYTHON=..." >&2; exit 2; }
"$python" -m venv --clear --without-pip --system-site-packages "$env" || exit 2
# If this Python is itself in a virtual environment, --system-site-packages does not show its packages. This file does.
"$python" -c 'import site; print(*site.getsitepackages(), sep="\n")' \
    > "$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/host.pth"
pip=("$wheels"/pip-*.whl)
"$env/bin/python" -c 'import torch' 2> /dev/null || compgen -G "$wheels/torch-*.whl" > /dev/null ||
    { echo "$python has no torch, and $wheels has no wheel of it: add the one for this machine's driver" >&2; exit 2; }
# All versions except torch's are the pinned ones, even if the machine has others.
grep -v '^torch==' constraints.txt > "$env/constraints.txt"
"$env/bin/python" -c '
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
tests = [package for package in extras["tests"] if not package.startswith("touchstone")]  # it runs from this folder
print(*project["dependencies"], *extras["suite"], *tests, sep="\n")' > "$env/requirements.txt"
"$env/bin/python" "${pip[0]}/pip" install -q --no-index --find-links "$wheels" --disable-pip-version-check \
    -c "$env/constraints.txt" -r "$env/requirements.txt" ||
    { echo "a wheel is missing (see above): collect them again as in docs/gpu.md" >&2; exit 2; }
"$env/bin/python" -c '
import sys, torch
print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.device_count()} GPUs")
sys.exit(sys.argv[1] != "cpu" and not torch.cuda.is_available())' "$device" ||
    { echo "torch does not see a GPU: check nvidia-smi, or try DEVICE=cpu" >&2; exit 2; }

# Run ------------------------------------------------------------------------------------------------------------------
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
failed=0
summary=$results/logs/summary.txt
: > "$summary"
part() { # NAME COMMAND...: run with the time limit and a log; the next part runs even if this one fails
    local name=$1 began=$SECONDS status
    shift
    echo "== $name: $*"
    timeout --kill-after=60 "$limit" "$env/bin/python" "$@" 2>&1 | tee "$results/logs/$name.txt"
    status=${PIPESTATUS[0]}
    [ "$status" = 0 ] || failed=1
    [ "$status" != 124 ] || status="stopped after $limit"
    echo "$name: exit status $status, $((SECONDS - began)) s" >> "$summary"
}
part hardware -m touchstone hardware --device "$device" --measure
part tests -m pytest tests/ -k cuda
part reproducibility -m pytest suite/reproducibility --device "$device" --engine trainer --engine loop --engine packed
part training -m pytest suite/training --device "$device" --engine trainer --engine packed --results "$results" "$@"
part compare -m touchstone compare "$results" --by engine --engines trainer packed
part times -m touchstone times "$results"
echo "== in $results:"
cat "$summary"
exit "$failed"
