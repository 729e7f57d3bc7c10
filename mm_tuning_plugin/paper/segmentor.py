"""Window by window, with probabilities added up: how the paper's Cityscapes systems are tested."""

from __future__ import annotations

from mmseg.models.segmentors import EncoderDecoder
from torch import Tensor

from mm_tuning_plugin.registry import MODELS


@MODELS.register_module()
class SummedSoftmaxEncoderDecoder(EncoderDecoder):
    """mmseg's EncoderDecoder that averages probabilities where windows overlap, not scores.

    With ``test_cfg.mode='slide'``: the release sums the probabilities, which predicts the same.
    Training and ``mode='whole'`` are unchanged. What it predicts as scores are probabilities then.
    """

    def slide_inference(self, inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Probabilities (B, num_classes, H, W) of overlapping windows, averaged."""
        scores = self.encode_decode
        self.encode_decode = lambda *window: scores(*window).softmax(dim=1)
        try:
            return super().slide_inference(inputs, batch_img_metas)
        finally:
            del self.encode_decode
