"""A model on disk is a folder: what is loaded is what was saved, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import rushes
from rushes.backbones.base import Frames
from rushes.methods.meanpool import MeanPool
from rushes.methods.wti import WTI
from rushes.model import Model
from tests.tiny import tiny_clip

TEXTS = ["a dog catches the frisbee", "snow"]


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(5)
    backbone = tiny_clip()
    return Model(backbone, WTI(backbone.dim, WTI.Config(hidden=0, scale=50.0))).eval()


@pytest.fixture
def saved(model, tmp_path) -> Path:
    model.save(tmp_path / "model")
    return tmp_path / "model"


def videos(model: Model) -> Frames:
    draw = torch.Generator().manual_seed(1)
    pixels = [torch.randint(0, 256, (count, 3, 40, 60), generator=draw, dtype=torch.uint8) for count in (3, 1)]
    spans = [torch.arange(count + 1.0).unfold(0, 2, 1) for count in (3, 1)]
    return Frames.pack([model.frames(frames) for frames in pixels], spans)


def test_saved_and_loaded_scores_every_bit_the_same(model, saved):
    again = rushes.load(saved)
    assert again.name == str(saved)
    assert again.method.config == model.method.config
    before = model.method.score(model.texts(TEXTS), model.videos(videos(model)))
    after = again.method.score(again.texts(TEXTS), again.videos(videos(again)))
    assert before.shape == (2, 2)
    assert torch.equal(before, after)
    assert not again.training
    assert {"config.json", "model.safetensors"} <= {file.name for file in saved.iterdir()}


def test_half_the_size_is_three_digits(model, tmp_path):
    model.save(tmp_path / "half", half=True)
    again = rushes.load(tmp_path / "half")
    assert next(again.parameters()).dtype == torch.float32
    for (name, weight), (other, loaded) in zip(model.state_dict().items(), again.state_dict().items(), strict=True):
        assert name == other
        torch.testing.assert_close(loaded, weight, rtol=1e-3, atol=1e-4)


class Attentive(MeanPool):
    tagger = "closed-class"


def test_a_method_that_asks_for_content_words_gets_them(model):
    assert model.words(TEXTS).content is None
    asking = Model(model.backbone, Attentive(model.backbone.dim))
    words = asking.words(TEXTS)
    told = [
        [text[start:end] for (start, end), content in zip(row, flagged, strict=True) if content]
        for text, row, flagged in zip(
            TEXTS, model.backbone.tokenize(TEXTS).offsets.tolist(), words.content.tolist(), strict=True
        )
    ]
    assert told == [["dog", "catches", "frisbee"], ["snow"]]
    assert torch.equal(words.vectors, model.words(TEXTS).vectors)
    asking.method.tagger = "oracle"
    with pytest.raises(LookupError, match="no tagger 'oracle'; there are closed-class, spacy"):
        asking.words(TEXTS)


def test_a_strangers_method_comes_back_by_its_path(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from rushes.methods.meanpool import MeanPool\n\nclass Mine(MeanPool):\n    pass\n")
    from rushes import registry
    from rushes.methods.base import Method

    backbone = tiny_clip()
    mine = registry.find("methods", str(file), Method)
    Model(backbone, mine(backbone.dim)).save(tmp_path / "model")
    assert isinstance(rushes.load(tmp_path / "model").method, mine)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the backbone gives 24 numbers a token, the method takes 512"):
        Model(tiny_clip(), MeanPool(512))


def test_what_cannot_be_loaded_is_told(saved, tmp_path):
    with pytest.raises(LookupError, match="no model 'smal': installed models are"):
        rushes.load("smal")
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"rushes": 99}))
    with pytest.raises(ValueError, match="has model format 99, this Rushes reads 1; update Rushes"):
        rushes.load(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        rushes.load(saved)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(LookupError, match=r"cannot read config\.json"):
        rushes.load(empty)


def test_a_switch_that_the_method_does_not_know_is_an_error(saved):
    config = json.loads((saved / "config.json").read_text())
    config["method"]["config"]["colour"] = 1
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(TypeError, match="WTI has no switch colour"):
        rushes.load(saved)


def test_weights_that_are_missing_or_too_many_are_an_error(saved):
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if name != "method.log_scale"}
    for changed in (kept, weights | {"method.extra": torch.zeros(1)}):
        save_file(changed, saved / "model.safetensors")
        with pytest.raises(RuntimeError, match=r"method\.(log_scale|extra)"):
            rushes.load(saved)
