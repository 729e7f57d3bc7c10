"""What tests of pictures look at: the lines of text that matplotlib draws."""

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def texts(monkeypatch):
    """matplotlib's `Text` artists of the pictures drawn, in the order in which they were made."""
    drawn = []
    original = Figure.draw

    def draw(self, renderer):
        drawn.extend(self.texts)
        return original(self, renderer)

    monkeypatch.setattr(Figure, 'draw', draw)
    return drawn


@pytest.fixture
def told(texts):
    """The same lines by what they say; a function, to be called behind the drawing."""
    return lambda: {text.get_text(): text for text in texts}
