import json
from pathlib import Path

import pytest

from mm_tuning_plugin.benchmark.arms import parse_arm
from mm_tuning_plugin.benchmark.plan import read_plan
from mm_tuning_plugin.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write(tmp_path):
    """Writes a plan; its arguments go over a right one; None takes an entry away."""
    (tmp_path / 'cfg.py').write_text('')
    (tmp_path / 'weights.pth').write_text('')
    (tmp_path / 'folds.json').write_text(json.dumps([{'train': ['a'], 'val': ['b']}]))

    def plan(**entries):
        content = {'config': 'cfg.py', 'arms': ['direct', 'tuned'], 'seeds': [0], **entries}
        lines = [f'{name} = {value!r}' for name, value in content.items() if value is not None]
        path = tmp_path / 'plan.py'
        path.write_text('\n'.join(lines))
        return str(path)

    return plan


def test_a_short_plan_in_full(write, tmp_path):
    plan = read_plan(write())
    assert plan.configs == {'cfg': str(tmp_path / 'cfg.py')}
    assert plan.starts == {'random': None}
    assert plan.recipes['tuned'] == {} and plan.recipes['paper'] == {'recipe': 'paper'}
    assert plan.recipes['ce-tuned'] == {'loss': 'cross_entropy'}
    assert (plan.fractions, plan.folds, plan.block_size) == ([1.0], None, 20)
    json.dumps(plan.as_json())


def test_yaml(tmp_path):
    (tmp_path / 'cfg.py').write_text('')
    path = tmp_path / 'plan.yaml'
    path.write_text(
        'config: cfg.py\narms: [direct, tuned]\nseeds: [0, 1]\n'
        'starts: {random: null}\nrecipes: {tuned: {lr: 0.1}}\n'
    )
    plan = read_plan(str(path))
    assert plan.seeds == [0, 1] and plan.starts == {'random': None}
    assert plan.recipes['ce-tuned'] == {'lr': 0.1, 'loss': 'cross_entropy'}


def test_starts_in_full(write, tmp_path):
    weights, proxy = str(tmp_path / 'weights.pth'), str(tmp_path / 'cfg.py')
    starts = dict(
        plain='weights.pth',
        read=dict(checkpoint='weights.pth', allow_pickle=True),
        made=dict(proxy='cfg.py', cfg_options={'a.b': 1}),
        some=dict(proxy={'two': 'cfg.py'}),
    )
    plan = read_plan(write(config=None, configs={'one': 'cfg.py', 'two': 'cfg.py'}, starts=starts))
    both = {'one': weights, 'two': weights}
    assert plan.starts == dict(
        plain={'checkpoint': both},
        read={'checkpoint': both, 'allow_pickle': True},
        made={'proxy': {'one': proxy, 'two': proxy}, 'cfg_options': {'a.b': 1}},
        some={'proxy': {'two': proxy}},
    )


def test_a_choice_of_a_plan(write):
    plan = read_plan(write(starts={'random': None, 'file': 'weights.pth'}, seeds=[0, 1]))
    chosen = plan.restricted(arms=['direct-2x'], seeds=[7], fractions=[0.5])
    assert (chosen.arms, chosen.seeds, chosen.fractions) == (['direct-2x'], [7], [0.5])
    assert chosen.starts == plan.starts and chosen.configs == plan.configs
    assert plan.restricted() == plan
    with pytest.raises(UserError, match=r"^arms: 'tuend' found"):
        plan.restricted(arms=['tuend'])


def test_only_the_chosen_starts_need_their_files(write):
    starts = {'random': None, 'file': 'weights.pth', 'lost': 'nowhere.pth', 7: 'nowhere.pth'}
    path = write(starts=starts)
    assert list(read_plan(path, ['file', 'random']).starts) == ['file', 'random']
    for names in (None, ['lost'], ['random', '7']):
        with pytest.raises(UserError, match=r'starts\.\w+\.checkpoint: nowhere\.pth found'):
            read_plan(path, names)
    for names in (['fiel'], []):
        with pytest.raises(UserError, match=r'--starts: .* found, expected some of .*, .7.\]'):
            read_plan(path, names)
    assert read_plan(write(), ['random']).starts == {'random': None}
    with pytest.raises(UserError, match='starts: 3 found, expected a dict of names'):
        read_plan(write(starts=3), ['random'])


