"""The warnings of a tuning stage: the threshold of each, when it is given, and its remedy.

Every rule reads the history of the run and returns one line or None. The line gives what was
found, what was expected and the remedy. A rule in doubt is silent: a false alarm costs trust.
The rule of singleton classes is applied in `singleton_classes.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from mm_tuning_plugin.engine.monitor.block_means import Block, BlockMeans, mean_of

# No rule judges a run of fewer iterations: it is a trial.
SHORTEST_JUDGED_RUN = 100
# "Now" is the mean of this many blocks: 3 % of the run, and at least 30 iterations.
RECENT_BLOCKS = 3

# Collapse: warn if the variance of the embeddings is below this. Healthy runs start at 0.1 or more
# (a random ResNet-18 on CamVid, projected) and rise. Embeddings within 2.6 degrees have 0.001.
COLLAPSED_VARIANCE = 0.001

# No triplets: warn if more than this share of the batches has none.
MAX_SHARE_WITHOUT_TRIPLETS = 0.5

# No active triplets: warn if a smaller share than this is active. The gradient is then a hundredth.
MIN_ACTIVE_SHARE = 0.01

# Still loss: warn if the loss changed by less than this share. Healthy losses fell by a tenth or
# more in the first quarter of every run measured. The mean of a constant loss varies by 0.5 %.
MIN_LOSS_CHANGE = 0.02
# Not judged in the first quarter: a warm-up takes the first tenth, at small learning rates.
LOSS_CHANGE_JUDGED_FROM = 0.25

# Rising loss: warn if the loss is this share above its start. Random batches move the mean of a
# block by much less.
MAX_LOSS_RISE = 0.2
# Between this share and `MAX_LOSS_RISE`, the advice on the learning rate has no direction.
UNCLEAR_LOSS_RISE = MAX_LOSS_RISE / 2
# Rising loss: warn also if this share of the best decrease is lost again, where the decrease was
# more than `MIN_GAIN` of the start.
MAX_GAIN_LOST, MIN_GAIN = 0.5, 0.1
# Both need a rise of this many standard errors: by chance one judgement in 30 000.
MIN_STANDARD_ERRORS = 4.0

# Recall: warn if recall@1 rose by less. The standard error for a thousand nodes is at most 0.016,
# but the nodes are the same before and after.
MIN_RECALL_GAIN = 0.01
# Recall: no warning if it began at this value or above, as little can be gained.
HIGHEST_JUDGED_RECALL = 0.97
# Recall is judged at the end, or after this share of the run if it was measured this many times.
RECALL_JUDGED_FROM, MIN_RECALL_MEASUREMENTS = 0.5, 3

# Singleton classes: warn if a class has a single node in this share of the batches it occurs in.
SINGLETON_SHARE = 0.9
# Singleton classes: a class is judged only if it occurred in this many batches.
MIN_BATCHES_WITH_CLASS = 20
# Singleton classes are judged after this share of the run, and again at its end.
CLASSES_JUDGED_FROM = 0.1


class Finding(NamedTuple):
    """What a rule found.

    Attributes:
        rule: Its name.
        text: One line.
    """

    rule: str
    text: str


class RunHistory:
    """What stage one has logged so far.

    Attributes:
        max_iters: Length of the run, in iterations.
        iteration: Iterations done.
        lr: Learning rate now; None if unknown.
        loss, variance, active: Of the loss, ``embedding_variance`` and ``active_share``.
        unmatched: Block means of a flag: 1 for a batch without a triplet, 0 otherwise.
        recalls: Recall@1 by the iteration that it was measured after; 0 is the start.
    """

    def __init__(self, max_iters: int) -> None:
        self.max_iters = max_iters
        self.iteration = 0
        self.lr: float | None = None
        self.loss, self.variance = BlockMeans(), BlockMeans()
        self.active, self.unmatched = BlockMeans(), BlockMeans()
        self.recalls: dict[int, float] = {}


Rule = Callable[[RunHistory], 'str | None']


def collapsed(history: RunHistory) -> str | None:
    """Collapse: all embeddings have nearly the same direction."""
    if len(history.variance.blocks) < RECENT_BLOCKS:
        return None
    recent = mean_of(history.variance.blocks[-RECENT_BLOCKS:])
    if recent.mean >= COLLAPSED_VARIANCE:
        return None
    first = history.variance.first
    begun = '' if first is None else f' ({first.mean:.2g} at the start)'
    remedy = (
        f'lower mix_and_match.lr{_now(history)}'
        if first is None or first.mean >= 10 * COLLAPSED_VARIANCE
        else 'look at the start: tools/convert_checkpoint.py --inspect says whether it fits'
    )
    return (
        f'embeddings have collapsed: variance {recent.mean:.2g} over the last {recent.count} '
        f'iterations{begun}, expected at least {COLLAPSED_VARIANCE}; {remedy}'
    )


def unmatched(history: RunHistory) -> str | None:
    """No triplets: most batches have no pair of nodes of one class and a node of another."""
    if len(history.unmatched.blocks) < RECENT_BLOCKS:
        return None
    recent = mean_of(history.unmatched.blocks[-RECENT_BLOCKS:])
    if recent.mean <= MAX_SHARE_WITHOUT_TRIPLETS:
        return None
    return (
        f'no triplets in {round(recent.mean * recent.count)} of the last {recent.count} batches, '
        'expected some in each; raise mix_and_match.images_per_batch or nodes_per_image, or look '
        'at the labels'
    )


def inactive(history: RunHistory) -> str | None:
    """No active triplets: nearly all keep the margin, so no gradient is left."""
    if len(history.active.blocks) < RECENT_BLOCKS:
        return None
    recent = mean_of(history.active.blocks[-RECENT_BLOCKS:])
    if recent.mean >= MIN_ACTIVE_SHARE or (unmatched(history) is not None):
        return None
    return (
        f'no active triplets: a share of {recent.mean:.2g} over the last {recent.count} '
        f'iterations, expected at least {MIN_ACTIVE_SHARE}: nothing is learnt any more; raise '
        'mix_and_match.margin, or tune for fewer iterations (max_iters)'
    )


def rising(history: RunHistory) -> str | None:
    """Rising loss: it is above its start, or a large part of its decrease is lost again.

    If the first steps already raise it, the first blocks are as high as the last. Then it is
    compared with the first iteration, by the spread of single values.
    """
    blocks = history.loss.blocks
    if len(blocks) < 2 * RECENT_BLOCKS:
        return None
    start, now = mean_of(blocks[:2]), mean_of(blocks[-RECENT_BLOCKS:])
    above = now.mean - start.mean
    what = ''
    if above > MAX_LOSS_RISE * abs(start.mean) and above > MIN_STANDARD_ERRORS * (
        start.error + now.error
    ):
        what = f'{start.mean:.3g} at the start'
    elif _thrown_up(history, now, MIN_STANDARD_ERRORS):
        what = f'{history.loss.begin:.3g} in the first iteration'
    else:
        means = [
            mean_of(blocks[i : i + RECENT_BLOCKS]) for i in range(len(blocks) - RECENT_BLOCKS + 1)
        ]
        best = min(means, key=lambda mean: mean.mean)
        gain, lost = start.mean - best.mean, now.mean - best.mean
        worth = gain > MIN_GAIN * abs(start.mean)
        if (
            worth
            and lost > MAX_GAIN_LOST * gain
            and lost > MIN_STANDARD_ERRORS * (best.error + now.error)
        ):
            what = f'{best.mean:.3g} up to iteration {best.last}'
    if not what:
        return None
    return (
        f'the loss rises, as at a learning rate too high: {now.mean:.3g} over the last {now.count} '
        f'iterations, {what}, expected it to fall; lower mix_and_match.lr{_now(history)}'
    )


def still(history: RunHistory) -> str | None:
    """Still loss: it stays at its start."""
    blocks, first = history.loss.blocks, history.loss.first
    if (
        history.iteration < LOSS_CHANGE_JUDGED_FROM * history.max_iters
        or len(blocks) < 2 * RECENT_BLOCKS
    ):
        return None
    start, now = mean_of(blocks[:RECENT_BLOCKS]), mean_of(blocks[-RECENT_BLOCKS:])
    far = MIN_LOSS_CHANGE * abs(start.mean)
    if abs(start.mean - now.mean) >= far:
        return None
    # A fall within the first block counts as a change.
    if first is not None and abs(first.mean - now.mean) >= max(far, 2 * first.error):
        return None
    # A rate that raises the loss at once can look like one too low; their remedies are opposite.
    change = 'raise'
    if history.loss.begin is not None and now.mean > history.loss.begin * (1 + UNCLEAR_LOSS_RISE):
        change = 'lower' if _thrown_up(history, now, 1.0) else 'change'
    return (
        f'the loss does not move: {now.mean:.4g} over the last {now.count} iterations, '
        f'{start.mean:.4g} over the first {start.count}, expected a change of '
        f'{MIN_LOSS_CHANGE:.0%} and more; {change} mix_and_match.lr{_now(history)}, or look '
        'whether the backbone is frozen in part (frozen_stages)'
    )


def unmoved_recall(history: RunHistory) -> str | None:
    """Recall: recall@1 of the nodes does not rise."""
    start = history.recalls.get(0)
    later = {i: recall for i, recall in history.recalls.items() if i > 0}
    if start is None or not later or start >= HIGHEST_JUDGED_RECALL:
        return None
    last = max(later)
    early = last < RECALL_JUDGED_FROM * history.max_iters or len(later) < MIN_RECALL_MEASUREMENTS
    if last < history.max_iters and early:
        return None
    best = max(later.values())
    if best - start >= MIN_RECALL_GAIN:
        return None
    so_far = 'best' if len(later) > 1 else 'recall'
    return (
        f'recall@1 does not rise: {start:.3f} before tuning, {so_far} {best:.3f} since, expected '
        f'{MIN_RECALL_GAIN} more; change mix_and_match.lr{_now(history)}, loss or max_iters, or '
        'leave tuning out (--no-tuning): classes lie no closer than before'
    )


RULES: dict[str, Rule] = {
    'collapse': collapsed,
    'no triplets': unmatched,
    'no active triplets': inactive,
    'rising loss': rising,
    'still loss': still,
    'recall': unmoved_recall,
}
# No second warning of a still loss if one of these has named the cause.
EXPLAINED_BY = {'still loss': {'collapse', 'no triplets', 'no active triplets', 'rising loss'}}


def judge(history: RunHistory, said: set[str]) -> list[Finding]:
    """Apply all rules that have not given a warning yet.

    Args:
        history: The run so far.
        said: Names of the rules that have already warned. New ones are added.
    """
    findings: list[Finding] = []
    if history.max_iters < SHORTEST_JUDGED_RUN:
        return findings
    for name, rule in RULES.items():
        if name in said or said & EXPLAINED_BY.get(name, set()):
            continue
        text = rule(history)
        if text is not None:
            said.add(name)
            findings.append(Finding(name, f'iteration {history.iteration}: {text}'))
    return findings


def _thrown_up(history: RunHistory, now: Block, spreads: float) -> bool:
    """Whether the loss is above the first one by `MAX_LOSS_RISE` and by this many spreads."""
    begin, spread = history.loss.begin, now.error * math.sqrt(now.count)
    if begin is None:
        return False
    return now.mean - begin > max(MAX_LOSS_RISE * abs(begin), spreads * spread)


def _now(history: RunHistory) -> str:
    return '' if history.lr is None else f' (now {history.lr:.3g})'
