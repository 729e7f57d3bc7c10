"""A user's mistake keeps its fields wherever it travels."""

import ast
import pickle
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from mm_tuning_plugin.errors import UserError

ROOT = Path(__file__).parents[1]
FIELDS = dict(where='model.backbone', problem='a; b: 3 found', remedy='use 4 of 5')
LINE = 'model.backbone: a; b: 3 found; use 4 of 5'


def fields(error: UserError) -> dict[str, str]:
    return dict(where=error.where, problem=error.problem, remedy=error.remedy)


def test_one_line_of_three_fields():
    error = UserError(**FIELDS)
    assert str(error) == LINE
    assert fields(error) == FIELDS
    assert isinstance(error, ValueError)


@pytest.mark.parametrize('protocol', range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickled(protocol):
    error = pickle.loads(pickle.dumps(UserError(**FIELDS), protocol))
    assert (str(error), fields(error)) == (LINE, FIELDS)


def test_read_back_from_its_line():
    assert fields(UserError(LINE)) == FIELDS
    assert fields(UserError('lr: 0 found')) == dict(where='lr', problem='0 found', remedy='')


class Failing(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError(**FIELDS)


def test_raised_by_a_loading_worker():
    with pytest.raises(UserError) as caught:
        list(DataLoader(Failing(), num_workers=1))
    assert (str(caught.value), fields(caught.value)) == (LINE, FIELDS)


def calls():
    for path in (ROOT / 'mm_tuning_plugin').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'UserError':
                yield f'{path.relative_to(ROOT)}:{node.lineno}', [*node.args, *node.keywords]


def test_every_mistake_names_where_problem_and_remedy():
    short = [
        place
        for place, given in calls()
        if len(given) < 3 and not any(isinstance(argument, ast.Starred) for argument in given)
    ]
    assert not short, 'a UserError needs where, problem and remedy'
