import json
import re
from pathlib import Path

import pytest
from mistakes import mistake

from mm_tuning_plugin.benchmark.design.arms import parse_arm
from mm_tuning_plugin.benchmark.design.plan import read_plan

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
    with mistake('arms', "'tuend'", ("'tuned'", 'direct-2x')):
        plan.restricted(arms=['tuend'])


def test_only_the_chosen_starts_need_their_files(write):
    starts = {'random': None, 'file': 'weights.pth', 'lost': 'nowhere.pth', 7: 'nowhere.pth'}
    path = write(starts=starts)
    assert list(read_plan(path, ['file', 'random']).starts) == ['file', 'random']
    for names in (None, ['lost'], ['random', '7']):
        with mistake(path, re.compile(r'^starts\.(lost|7)\.checkpoint: nowhere\.pth')):
            read_plan(path, names)
    for names in (['fiel'], []):
        with mistake(path, f'--starts: {names}', ("'file'", "'lost'", "'7'")):
            read_plan(path, names)
    assert read_plan(write(), ['random']).starts == {'random': None}
    path = write(starts=3)
    with mistake(path, 'starts: 3'):
        read_plan(path, ['random'])


# what is changed in a right plan, the entry that is wrong, facts of the problem and of the remedy
WRONG = [
    (dict(arm=['direct']), 'arm', '', 'arms'),
    (dict(config=None), 'configs', '', ''),
    (dict(configs={'a': 'cfg.py'}), 'config', 'configs', ''),
    (dict(config=3), 'config', '3', ''),
    (dict(config='nowhere.py'), 'configs.nowhere', 'nowhere.py', ''),
    (dict(config=None, configs={}), 'configs', '{}', ''),
    (dict(arms=None), 'arms', '', ''),
    (dict(arms=[]), 'arms', '[]', ''),
    (dict(arms='direct'), 'arms', "'direct'", ''),
    (dict(arms=['direct', 'tuend']), 'arms', "'tuend'", ("'tuned'", 'direct-matched')),
    (dict(arms=['direct-matched:x']), 'arms', "'direct-matched:x'", ':RECIPE'),
    (dict(arms=['direct-2x:tuned']), 'arms', "'direct-2x:tuned'", 'direct-2x'),
    (dict(arms=['direct', 'direct']), 'arms', "['direct', 'direct']", ''),
    (dict(seeds=[]), 'seeds', '[]', ''),
    (dict(seeds=[True]), 'seeds', '[True]', ''),
    (dict(seeds=[0, 0]), 'seeds', '[0, 0]', ''),
    (dict(fractions=[0]), 'fractions', '[0]', ('0', '1')),
    (dict(fractions=[25]), 'fractions', '[25]', ('0', '1')),
    (dict(fractions=0.5), 'fractions', '0.5', ''),
    (dict(recipes={'tuned': 3}), 'recipes.tuned', '3', ''),
    (dict(recipes={'tuned': {'los': 1}}), 'recipes.tuned', 'mix_and_match.los: ', 'loss'),
    (dict(recipes={'direct-x': {}}), 'recipes', "'direct-x'", ''),
    (dict(recipes={'mine': {}}), 'arms', "'tuned'", "'mine'"),
    (dict(starts={}), 'starts', '{}', ''),
    (dict(starts={'a': 3}), 'starts.a', '3', ('None', 'checkpoint=', 'proxy=')),
    (dict(starts={'a': 'nowhere.pth'}), 'starts.a.checkpoint', 'nowhere.pth', ''),
    (
        dict(starts={'a': {'proxy': 'cfg.py', 'prefix': 1}}),
        'starts.a',
        "'prefix': 1",
        ("'seed'", "'cfg_options'"),
    ),
    (dict(starts={'a': {'proxy': {'x': 'cfg.py'}}}), 'starts.a', "['x']", "['cfg']"),
    (dict(starts={'a': {'proxy': 'cfg.py', 'seed': 'x'}}), 'starts.a.seed', "'x'", ''),
    (dict(folds={'index': 0}), 'folds', "{'index': 0}", ('file', 'indices')),
    (dict(folds={'file': 'nowhere.json'}), 'folds.file', 'nowhere.json', ''),
    (dict(folds={'file': 'folds.json', 'indices': [1]}), 'folds.indices', '[1]', '0 to 0'),
    (dict(folds={'file': 'cfg.py'}), 'cfg.py', 'JSONDecodeError', ('JSON', 'train', 'val')),
    (dict(recall=dict(image=3)), 'recall', "{'image': 3}", "'images'"),
    (dict(recall=dict(images=-1)), 'recall.images', '-1', '0'),
    (dict(recall=dict(patches=0)), 'recall', 'mix_and_match.nodes_per_image: 0', ''),
    (dict(recall=dict(patch_size=3)), 'recall', 'mix_and_match.patch_size: 3', ''),
    (dict(cfg_options=3), 'cfg_options', '3', ''),
    (dict(block_size=0), 'block_size', '0', '1'),
    (dict(bar='high'), 'bar', "'high'", ''),
    (dict(cache_images=1), 'cache_images', '1', ('True', 'False')),
]


@pytest.mark.parametrize(
    ('entries', 'entry', 'fact', 'remedy'), WRONG, ids=[str(w[0])[:60] for w in WRONG]
)
def test_a_wrong_plan_is_one_line(write, entries, entry, fact, remedy):
    path = write(**entries)
    with mistake(path, (f'{entry}: ', fact), remedy):
        read_plan(path)


@pytest.mark.parametrize(('text', 'cause'), [('a = (', 'SyntaxError'), ('1/0', 'ZeroDivision')])
def test_a_file_that_is_no_plan(tmp_path, text, cause):
    path = tmp_path / 'plan.py'
    path.write_text(text)
    with mistake(str(path), cause, ('Python', 'YAML')):
        read_plan(str(path))
    lost = str(tmp_path / 'nowhere.py')
    with mistake(lost, 'FileNotFoundError', ('Python', 'YAML')):
        read_plan(lost)


def test_arms_say_what_they_do():
    recipes = {'tuned': {}, 'paper': {}}
    assert parse_arm('direct', recipes)[1:] == (None, None, '')
    assert parse_arm('direct-2x', recipes)[1:] == (None, None, 'twice')
    assert parse_arm('direct-matched', recipes)[1:] == (None, 'tuned', 'matched')
    assert parse_arm('direct-matched:paper', recipes)[1:] == (None, 'paper', 'matched')
    assert parse_arm('direct-twice', recipes)[1:] == ('first_pass', 'tuned', '')
    assert parse_arm('paper', recipes)[1:] == ('tuning', 'paper', '')
