"""Follows docs/start.md from top to bottom, as its reader would."""

from blocks import ROOT, blocks, commands, run

SCENES = "write_demo_dataset('data/demo', image_size=96, num_unlabelled=0, num_train=8, num_val=4)"


def test_the_page_ends_with_both_runs_and_a_plan(tmp_path, monkeypatch, imported):
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in [b for b in blocks('sh', 'python') if b.page == 'docs/start.md']:
        if block.language == 'python':
            (tmp_path / block.title).write_text(block.code)
            continue
        for words in commands(block.code):
            if words[0] == 'pip':
                continue
            # fewer and smaller scenes than the page has, or it would take minutes
            words = [w.replace("write_demo_dataset('data/demo')", SCENES) for w in words]
            assert run(words, monkeypatch) == 0, words
    assert (tmp_path / 'work_dirs/tuned/tuning/tuned_backbone.pth').is_file()
    for run_of in ('tuned', 'plain'):
        assert list((tmp_path / 'work_dirs' / run_of).glob('iter_20.pth'))
