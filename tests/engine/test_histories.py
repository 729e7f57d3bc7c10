import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mm_tuning_plugin.engine.resume.history_globals import (
    REFUSES,
    allow_histories,
    history_statistic,
)


def a_history():
    history = HistoryBuffer()
    history.update(1.5)
    history.update(2.5)
    return history


@pytest.mark.skipif(not REFUSES, reason='this torch reads everything')
def test_histories_are_read_inside_the_block_only(tmp_path):
    path = tmp_path / 'saved.pth'
    torch.save({'message_hub': {'log_scalars': {'loss': a_history()}}, 'meta': {'iter': 3}}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    with allow_histories():
        loaded = torch.load(path, weights_only=True)
    history = loaded['message_hub']['log_scalars']['loss']
    assert history.current() == 2.5 and history.statistics('mean') == 2.0
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.skipif(not REFUSES, reason='this torch reads everything')
@pytest.mark.parametrize('kind', [np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_])
def test_scalars_of_numpy_are_read(tmp_path, kind):
    torch.save({'best_score': kind(1)}, tmp_path / 'saved.pth')
    with allow_histories():
        loaded = torch.load(tmp_path / 'saved.pth', weights_only=True)
    assert loaded['best_score'] == 1 and loaded['best_score'].dtype == kind


class Evil:
    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


@pytest.mark.skipif(not REFUSES, reason='this torch reads everything')
def test_getattr_is_answered_for_statistics_only(tmp_path):
    assert history_statistic(HistoryBuffer, 'mean') is HistoryBuffer.mean
    for owner, name in [(HistoryBuffer, '__init__'), (torch, 'load'), (HistoryBuffer, 'update')]:
        with pytest.raises(pickle.UnpicklingError, match='not allowed'):
            history_statistic(owner, name)
    torch.save({'a': Evil()}, tmp_path / 'evil.pth')
    with allow_histories(), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'evil.pth', weights_only=True)
