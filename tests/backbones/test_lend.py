"""What a CLIP lends to a temporal transformer computes there what it computes in its own text tower."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from rushes.backbones.clip import Clip
from rushes.methods.seqtransf import SeqTransf

WIDTH = 64  # one head: as many as the temporal transformer has at this width


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Clip:
    """A CLIP whose text tower is as wide as its common space, as OpenAI's ViT-B are."""
    from tests import tiny

    folder = tmp_path_factory.mktemp("clip")
    tiny.save_checkpoint(folder, "clip", seed=0)
    config = CLIPConfig.from_pretrained(folder)
    config.text_config.hidden_size, config.text_config.num_attention_heads = WIDTH, 1
    config.text_config.intermediate_size, config.projection_dim = 4 * WIDTH, WIDTH
    config.text_config.hidden_act = "quick_gelu"
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    return Clip.pretrained(str(folder))


def test_lent_blocks_compute_what_the_tower_does(clip):
    method = SeqTransf(WIDTH, SeqTransf.Config(layers=2, positions=24))
    method.start_from(clip)
    tokens, tower = torch.randn(2, 5, WIDTH), clip.towers.text_model
    places = tower.embeddings.position_embedding.weight[:5]
    theirs = tokens + places
    for block in tower.encoder.layers:
        theirs = block(theirs, attention_mask=None)
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
    ours = method.temporal(tokens, torch.ones(2, 5, dtype=torch.bool)) - tokens
    assert (ours - theirs).abs().max() < 1e-4


def test_what_is_lent_is_a_copy(clip):
    before = clip.towers.text_model.embeddings.position_embedding.weight.detach().clone()
    method = SeqTransf(WIDTH, SeqTransf.Config(layers=1, positions=10))
    method.start_from(clip)
    with torch.no_grad():
        for weight in method.parameters():
            weight.zero_()
    assert torch.equal(clip.towers.text_model.embeddings.position_embedding.weight, before)


def test_more_places_than_the_tower_has_are_an_error(clip):
    method = SeqTransf(WIDTH, SeqTransf.Config(layers=1, positions=25))
    with pytest.raises(ValueError, match="25 places wanted, the backbone has 24"):
        method.start_from(clip)


def test_towers_of_another_kind_lend_nothing(tiny_clip, tiny_siglip):
    for backbone in (tiny_clip, tiny_siglip):
        assert backbone.text_blocks(1) is None
        method = SeqTransf(backbone.dim, SeqTransf.Config(layers=1))
        start = {name: weight.clone() for name, weight in method.state_dict().items()}
        method.start_from(backbone)
        assert all(torch.equal(start[name], weight) for name, weight in method.state_dict().items())
