#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# learn.sh RECORDED NAME [OPTION...]: trains a model on what dpclass record has written to the directory RECORDED, and exports
# it as NAME.onnx and NAME.json. The options are those of dptrain.sh train default. Run it again to continue a training that
# was interrupted, or to train on more, once there are more recordings.

# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

[ $# -ge 2 ] || fail "learn.sh RECORDED NAME [OPTION...]: two arguments are missing"
recorded=$1 name=$2
shift 2
if [ -d "$recorded" ] && { [ ! -x "$recorded" ] || [ -f "$recorded/manifest.csv" ] && [ ! -r "$recorded/manifest.csv" ]; }; then
	fail "you may not read $recorded: make it yours, with sudo chown -R $(id -un) $recorded"
fi
[ -f "$recorded/manifest.csv" ] || fail "$recorded has no manifest.csv: record first, with dpclass record IFACE --out $recorded"
[ -x "$root/.venv/bin/python" ] || fail "the trainer's Python environment is missing: run make train-deps"

work=$name.learn
if [ ! -f "$work/dataset/meta.json" ] || [ "$recorded/manifest.csv" -nt "$work/dataset/meta.json" ]; then
	rm -rf "$work/dataset" "$work/run"
	"$root/bin/dpclass" dataset build --manifest "$recorded" --out "$work/dataset"
fi
"$root/scripts/dptrain.sh" train default --data "$work/dataset" --run "$work/run" "$@"
"$root/scripts/dptrain.sh" export --data "$work/dataset" --run "$work/run" --name "$name"
case $name in
*/*) model=$name.onnx ;;
*) model=./$name.onnx ;;
esac
say "use it: sudo bin/dpclass attach IFACE --model $model"
