"""Drawing boxes and points, cutting patches: plain loops over lists and NumPy slices."""

import numpy as np
import torch
import torch.nn.functional as F


def spread_out(boxes, count, max_overlap):
    """Keeps boxes in order unless too much covered by the kept; fills up from the dropped.

    Mended: what is covered is a share of the box's own area (in the release, of the first box's).

    The mask has one cell per pixel of the plane around all boxes, as what lies outside the image
    counts like any other area. The released one has those of the image only, in float64: it takes
    about as long. As there, all boxes are gone through, whatever their number is cut to in the end.
    """
    boxes = np.asarray(boxes)
    if len(boxes) == 0:
        return []
    y, x = boxes[:, 0].min(), boxes[:, 1].min()
    mask = np.zeros((boxes[:, 2].max() - y, boxes[:, 3].max() - x), dtype=bool)
    kept, dropped = [], []
    for i, (y0, x0, y1, x1) in enumerate(boxes):
        covered = mask[y0 - y : y1 - y, x0 - x : x1 - x]
        if covered.sum() > max_overlap * covered.size:
            dropped.append(i)
        else:
            covered[...] = True
            kept.append(i)
    return (kept + dropped)[:count] if len(kept) < count else kept[:count]


def draw_boxes(pixels, count, size_range, rng):
    """Draws squares around pixels of a list (rows, columns), one after the other."""
    rows, columns = pixels
    low, high = size_range
    boxes, centres = [], []
    for seed in rng.integers(0, len(rows), count):
        y, x = rows[seed], columns[seed]
        half = rng.integers((low + 1) // 2, high // 2 + 1)
        boxes.append((y - half, x - half, y + half, x + half))
        centres.append((y, x))
    return boxes, centres


def list_pixels(seg_map, background_index=None, ignore_index=255):
    """Lists the pixels, (rows, columns) each: of the foreground, of the background.

    Mended: background is a class only where one is named (in the release class 0 always is, so
    Cityscapes' road), and the ignore label never is one (there, where a crop shows nothing else).
    """
    seg_map = seg_map.astype(np.int64)
    foreground, background = seg_map != ignore_index, ([], [])
    if background_index is not None:
        foreground &= seg_map != background_index
        background = np.where(seg_map == background_index)
    return np.where(foreground), background


def draw_patches(lists, num_patches, size_range, rng, background_ratio=0.1, max_overlap=0.6):
    """Draws boxes and centres from lists of pixels, foreground first, de-duplicated.

    Mended: where either list is empty the other fills up (in the release background is then drawn
    on the foreground, and labelled 0).
    """
    foreground, background = lists
    quota = max(1, int(background_ratio * num_patches)) if len(background[0]) else 0
    if len(foreground[0]) == 0:
        quota = num_patches if len(background[0]) else 0
    boxes, centres = [], []
    if len(foreground[0]) and num_patches > quota:
        wanted = num_patches - quota
        drawn, around = draw_boxes(foreground, 5 * wanted, size_range, rng)
        kept = spread_out(drawn, wanted, max_overlap)
        boxes += [drawn[i] for i in kept]
        centres += [around[i] for i in kept]
    if quota:
        drawn, around = draw_boxes(background, 5 * quota, size_range, rng)
        boxes += drawn[:quota]
        centres += around[:quota]
    return np.array(boxes, dtype=np.int64).reshape(-1, 4), centres


def sample_patches(
    seg_map,
    num_patches,
    size_range,
    rng,
    background_index=None,
    background_ratio=0.1,
    ignore_index=255,
    max_overlap=0.6,
):
    """Lists the pixels, draws, de-duplicates: the released order of things, its slips mended.

    As released: the map is copied to int64 first, both lists of pixels are made in full, five
    candidates are drawn for each patch of either kind, all candidates of the foreground are
    de-duplicated and the first are taken. Without a background class there is but one list, which
    is cheaper than what was released (there class 0 always is the background).
    """
    lists = list_pixels(seg_map, background_index, ignore_index)
    boxes, centres = draw_patches(
        lists, num_patches, size_range, rng, background_ratio, max_overlap
    )
    return boxes, [int(seg_map[y, x]) for y, x in centres]


def crop_and_resize(image, boxes, size, fill=0.0):
    """Pads one image (C, H, W) by the largest overhang, slices, resizes each patch by itself."""
    channels, height, width = image.shape
    fill = torch.as_tensor(fill, dtype=image.dtype).expand(channels)
    low = max(0, int(-boxes[:, :2].min()))
    high = max(0, int((boxes[:, 2:] - torch.tensor([height, width])).max()))
    padded = fill[:, None, None].repeat(1, low + height + high, low + width + high)
    padded[:, low : low + height, low : low + width] = image
    patches = []
    for y0, x0, y1, x1 in (boxes + low).tolist():
        patch = padded[None, :, y0:y1, x0:x1]
        patches.append(F.interpolate(patch, (size, size), mode='bilinear', align_corners=False)[0])
    return torch.stack(patches)
