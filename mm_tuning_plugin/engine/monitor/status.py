"""Progress of a run of both stages, and its line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mm_tuning_plugin.engine.monitor.eta import Pace, TimeLeft


@dataclass
class Stage:
    """One stage of a run.

    Attributes:
        name: Its name in the line.
        length: Its length in words, shown before it runs.
    """

    name: str
    length: str


@dataclass
class Status:
    """Progress of the run.

    Attributes:
        stages: All that will run, in order.
        index: The stage that runs.
        iteration: Its iterations done.
        of: Its iterations in total.
        pace: Its speed.
        validations: Its validations still to run.
        validating: (batches done, in total) of the running validation; None while training.
        loss: Recent mean; None before the first iteration.
        active: Share of active triplets; None if the loss has no triplets.
        recall: All measured values of recall@1, in order.
        score: Name and value of the latest validation of fine-tuning.
    """

    stages: Sequence[Stage]
    index: int = 0
    iteration: int = 0
    of: int = 0
    pace: Pace = field(default_factory=Pace)
    validations: int = 0
    validating: tuple[int, int] | None = None
    loss: float | None = None
    active: float | None = None
    recall: list[float] = field(default_factory=list)
    score: tuple[str, float] | None = None

    @property
    def share(self) -> float:
        """Share of the running stage that is done, 0 to 1."""
        return self.iteration / self.of if self.of else 0.0

    @property
    def left(self) -> TimeLeft:
        """Remaining time of all stages; the time of later stages is unknown."""
        left = self.pace.left(self.of - self.iteration, self.validations)
        later = [f'{stage.name} ({stage.length})' for stage in self.stages[self.index + 1 :]]
        return left._replace(unknown=' + '.join([*filter(None, [left.unknown]), *later]))

    def describe(self, short: bool = False) -> tuple[str, str]:
        """The texts left and right of the bar: the position; the remaining time and the figures.

        Args:
            short: Write the remaining time in its short form.
        """
        number = f'stage {self.index + 1}/{len(self.stages)} ' if len(self.stages) > 1 else ''
        where = f'{number}{self.stages[self.index].name} {self.iteration}/{self.of}'
        if self.validating is not None:
            done, of = self.validating
            where += f', validating {done}/{of}'
        parts = [f'ETA {self.left.shortly() if short else self.left}']
        if self.loss is not None:
            parts.append(f'loss {self.loss:.4g}')
        if self.active is not None:
            parts.append(f'active {self.active:.0%}')
        if self.recall:
            before = f'{self.recall[0]:.3f} -> ' if len(self.recall) > 1 else ''
            parts.append(f'recall@1 {before}{self.recall[-1]:.3f}')
        if self.score is not None:
            parts.append(f'{self.score[0]} {self.score[1]:.2f}')
        return where, '  '.join(parts)

    def __str__(self) -> str:
        where, figures = self.describe()
        return f'{where}  {self.share:.0%}  {figures}'
