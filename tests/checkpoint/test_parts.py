"""The one list of parts that may be left out of a file, from both sides."""

import pytest
import torch
from torch import nn

from mm_tuning_plugin.checkpoint.match.droppable_parts import left_over
from mm_tuning_plugin.checkpoint.match.timm_cuts import cut_off


def names(text):
    return tuple(text.split())


VIT = names(
    """
        cls_token pos_embed patch_embed.proj.weight blocks.0.attn.qkv.weight norm.bias
    """
)
RESNET = names(
    """
        conv1.weight bn1.weight layer1.0.conv1.weight layer2.0.conv1.weight
    """
)
SWIN = names(
    """
        patch_embed.projection.weight stages.0.blocks.0.norm1.weight norm1.weight
    """
)
HARMLESS = {
    VIT: names(
        """
        head.weight head_dist.weight fc_norm.weight lm_head.bias mask_token
        decoder_embed.weight decoder_pos_embed decoder_blocks.0.norm1.weight
        projection_head.0.weight prototypes.weight dist_token attn_pool.latent
        cls_pt_layers.0.norm1.weight logit_scale n_averaged masked_embed
        multi_scale_fusion_heads.0.weight encoder_norm.weight pooler.dense.weight
        blocks.0.attn.relative_position_index blocks.0.total_ops patch_embed.mask_token
        optimizer.a teacher.blocks.0.attn.qkv.weight ln_post.weight proj neck.0.weight
        """
    ),
    RESNET: names(
        """
        fc.weight layer3.0.conv1.weight layer4.2.bn1.weight queue queue_ptr
        layer1.0.bn1.num_batches_tracked classifier.0.weight auxiliary_head.conv.weight
        predictor.0.weight last_layer.weight_v incre_modules.0.0.conv1.weight
        """
    ),
    SWIN: names(
        """
        norm0.weight norm3.bias norm.weight stages.0.blocks.1.attn_mask head.fc.bias
        """
    ),
}
HARMFUL = {
    VIT: names(
        """
        rope.freqs freqs reg_token register_tokens pos_embed_win gate temperature_x
        norm_pre.weight ln_pre.weight pre_norm.weight blocks.0.ls1.gamma rel_pos_bias.table
        blocks.0.attn.q_norm.weight blocks.0.attn.rel_pos_h patch_embed.norm.weight cls_pos
        stem.conv.weight channel_embed patch_embed2.proj.weight adapter.0.weight headless
        blocks.0.norm1.running_mean blocks.1.attn.qkv.weight time_embed patch_proj.weight
        """
    ),
    RESNET: names(
        """
        conv2.weight bn2.weight layer0.0.conv1.weight stem.0.weight layer1.0.se.fc1.weight
        layer1.0.bn1.running_mean layer1.0.downsample.0.weight norm1.weight cls_token
        pos_embed rope.freqs dist_token
        """
    ),
    SWIN: names(
        """
        absolute_pos_embed stages.0.blocks.0.norm3.weight stages.1.blocks.0.norm1.weight
        """
    ),
}


def kept(names, targets):
    unused = {name: torch.ones(1) for name in names}
    return tuple(left_over(nn.Identity(), targets, targets, unused))


@pytest.mark.parametrize('targets', HARMLESS, ids=('vit', 'resnet', 'swin'))
def test_what_may_be_left_out(targets):
    """Each alone: what another one beside it says is no help."""
    for name in HARMLESS[targets]:
        assert kept([name], targets) == (), name


@pytest.mark.parametrize('targets', HARMFUL, ids=('vit', 'resnet', 'swin'))
def test_what_may_not(targets):
    """Positions, norms, gates, tokens, biases; whatever is not known."""
    for name in HARMFUL[targets]:
        assert kept([name], targets) == (name,), name


def test_what_may_be_left_out_beside_another_part():
    xcit = ('patch_embed.proj.weight', 'blocks.0.attn.qkv.weight')
    assert kept(['cls_token'], xcit) == ('cls_token',)
    assert kept(['cls_token', 'cls_attn_blocks.0.norm1.weight'], xcit) == ()
    efficientnet = ('conv_stem.weight', 'bn1.weight', 'blocks.0.0.conv.weight')
    assert kept(['bn2.weight'], efficientnet) == ('bn2.weight',)
    assert kept(['bn2.weight', 'conv_head.weight'], efficientnet) == ()


def test_layers_of_caffe_behind_the_last():
    layers = ('conv1.weight', 'conv2.weight', 'conv3.weight')
    assert kept(['conv4_1.weight', 'conv5-1.weight', 'fc8-voc.weight'], layers) == ()
    assert kept(['conv2_2.weight'], layers) == ('conv2_2.weight',)


def test_blocks_that_timm_cut_off():
    """Those of its levels, of the lists that the network still has."""
    network = nn.Identity()
    network.feature_info = [dict(module='stem'), dict(module='blocks.1'), dict(module='blocks.4')]
    names = ('stem.weight', 'blocks.0.weight', 'blocks.2.weight')
    assert cut_off(network, names) == ('blocks.3', 'blocks.4')
    assert cut_off(network, ('stem.weight',)) == ()
    assert cut_off(nn.Identity(), names) == ()
    unused = {f'blocks.{i}.weight': torch.ones(1) for i in (1, 3, 4, 5)}
    assert list(left_over(network, names, names, unused)) == ['blocks.1.weight', 'blocks.5.weight']
