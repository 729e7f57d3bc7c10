"""Follows docs/start.md from top to bottom, as its reader would."""

from blocks import ROOT, blocks, commands, run

# Fewer and smaller scenes, a narrower network and shorter runs than the page has, or it would take
# minutes. Each is found on the page, or the test fails.
SCENES = "write_demo_dataset('data/demo', image_size=96, num_unlabelled=0, num_train=8, num_val=4)"
SHORTER = {
    "write_demo_dataset('data/demo')": SCENES,
    'mix_and_match.max_iters=10': 'mix_and_match.max_iters=2',
    'max_iters=20, val_interval=20': 'max_iters=4, val_interval=4',
    'by_epoch=False, interval=20': 'by_epoch=False, interval=4',
    'decode_head=dict(num_classes=8)': 'decode_head=dict(num_classes=8, in_channels=64), '
    'backbone=dict(stem_channels=8, base_channels=8)',
}


def shorter(text, used):
    for words, fewer in SHORTER.items():
        if words in text:
            used.add(words)
            text = text.replace(words, fewer)
    return text


def test_the_page_ends_with_both_runs_and_a_plan(tmp_path, monkeypatch, imported):
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    used = set()
    for block in [b for b in blocks('sh', 'python') if b.page == 'docs/start.md']:
        if block.language == 'python':
            (tmp_path / block.title).write_text(shorter(block.code, used))
            continue
        for words in commands(block.code):
            if words[0] == 'pip':
                continue
            words = [shorter(word, used) for word in words]
            assert run(words, monkeypatch) == 0, words
    assert used == {*SHORTER}
    assert (tmp_path / 'work_dirs/tuned/tuning/tuned_backbone.pth').is_file()
    for run_of in ('tuned', 'plain'):
        assert list((tmp_path / 'work_dirs' / run_of).glob('iter_4.pth'))
