"""When a tuning stage is not working, how that is told from a healthy one, and what to do.

Every rule looks at the course of the run so far and gives one line or nothing: where, what was
found, what was expected, the remedy. A rule errs on the side of silence: a false alarm costs more
trust than a late one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from mm_tuning_plugin.engine.monitor.series import Block, Series, mean_of

# A mean over three blocks (three hundredths of the run, at least 30 iterations) is steady enough.
RECENT = 3
# Healthy starts measured so far begin at 0.1 (a random ResNet-18 on CamVid, projected) and more,
# and tuning raises it; embeddings within 2.6 degrees of each other are at 0.001.
COLLAPSED_VARIANCE = 0.001
# One active triplet in a hundred leaves a gradient of a hundredth: the paper's margin keeps all.
INACTIVE_SHARE = 0.01
# Half of the iterations are then thrown away. A single such batch is told of where it happens.
UNMATCHED_SHARE = 0.5
# Healthy losses fell by a tenth and more in the first quarter of every run looked at; the mean over
# `RECENT` blocks of a loss that stands still moves by about half a percent.
STILL_SHARE = 0.02
# A learning rate that warms up does so in the first tenth, and is small at first.
STILL_FROM = 0.25
# Far outside what the mixing of other images makes of a block's mean ...
RISE_SHARE = 0.2
# ... (between the half of it and the whole a remedy is not sure of its direction) ...
UNSURE_SHARE = RISE_SHARE / 2
# ... and of what the first progress, where it is large enough to speak of, is lost again.
LOST_SHARE, WORTH_LOSING = 0.5, 0.1
# Standard errors: by chance once in 30 000 looks, and iterations are nearly independent.
CERTAIN = 4.0
# Recall@1 of a thousand nodes has a standard error of 0.016 or less; both are of the same nodes.
RECALL_STEP = 0.01
# From there on hardly anything is left to gain.
RECALL_CEILING = 0.97
# Recall is judged at the end, or earlier where it was measured often enough.
RECALL_FROM, RECALL_TIMES = 0.5, 3
# Nothing is judged in a shorter run: it is a trial.
SHORTEST_RUN = 100


class Finding(NamedTuple):
    """What a rule found.

    Attributes:
        rule: Its name.
        text: One line.
    """

    rule: str
    text: str


class Course:
    """The course of a run of stage one, as far as it got.

    Attributes:
        max_iters: Iterations that it will have.
        iteration: Iterations that it had.
        lr: Learning rate now; None if unknown.
        loss, variance, active: Series of the loss, of ``embedding_variance``, ``active_share``.
        unmatched: Series of 1 where a batch had no triplet, else 0.
        recalls: Recall@1 by the iteration that it was measured after; 0 is the start.
    """

    def __init__(self, max_iters: int) -> None:
        self.max_iters = max_iters
        self.iteration = 0
        self.lr: float | None = None
        self.loss, self.variance = Series(), Series()
        self.active, self.unmatched = Series(), Series()
        self.recalls: dict[int, float] = {}


Rule = Callable[[Course], 'str | None']


def collapsed(course: Course) -> str | None:
    """Embeddings that are all one direction: nothing tells the classes apart."""
    if len(course.variance.blocks) < RECENT:
        return None
    recent = mean_of(course.variance.blocks[-RECENT:])
    if recent.mean >= COLLAPSED_VARIANCE:
        return None
    first = course.variance.first
    begun = '' if first is None else f' ({first.mean:.2g} at the start)'
    remedy = (
        f'lower mix_and_match.lr{_now(course)}'
        if first is None or first.mean >= 10 * COLLAPSED_VARIANCE
        else 'look at the start: tools/convert_checkpoint.py --inspect says whether it fits'
    )
    return (
        f'embeddings have collapsed: variance {recent.mean:.2g} over the last {recent.count} '
        f'iterations{begun}, expected at least {COLLAPSED_VARIANCE}; {remedy}'
    )


def unmatched(course: Course) -> str | None:
    """Batches in which nothing can be matched."""
    if len(course.unmatched.blocks) < RECENT:
        return None
    recent = mean_of(course.unmatched.blocks[-RECENT:])
    if recent.mean <= UNMATCHED_SHARE:
        return None
    return (
        f'no triplets in {round(recent.mean * recent.count)} of the last {recent.count} batches, '
        'expected some in each; raise mix_and_match.images_per_batch or nodes_per_image, or look '
        'at the labels'
    )


def inactive(course: Course) -> str | None:
    """Triplets that all keep the margin: no gradient is left."""
    if len(course.active.blocks) < RECENT:
        return None
    recent = mean_of(course.active.blocks[-RECENT:])
    if recent.mean >= INACTIVE_SHARE or (unmatched(course) is not None):
        return None
    return (
        f'no active triplets: a share of {recent.mean:.2g} over the last {recent.count} '
        f'iterations, expected at least {INACTIVE_SHARE}: nothing is learnt any more; raise '
        'mix_and_match.margin, or tune for fewer iterations (max_iters)'
    )


def rising(course: Course) -> str | None:
    """A loss above its start, or one that has lost what it had gained.

    Where the first steps already throw it up, the first blocks lie as high as the last, and the
    first iteration alone tells: one value, so it is the spread of single values that counts.
    """
    blocks = course.loss.blocks
    if len(blocks) < 2 * RECENT:
        return None
    start, now = mean_of(blocks[:2]), mean_of(blocks[-RECENT:])
    above = now.mean - start.mean
    what = ''
    if above > RISE_SHARE * abs(start.mean) and above > CERTAIN * (start.error + now.error):
        what = f'{start.mean:.3g} at the start'
    elif _thrown_up(course, now, CERTAIN):
        what = f'{course.loss.begin:.3g} in the first iteration'
    else:
        means = [mean_of(blocks[i : i + RECENT]) for i in range(len(blocks) - RECENT + 1)]
        best = min(means, key=lambda mean: mean.mean)
        gain, lost = start.mean - best.mean, now.mean - best.mean
        worth = gain > WORTH_LOSING * abs(start.mean)
        if worth and lost > LOST_SHARE * gain and lost > CERTAIN * (best.error + now.error):
            what = f'{best.mean:.3g} up to iteration {best.last}'
    if not what:
        return None
    return (
        f'the loss rises, as at a learning rate too high: {now.mean:.3g} over the last {now.count} '
        f'iterations, {what}, expected it to fall; lower mix_and_match.lr{_now(course)}'
    )


def still(course: Course) -> str | None:
    """A loss that stays where it began."""
    blocks, first = course.loss.blocks, course.loss.first
    if course.iteration < STILL_FROM * course.max_iters or len(blocks) < 2 * RECENT:
        return None
    start, now = mean_of(blocks[:RECENT]), mean_of(blocks[-RECENT:])
    far = STILL_SHARE * abs(start.mean)
    if abs(start.mean - now.mean) >= far:
        return None
    # What fell within the first block has moved, however flat it has been since.
    if first is not None and abs(first.mean - now.mean) >= max(far, 2 * first.error):
        return None
    # A rate that throws the loss up at once looks like one too low: no step is the remedy of both.
    change = 'raise'
    if course.loss.begin is not None and now.mean > course.loss.begin * (1 + UNSURE_SHARE):
        change = 'lower' if _thrown_up(course, now, 1.0) else 'change'
    return (
        f'the loss does not move: {now.mean:.4g} over the last {now.count} iterations, '
        f'{start.mean:.4g} over the first {start.count}, expected a change of '
        f'{STILL_SHARE:.0%} and more; {change} mix_and_match.lr{_now(course)}, or look whether '
        'the backbone is frozen in part (frozen_stages)'
    )


def unmoved_recall(course: Course) -> str | None:
    """Nearest neighbours that are of the right class as often as before."""
    start = course.recalls.get(0)
    later = {i: recall for i, recall in course.recalls.items() if i > 0}
    if start is None or not later or start >= RECALL_CEILING:
        return None
    last = max(later)
    early = last < RECALL_FROM * course.max_iters or len(later) < RECALL_TIMES
    if last < course.max_iters and early:
        return None
    best = max(later.values())
    if best - start >= RECALL_STEP:
        return None
    so_far = 'best' if len(later) > 1 else 'recall'
    return (
        f'recall@1 does not rise: {start:.3f} before tuning, {so_far} {best:.3f} since, expected '
        f'{RECALL_STEP} more; change mix_and_match.lr{_now(course)}, loss or max_iters, or leave '
        'tuning out (--no-tuning): classes lie no closer than before'
    )


RULES: dict[str, Rule] = {
    'collapse': collapsed,
    'no triplets': unmatched,
    'no active triplets': inactive,
    'rising loss': rising,
    'still loss': still,
    'recall': unmoved_recall,
}
# A loss that stands still needs no second line where it is known why.
SAID_BY_OTHERS = {'still loss': {'collapse', 'no triplets', 'no active triplets', 'rising loss'}}


def judge(course: Course, said: set[str]) -> list[Finding]:
    """What is to be said now.

    Args:
        course: Of the run.
        said: Names of the rules that have spoken already; those that speak now are added.
    """
    findings: list[Finding] = []
    if course.max_iters < SHORTEST_RUN:
        return findings
    for name, rule in RULES.items():
        if name in said or said & SAID_BY_OTHERS.get(name, set()):
            continue
        text = rule(course)
        if text is not None:
            said.add(name)
            findings.append(Finding(name, f'iteration {course.iteration}: {text}'))
    return findings


def _thrown_up(course: Course, now: Block, spreads: float) -> bool:
    """Whether the loss is far above that of the first iteration, by so many spreads of a value."""
    begin, spread = course.loss.begin, now.error * math.sqrt(now.count)
    if begin is None:
        return False
    return now.mean - begin > max(RISE_SHARE * abs(begin), spreads * spread)


def _now(course: Course) -> str:
    return '' if course.lr is None else f' (now {course.lr:.3g})'
