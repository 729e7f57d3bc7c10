"""Whether numbers were drawn by one law: p-values of tests, for numbers of any kind.

Each number must come from a draw of its own: tests assume independence, and what one image or one
graph gives several of (labels of its patches, degrees of its nodes) is not independent.
"""

import numpy as np
from scipy.stats import chi2_contingency, chisquare, ks_2samp

LEAST_P = 0.001  # seeds are fixed: a test that passes does so for ever
LEAST_EXPECTED = 5  # below, the law of chi-square is no good approximation


def _pooled(table, expected):
    """Columns of a table, neighbours taken together until enough is expected in each."""
    groups = np.zeros(table.shape[1], int)
    total, group = 0.0, 0
    for column, number in enumerate(expected):
        groups[column] = group
        total += number
        if total >= LEAST_EXPECTED:
            total, group = 0.0, group + 1
    groups[groups == group] = max(0, group - 1)  # the rest is too little for a group of its own
    return np.stack([np.bincount(groups, row) for row in table])


def p_of_law(values, probabilities):
    """Chi-square: values against the probability of each, a dict; 0 where one has none."""
    outcomes = list(probabilities)
    counts = np.array([np.sum(np.asarray(values) == outcome) for outcome in outcomes])
    if counts.sum() != len(values):
        return 0.0
    expected = np.array([probabilities[outcome] for outcome in outcomes]) * len(values)
    observed, model = _pooled(np.stack((counts, expected)), expected)
    return chisquare(observed, model).pvalue


def p_of_counts(ours, theirs):
    """Chi-square of two samples of discrete values."""
    outcomes = sorted({*ours, *theirs})
    table = np.array([[np.sum(np.asarray(s) == o) for o in outcomes] for s in (ours, theirs)])
    table = _pooled(table, table.sum(0) * min(len(ours), len(theirs)) / table.sum())
    assert table.shape[1] > 1, f'nothing varies: {outcomes}'
    return chi2_contingency(table).pvalue


def p_of_sizes(ours, theirs):
    """Kolmogorov-Smirnov of two samples of sizes."""
    return ks_2samp(ours, theirs, method='asymp').pvalue
