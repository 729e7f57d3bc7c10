"""Measures the method on tensors beside plain loops and beside pytorch-metric-learning.

python tools/perf/run.py --device cpu --out docs/results/perf/cpu.json [--only S1 G1]

Each group asserts first that both sides compute the same. Times are medians of at least seven
rounds in which the contenders take turns, on one CPU thread; on the CPU, processor time. Beside
the JSON a table is written. With --only, other figures of the same machine in the file are kept.

GS1, GS2 and GL1 run only when --only names them: steps of the size of a GPU. On a CPU they are a
smoke test without a target.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[1] / 'tests')]

# Modules here that have `run(wanted, device) -> list[Comparison]`, and the ids they know.
GROUPS = {
    'bench_sampling': ('S1', 'S2'),
    'bench_cutting': ('C1',),
    'bench_graph': ('G1', 'G2'),
    'bench_loss': ('L1', 'L2'),
    'bench_step': ('T1',),
    'bench_memory': ('M2',),
    'bench_hypercolumn': ('H1',),
    'bench_gpu': ('GS1', 'GS2', 'GL1'),
}
ALL = [name for names in GROUPS.values() for name in names]
DEFAULT = [name for name in ALL if name not in GROUPS['bench_gpu']]  # those only when asked for
LIBRARIES = ('torch', 'numpy', 'opencv-python', 'opencv-python-headless', 'pytorch-metric-learning')


def hardware(device: torch.device) -> dict[str, object]:
    """Returns what the figures were measured on, without the machine's name."""
    model = platform.machine()
    cpu_info = Path('/proc/cpuinfo')
    if cpu_info.exists():
        for line in cpu_info.read_text().splitlines():
            if line.startswith('model name'):
                model = line.split(':', 1)[1].strip()
                break
    gpu = torch.cuda.get_device_name(device) if device.type == 'cuda' else None
    return {'cpu': model, 'threads': torch.get_num_threads(), 'gpu': gpu}


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that are there."""
    found = {'python': platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def table(report: dict) -> str:
    """Returns the report as a Markdown table."""
    machine = report['hardware']
    lines = [
        f'# Measured on {report["device"]}',
        '',
        f'{machine["gpu"] or machine["cpu"]}, {machine["threads"]} CPU thread; '
        + ', '.join(f'{name} {number}' for name, number in report['versions'].items())
        + '. Medians of processor time (on a GPU: of the clock), in brackets the lowest and the '
        'highest. Written by `tools/perf/run.py`.',
        '',
        '| id | case | ours | others | ratio | target | met |',
        '| --- | --- | --- | --- | --- | --- | --- |',
    ]
    for result in report['results']:
        figures = {name: show(f, result['unit']) for name, f in result['contenders'].items()}
        others = '; '.join(f'{name}: {text}' for name, text in figures.items() if name != 'ours')
        ratios = '; '.join(f'{name}: {ratio:.3g}' for name, ratio in result['ratios'].items())
        sign = '<=' if result['lower_is_better'] else '>='
        row = (result['id'], result['case'], figures['ours'], others, ratios)
        target = '' if result['target'] is None else f'{sign} {result["target"]:g}'
        met = {None: '', True: 'yes', False: 'no'}[result['met']]
        lines.append(f'| {" | ".join(row)} | {target} | {met} |')
    return '\n'.join(lines) + '\n'


def show(figures: dict[str, float], unit: str) -> str:
    """Returns a median with its spread."""
    return f'{figures["median"]:.3g} {unit} ({figures["low"]:.3g}..{figures["high"]:.3g})'


def kept_results(
    path: Path, machine: dict[str, object], libraries: dict[str, str], again: set[str]
) -> list[dict]:
    """Returns what the file holds of the same machine and libraries and is not measured again."""
    if not path.exists():
        return []
    report = json.loads(path.read_text(encoding='utf-8'))
    if (report['hardware'], report['versions']) != (machine, libraries):
        return []
    return [result for result in report['results'] if result['id'] not in again]


def main() -> None:
    """Parses the command line, runs the groups, writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument('--only', nargs='+', choices=ALL, default=DEFAULT, metavar='ID')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE.json')
    options = parser.parse_args()
    if options.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no GPU, expected one')
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # glibc hands small blocks back to the system after each call until a large one has been freed,
    # as in any process that has handled an image: without this, figures hang on what ran before.
    np.empty(1 << 24, np.uint8)
    device = torch.device(options.device)
    machine, libraries = hardware(device), versions()
    results = kept_results(options.out, machine, libraries, set(options.only))
    for group, names in GROUPS.items():
        if set(names) & set(options.only):
            benchmark = importlib.import_module(group)
            results += [result.as_dict() for result in benchmark.run(set(options.only), device)]
    report = {
        'device': options.device,
        'hardware': machine,
        'versions': libraries,
        'results': sorted(results, key=lambda result: ALL.index(result['id'])),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + '\n', encoding='utf-8')
    text = table(report)
    options.out.with_suffix('.md').write_text(text, encoding='utf-8')
    print(text)


if __name__ == '__main__':
    main()
