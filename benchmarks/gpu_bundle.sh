#!/usr/bin/env bash
# Makes FOLDER and FOLDER.tar.gz, which travels to a machine with a GPU and no network: this repository's sft and
# benchmarks, and the packages that a machine with torch and transformers lacks. Nothing is installed or compiled there.
#
#   PYTHON=.venv/bin/python benchmarks/gpu_bundle.sh FOLDER [PYTHON_VERSION]
#
# PYTHON has torch, which DeepSpeed's build asks for; PYTHON_VERSION is that of the other machine (default 3.12, x86-64).
# How to use it there: benchmarks/gpu/__init__.py, and for `python -m benchmarks.learning --device cuda` docs/LEARNING.md.
set -euo pipefail

folder=${1:?"usage: benchmarks/gpu_bundle.sh FOLDER [PYTHON_VERSION]"}
version=${2:-3.12}
python=${PYTHON:-python3}
limit_kib=10240
root=$(cd "$(dirname "$0")/.." && pwd)
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT

pinned() { grep -i -m 1 "^$1==" "$root/constraints.txt" | cut -d ' ' -f 1; }

mkdir -p "$folder"
[ -z "$(ls -A "$folder")" ] || { echo "$folder is not empty" >&2; exit 2; }

packages=()
for name in pydantic pydantic_core annotated-types typing-inspection typing_extensions hjson einops msgpack py-cpuinfo \
    datasets dill multiprocess ruamel.yaml datasketch; do
    packages+=("$(pinned "$name")")
done
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheels" --only-binary=:all: \
    --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform any "${packages[@]}"
# DeepSpeed comes as source. Its build runs here, with this machine's torch, and compiles no operation.
DS_BUILD_OPS=0 DS_ENABLE_NINJA=0 "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
    --no-build-isolation --wheel-dir "$wheels" "$(pinned deepspeed)"

for wheel in "$wheels"/*.whl; do
    "$python" -m zipfile -e "$wheel" "$folder"
done
cp -r "$root/sft" "$root/benchmarks" "$folder"
# The sources of operations: without them nothing can be compiled on first use.
rm -rf "$folder"/deepspeed/ops/csrc "$folder"/*.data "$folder"/*.dist-info/sboms
find "$folder" -name __pycache__ -type d -prune -exec rm -rf {} +
find "$folder" -name '*.pyi' -delete

tar -C "$(dirname "$folder")" -czf "$folder.tar.gz" "$(basename "$folder")"
size=$(du -sk --apparent-size "$folder.tar.gz" | cut -f 1)
echo "$folder.tar.gz: $size KiB, for Python $version"
[ "$size" -le "$limit_kib" ] || { echo "larger than $limit_kib KiB" >&2; exit 1; }