WRONG = [
    (dict(arm=['direct']), 'arm: no such entry of a plan; the nearest known one is arms'),
    (dict(config=None), 'configs: none found, expected'),
    (dict(configs={'a': 'cfg.py'}), 'config and configs found, expected one of them'),
    (dict(config=3), 'config: 3 found, expected the path of a config'),
    (dict(config='nowhere.py'), 'configs.nowhere: nowhere.py found, expected an existing file'),
    (dict(config=None, configs={}), 'configs: {} found, expected a dict'),
    (dict(arms=None), 'arms: none found, expected'),
    (dict(arms=[]), r'arms: \[\] found, expected a list of names'),
    (dict(arms='direct'), "arms: 'direct' found, expected a list"),
    (dict(arms=['direct', 'tuend']), "arms: 'tuend' found, expected some of"),
    (dict(arms=['direct-matched:x']), "arms: 'direct-matched:x' found, expected some of"),
    (dict(arms=['direct-2x:tuned']), "arms: 'direct-2x:tuned' found, expected some of"),
    (dict(arms=['direct', 'direct']), 'arms: .* found, expected each once'),
    (dict(seeds=[]), r'seeds: \[\] found, expected a list of integers'),
    (dict(seeds=[True]), r'seeds: \[True\] found'),
    (dict(seeds=[0, 0]), 'seeds: .* found, expected each once'),
    (dict(fractions=[0]), r'fractions: \[0\] found, expected a list of numbers above 0'),
    (dict(fractions=[25]), r'fractions: \[25\] found'),
    (dict(fractions=0.5), r'fractions: 0.5 found'),
    (dict(recipes={'tuned': 3}), 'recipes.tuned: 3 found, expected a dict of options'),
    (dict(recipes={'tuned': {'los': 1}}), 'recipes.tuned: mix_and_match.los: no such option'),
    (dict(recipes={'direct-x': {}}), "recipes: 'direct-x' found, expected no name of a baseline"),
    (dict(recipes={'mine': {}}), "arms: 'tuned' found, expected some of"),
    (dict(starts={}), 'starts: {} found, expected a dict'),
    (dict(starts={'a': 3}), 'starts.a: 3 found, expected None, a file'),
    (dict(starts={'a': 'nowhere.pth'}), 'starts.a.checkpoint: nowhere.pth found, expected an ex'),
    (dict(starts={'a': {'proxy': 'cfg.py', 'prefix': 1}}), 'starts.a: .* expected None, a file'),
    (dict(starts={'a': {'proxy': {'x': 'cfg.py'}}}), r"starts.a: \['x'\] found, expected some of"),
    (dict(starts={'a': {'proxy': 'cfg.py', 'seed': 'x'}}), "starts.a.seed: 'x' found"),
    (dict(folds={'index': 0}), 'folds: .* found, expected a `file`'),
    (dict(folds={'file': 'nowhere.json'}), 'folds.file: nowhere.json found, expected an existing'),
    (dict(folds={'file': 'folds.json', 'indices': [1]}), r'folds.indices: \[1\] found, expected'),
    (dict(folds={'file': 'cfg.py'}), 'cfg.py: .* expected a JSON list of folds'),
    (dict(recall=dict(image=3)), 'recall: .* found, expected a dict with some of'),
    (dict(recall=dict(images=-1)), 'recall.images: -1 found'),
    (dict(recall=dict(patches=0)), 'recall: mix_and_match.nodes_per_image: 0 found'),
    (dict(recall=dict(patch_size=3)), 'recall: mix_and_match.patch_size: 3 found'),
    (dict(cfg_options=3), 'cfg_options: 3 found, expected a dict'),
    (dict(block_size=0), 'block_size: 0 found, expected an integer from 1'),
    (dict(bar='high'), "bar: 'high' found, expected a number"),
    (dict(cache_images=1), 'cache_images: 1 found, expected True or False'),
]


@pytest.mark.parametrize(('entries', 'message'), WRONG, ids=[str(w[0])[:60] for w in WRONG])
def test_a_wrong_plan_is_one_line(write, entries, message):
    path = write(**entries)
    with pytest.raises(UserError, match=f'plan.py: .*{message}') as error:
        read_plan(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['a = (', '1/0'])
def test_a_file_that_is_no_plan(tmp_path, text):
    path = tmp_path / 'plan.py'
    path.write_text(text)
    with pytest.raises(UserError, match='found, expected a plan in Python or YAML') as error:
        read_plan(str(path))
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='expected a plan'):
        read_plan(str(tmp_path / 'nowhere.py'))


def test_arms_say_what_they_do():
    recipes = {'tuned': {}, 'paper': {}}
    assert parse_arm('direct', recipes)[1:] == (None, None, '')
    assert parse_arm('direct-2x', recipes)[1:] == (None, None, 'twice')
    assert parse_arm('direct-matched', recipes)[1:] == (None, 'tuned', 'matched')
    assert parse_arm('direct-matched:paper', recipes)[1:] == (None, 'paper', 'matched')
    assert parse_arm('direct-twice', recipes)[1:] == ('first_pass', 'tuned', '')
    assert parse_arm('paper', recipes)[1:] == ('tuning', 'paper', '')
