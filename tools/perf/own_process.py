"""Peak memory of a call, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from bench_loss import resident

# glibc keeps freed blocks below a threshold that grows with what is freed; held at its start, large
# blocks go back to the system at once, and the resident memory is what tensors occupy.
ALLOCATOR = {'MALLOC_MMAP_THRESHOLD_': '131072', 'MALLOC_TRIM_THRESHOLD_': '131072'}


def added_peak(call: Callable[[], object], device: torch.device) -> int:
    """Returns what one call adds to the memory in use at its peak, in bytes.

    On the CPU the high-water mark of the resident memory, which Linux lets a process reset.
    """
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    Path('/proc/self/clear_refs').write_text('5')
    before = resident('VmRSS')
    call()
    return resident('VmHWM') - before


def in_own_process(module: str, expression: str) -> list[float]:
    """Returns the list of numbers that an expression of a module here evaluates to elsewhere."""
    code = (
        f'import sys; sys.path[:0] = {sys.path!r}; import torch, {module}; '
        f'torch.set_num_threads({torch.get_num_threads()}); print("figures", *{expression})'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True, text=True, check=True, env={**os.environ, **ALLOCATOR},
    )  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith('figures'))
    return [float(value) for value in line.split()[1:]]
