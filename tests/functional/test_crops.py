import numpy as np
import pytest
import torch
from reference import sampling as reference

from mm_tuning_plugin.functional import crop_and_resize

HARD = [
    (0, 0, 40, 50),  # the image
    (5, 6, 25, 26),  # inside
    (-10, -12, 10, 8),  # over a corner
    (30, 41, 54, 65),  # over the other
    (-20, 10, 60, 30),  # larger than the image, no square
    (-30, 5, -10, 25),  # wholly outside
    (7, 9, 8, 10),  # one pixel
    (39, 49, 41, 51),  # one pixel inside, one out
    (3, 4, 5, 7),  # strongly upsampled
]


def boxes_and_image(device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 40, 50, generator=generator, dtype=torch.float64).to(dtype)
    return torch.tensor(HARD, device=device), image.to(device)


@pytest.mark.parametrize('size', [1, 7, 16, 33])
@pytest.mark.parametrize('fill', [0.0, 0.7, (0.1, 0.5, 0.9)])
def test_equals_pad_slice_and_interpolate(size, fill, device):
    boxes, image = boxes_and_image(device)
    ours = crop_and_resize(image, boxes, size, fill=fill)
    plain = reference.crop_and_resize(image.cpu(), boxes.cpu(), size, fill)
    assert ours.shape == (len(HARD), 3, size, size) and ours.dtype == torch.float32
    torch.testing.assert_close(ours.cpu(), plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize('size', [16, 128])
@pytest.mark.parametrize('scale', [1, 255])
def test_equals_opencv(size, scale, device):
    cv2 = pytest.importorskip('cv2')
    boxes, image = boxes_and_image(device)
    image = image * scale
    ours = crop_and_resize(image, boxes, size, fill=0.5 * scale).cpu().numpy()
    padded = np.pad(
        image.cpu().numpy().transpose(1, 2, 0),
        ((60, 60), (60, 60), (0, 0)),
        constant_values=0.5 * scale,
    )
    for (y0, x0, y1, x1), patch in zip(HARD, ours):
        piece = padded[y0 + 60 : y1 + 60, x0 + 60 : x1 + 60]
        expected = cv2.resize(piece, (size, size), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(patch.transpose(1, 2, 0), expected, atol=1e-5 * scale)


def test_a_wide_image_loses_no_precision(device):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 64, 4096, generator=generator).to(device)
    boxes = [[-3, 3990, 67, 4060], [0, 4000, 64, 4100], [0, 3, 64, 3990]]
    boxes = torch.tensor(boxes, device=device)
    ours = crop_and_resize(image, boxes, 300)
    plain = reference.crop_and_resize(image.cpu().double(), boxes.cpu(), 300).float()
    torch.testing.assert_close(ours.cpu(), plain, rtol=0, atol=1e-5)


def test_same_size_is_a_copy(device):
    boxes, image = boxes_and_image(device)
    patch = crop_and_resize(image, boxes[1:2], 20)[0]
    torch.testing.assert_close(patch, image[:, 5:25, 6:26])


@pytest.mark.parametrize(
    ('dtype', 'expected'),
    [
        (torch.uint8, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtypes(dtype, expected, device):
    boxes, image = boxes_and_image(device, torch.float64)
    image = (image * 255).to(dtype)
    patches = crop_and_resize(image, boxes, 9, fill=3)
    assert patches.dtype == expected
    plain = crop_and_resize(image.double(), boxes, 9, fill=3)
    torch.testing.assert_close(patches.double(), plain, rtol=0, atol=1e-4)


def test_gradcheck(device):
    _, image = boxes_and_image(device, torch.float64)
    image = image[:2, :9, :8].clone().requires_grad_()
    boxes = torch.tensor([[-2, 1, 6, 9], [4, 4, 12, 12], [1, 1, 2, 2]], device=device)
    assert torch.autograd.gradcheck(lambda i: crop_and_resize(i, boxes, 5, fill=0.3), image)


def test_no_boxes_and_a_view(device):
    boxes, image = boxes_and_image(device)
    assert crop_and_resize(image, boxes[:0], 8).shape == (0, 3, 8, 8)
    turned = image.permute(0, 2, 1)
    torch.testing.assert_close(
        crop_and_resize(turned, boxes, 8), crop_and_resize(turned.contiguous(), boxes, 8)
    )
    one = crop_and_resize(image[:1], boxes, 8, fill=[0.2])
    torch.testing.assert_close(one, crop_and_resize(image, boxes, 8, fill=0.2)[:, :1])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'image': torch.rand(4, 5)}, r'^image\b.*\(4, 5\)'),
        ({'image': torch.zeros(3, 4, 5).long()}, r'^image\b.*int64'),
        ({'image': torch.rand(3, 0, 5)}, r'^image\b.*\(3, 0, 5\)'),
        ({'boxes': torch.rand(2, 4)}, r'^boxes\b.*float32'),
        ({'boxes': torch.zeros(2, 5).long()}, r'^boxes\b.*\(2, 5\)'),
        ({'boxes': torch.tensor([[0, 0, 2, 2], [3, 3, 3, 5]])}, r'^boxes\b.*\[3, 3, 3, 5\]'),
        ({'output_size': 0}, r'^output_size\b.* 0 \('),
        ({'fill': (1, 2)}, r'^fill\b.*\b3\b.*\(1, 2\)'),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments = {
        'image': torch.rand(3, 4, 5),
        'boxes': torch.tensor([[0, 0, 2, 2]]),
        'output_size': 4,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        crop_and_resize(**arguments)
