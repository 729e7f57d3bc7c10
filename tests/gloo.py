"""Process groups of tests: starting ranks and ending them."""

import time

import torch.distributed as dist
import torch.multiprocessing as mp


def start_ranks(work, *args, ranks=2):
    """Call ``work(rank, *args)`` in forked processes, which have everything imported.

    Raises:
        Exception: What the first rank that failed raised.
    """
    mp.start_processes(work, args, nprocs=ranks, start_method='fork')


def end_group():
    """Destroy the group once its thread is idle.

    After a collective that thread lets go of tensors, for which it needs the interpreter's lock. A
    group that dies meanwhile waits for the thread with that lock held: seen once, for ever.
    """
    time.sleep(0.2)
    dist.destroy_process_group()
