"""What a plan will take, before it runs."""

from __future__ import annotations

from collections.abc import Sequence

from mm_tuning_plugin.benchmark.run.progress import duration
from mm_tuning_plugin.benchmark.steps import Job, distinct_steps, missing_steps


def outlook(jobs: Sequence[Job], at_once: int) -> str:
    """The steps of all jobs and what they cost, a line each, and a sum.

    Args:
        jobs: The jobs.
        at_once: Most steps that run at a time.
    """
    steps = distinct_steps(jobs)
    todo = [step for step in missing_steps(jobs) if not step.finished]
    left = {step.product for step in todo}
    lines = [f'{"state":9} {"iterations":>10} {"TFLOPs":>10} {"about":>9}  step']
    for step in steps:
        state = 'to do' if step.product in left else 'finished'
        lines.append(
            f'{state:9} {step.iterations:>10} {step.flops / 1e12:>10.1f} '
            f'{duration(step.seconds):>9}  {step.name}'
        )
    done = sum(job.steps[-1].finished for job in jobs)
    seconds = sum(step.seconds for step in todo)
    at_once = max(1, min(at_once, len(todo)))
    lines += [
        '',
        f'{len(jobs)} jobs, {done} of them finished; {len(steps)} steps, {len(todo)} to do: '
        f'{sum(step.iterations for step in todo)} iterations, '
        f'{sum(step.flops for step in todo) / 1e12:.1f} TFLOPs',
        f'an estimate of the time: {duration(seconds / at_once)} with {at_once} steps at a time, '
        'from one forward and backward pass of each kind, without loading images and validation',
    ]
    return '\n'.join(lines)
