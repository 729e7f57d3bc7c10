#!/usr/bin/env bash
# GPU measurements that are still to be made, each fit for a call of ten minutes on one GPU:
#
#   bash tools/gpu_queue.sh N OUT    runs item N and leaves its small result files in OUT
#
# It needs the package importable, its stack installed, and CAMVID_ROOT set for items 3 and 4.
# What is measured goes to docs/results/, and its item leaves this list.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ $# -ne 2 || ! $1 =~ ^[1-6]$ ]]; then
    echo "usage: gpu_queue.sh N OUT, N from 1 to 6; found: $*" >&2
    exit 2
fi
item=$1 out=$2
python=${PYTHON:-python}
mkdir -p "$out"
out=$(cd "$out" && pwd)
case "$item" in
    1) # tests with a device parameter: of the method on tensors, and of the models
        "$python" -m pytest tests/functional tests/models -k cuda -p no:cacheprovider |
            tee "$out/tests.txt" ;;
    2) # the benchmarks of tools/perf on the GPU, beside the same peers as on the CPU
        "$python" tools/perf/run.py --device cuda --out "$out/cuda.json" ;;
    3) # the grid on CamVid, stopped after nine minutes: call it again until it says that all is done.
        # On a fresh machine, bring back what the last call left: CAMVID_GPU_DIR=OUT of that call.
        # BENCHMARK_ARGS chooses a part of it, for instance "--fractions 0.125 --starts random".
        work=${CAMVID_GPU_DIR:-work_dirs/camvid_gpu}
        # shellcheck disable=SC2086 # several words
        timeout -s TERM 540 "$python" tools/benchmark.py configs/benchmarks/camvid_gpu.py \
            --work-dir "$work" --jobs-per-gpu 3 ${BENCHMARK_ARGS:-} || true
        # all but weights: small, and enough for finished jobs to count as finished
        (cd "$work" && find . -type f ! -name '*.pth' -size -2M -exec cp --parents {} "$out" \;) ;;
    4) # the small plan, on the GPU beside the CPU's figures
        "$python" tools/benchmark.py configs/benchmarks/camvid_cpu.py --work-dir work_dirs/camvid_cpu \
            --jobs-per-gpu 6
        cp work_dirs/camvid_cpu/results.csv work_dirs/camvid_cpu/report.* "$out" ;;
    5) # the step of a ResNet-50: share outside the backbone, peak memory, waiting for data
        "$python" tools/perf/run.py --device cuda --only GS1 GS2 GL1 --out "$out/cuda_step.json" ;;
    6) # torchrun on one GPU, both stages in mixed precision; then once more, killed and resumed
        "$python" -c "from mm_tuning_plugin.datasets.demo import write_demo_dataset as write; write('data/demo')"
        run=("$python" -m torch.distributed.run --standalone --nproc_per_node 1 tools/train.py
            configs/demo/fcn_r18_demo.py --launcher pytorch --amp)
        options=(--cfg-options mix_and_match.max_iters=300 mix_and_match.checkpoint_interval=100)
        "${run[@]}" --work-dir work_dirs/gpu_whole "${options[@]}"
        timeout -s KILL 60 "${run[@]}" --work-dir work_dirs/gpu_killed "${options[@]}" || true
        "${run[@]}" --work-dir work_dirs/gpu_killed --resume "${options[@]}"
        "$python" tools/perf/same_weights.py work_dirs/gpu_whole work_dirs/gpu_killed | tee "$out/resumed.txt" ;;
esac
