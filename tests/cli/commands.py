"""Running ``tools/train.py`` in this process, as its entry point does."""

from mm_tuning_plugin.cli.train import entry


def fails(capfd, *argv):
    """Run a command that ends with 2; return the mistake that the last line of stderr tells."""
    status = entry([str(argument) for argument in argv])
    err = capfd.readouterr().err
    assert status == 2, err
    assert 'Traceback' not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith('error: ')
    return last.removeprefix('error: ')


def works(capfd, *argv):
    assert entry([str(argument) for argument in argv]) == 0
    captured = capfd.readouterr()
    return captured.out + captured.err
