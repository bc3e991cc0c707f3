"""Each law catches the method that breaks it, and nothing a method does stops `check`."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

from rushes import registry
from rushes.methods.base import Method
from rushes.train.cases import Broken, cases
from rushes.train.laws import BUILT, LAWS, TWO_PROCESSES, Verdict, check
from rushes.train.pair import compared, learnt_by_two

HEAD = """
import torch
from dataclasses import dataclass, replace
from rushes.methods.base import ALONE, Method
from rushes.methods.meanpool import MeanPool
from rushes.methods.wti import WTI
from rushes.similarity import fp32, unit

"""

BROKEN = {
    "padding that wins with zeros": (
        "padding changes nothing",
        """
        class Broken(WTI):
            def score(self, text, video):
                products = torch.einsum("twd,vfd->tvwf", fp32(text.vectors), fp32(video.vectors))
                products = products * text.mask[:, None, :, None] * video.mask[None, :, None, :]
                return torch.einsum("tvw,tw->tv", products.amax(dim=3), fp32(text.weights))
        """,
    ),
    "a mean over padding": (
        "padding changes nothing",
        """
        class Broken(MeanPool):
            def encode_video(self, frames):
                whole = unit(frames.vectors.mean(dim=1, keepdim=True))
                tokens = super().encode_video(frames)
                return replace(tokens, vectors=torch.cat([whole, tokens.vectors[:, 1:]], dim=1))
        """,
    ),
    "a loss that counts padding": (
        "padding changes nothing",
        """
        class Broken(WTI):
            def loss(self, text, video, positives):
                return super().loss(text, video, positives) | {"size": video.vectors.mean()}
        """,
    ),
    "scores normalised over the batch": (
        "pairs are independent",
        """
        class Broken(WTI):
            def score(self, text, video):
                scores = super().score(text, video)
                return scores - scores.mean()
        """,
    ),
    "a scorer with batch norm that never leaves training": (
        "pairs are independent",
        """
        class Broken(WTI):
            def encode_video(self, frames):
                centre = frames.vectors[frames.mask].mean(dim=0)
                return super().encode_video(replace(frames, vectors=frames.vectors - centre))
        """,
    ),
    "a video pooled by its own caption": (
        "pairs are independent",
        """
        class Broken(WTI):
            def score(self, text, video):
                wanted = torch.einsum("td,tfd->tf", self.summary(text), fp32(video.vectors))
                weights = wanted.masked_fill(~video.mask, -float("inf")).softmax(dim=1)
                return self.summary(text) @ unit(torch.einsum("vf,vfd->vd", weights, fp32(video.vectors))).T
        """,
    ),
    "a favourite place in the gallery": (
        "permuting the gallery permutes the scores",
        """
        class Broken(WTI):
            def score(self, text, video):
                return super().score(text, video) + 0.01 * torch.arange(len(video))
        """,
    ),
    "an attribute that is not saved": (
        "save and load is exact",
        """
        class Broken(WTI):
            def __init__(self, dim, config=None):
                super().__init__(dim, config)
                self.centre = torch.randn(dim)
            def encode_video(self, frames):
                return super().encode_video(replace(frames, vectors=frames.vectors + self.centre))
        """,
    ),
    "a count that is kept beside the weights": (
        "save and load is exact",
        """
        class Broken(WTI):
            steps = 0
            def step(self, batch, gather=ALONE):
                self.steps += 1
                return super().step(batch)
            def score(self, text, video):
                return super().score(text, video) * (1 + self.steps)
        """,
    ),
    "a switch that is not saved": (
        "save and load is exact",
        """
        class Broken(WTI):
            def settings(self):
                return {"scale": self.config.scale}
        """,
    ),
    "a parameter that nothing uses": (
        "gradients reach every parameter",
        """
        class Broken(WTI):
            def __init__(self, dim, config=None):
                super().__init__(dim, config)
                self.spare = torch.nn.Parameter(torch.zeros(3))
        """,
    ),
    "a temperature that its clamp holds fast": (
        "gradients reach every parameter",
        """
        from rushes.losses import info_nce
        class Broken(MeanPool):
            def loss(self, text, video, positives):
                return {"nce": info_nce(self.score(text, video), positives, self.log_scale.exp().clamp(max=100))}
        """,
    ),
    "a loss that is not a number": (
        "gradients reach every parameter",
        """
        class Broken(WTI):
            def loss(self, text, video, positives):
                return {"nce": self.log_scale * float("nan")}
        """,
    ),
    "seconds that run ahead": (
        "spans lie inside the segment",
        """
        class Broken(WTI):
            def encode_video(self, frames):
                return super().encode_video(replace(frames, spans=frames.spans + 5))
        """,
    ),
    "seconds since the segment began": (
        "spans lie inside the segment",
        """
        class Broken(WTI):
            def encode_video(self, frames):
                return super().encode_video(replace(frames, spans=frames.spans - frames.spans[:, :1, :1]))
        """,
    ),
    "no seconds at all": (
        "spans lie inside the segment",
        """
        class Broken(WTI):
            def encode_video(self, frames):
                return replace(super().encode_video(frames), spans=None)
        """,
    ),
    "weights on padding": (
        "only real tokens count",
        """
        class Broken(WTI):
            def encode_video(self, frames):
                tokens = super().encode_video(frames)
                return replace(tokens, weights=tokens.weights + 0.1)
        """,
    ),
    "a mask of numbers": (
        "only real tokens count",
        """
        class Broken(MeanPool):
            def encode_text(self, words):
                return replace(super().encode_text(words), mask=torch.ones(len(words), 1))
        """,
    ),
    "scores from what the encoder remembers": (
        "stored tokens give the scores of the live model",
        """
        class Broken(WTI):
            def encode_video(self, frames):
                self.seen = super().encode_video(frames)
                return self.seen
            def score(self, text, video):
                return super().score(text, self.seen if len(self.seen) == 2 else video)
        """,
    ),
    "numbers too large for fp16": (
        "stored tokens give the scores of the live model",
        """
        class Broken(WTI):
            def encode_video(self, frames):
                tokens = super().encode_video(frames)
                return replace(tokens, vectors=tokens.vectors * 1e6)
            def score(self, text, video):
                return super().score(text, replace(video, vectors=video.vectors / 1e6))
            def summary(self, tokens):
                return unit(super().summary(tokens))
        """,
    ),
    "scores in half precision": (
        "scores are finite and fp32",
        """
        class Broken(WTI):
            def score(self, text, video):
                return super().score(text, video).to(text.vectors.dtype)
        """,
    ),
    "the logarithm of a negative number": (
        "scores are finite and fp32",
        """
        class Broken(WTI):
            def score(self, text, video):
                return (super().score(text, video) - 5).log()
        """,
    ),
    "a summary of any length": (
        "summaries are unit vectors",
        """
        class Broken(WTI):
            def summary(self, tokens):
                return 2 * super().summary(tokens)
        """,
    ),
    "evidence on padding": (
        "evidence is of real tokens",
        """
        class Broken(WTI):
            def evidence(self, text, video):
                return fp32(video.vectors) @ self.summary(text)[0]
        """,
    ),
    "a spread of one frame": (
        "one word and one frame are enough",
        """
        class Broken(WTI):
            def score(self, text, video):
                weights = fp32(video.weights)
                spread = (weights.sum(dim=1) - weights.square().sum(dim=1)).sqrt()
                return super().score(text, video) + spread.masked_fill(video.counts() == 1, 0)
        """,
    ),
    "a second word that must be there": (
        "one word and one frame are enough",
        """
        class Broken(WTI):
            def score(self, text, video):
                return super().score(text, video) + 0 * text.vectors[:, 1, 0].sum()
        """,
    ),
    "dropout that stays on": (
        "the same twice",
        """
        class Broken(WTI):
            def encode_text(self, words):
                noisy = torch.nn.functional.dropout(words.vectors, 0.5, training=True)
                return super().encode_text(replace(words, vectors=noisy))
        """,
    ),
    "features changed in place": (
        "the same twice",
        """
        class Broken(WTI):
            def encode_video(self, frames):
                return super().encode_video(replace(frames, vectors=frames.vectors.mul_(1.5)))
        """,
    ),
}

ALONE_TOGETHER = {
    "a loss that ignores the other process": """
        class Broken(WTI):
            def step(self, batch, gather=ALONE):
                return super().step(batch)
        """,
    "statistics of its own share": """
        class Broken(WTI):
            def __init__(self, dim, config=None):
                super().__init__(dim, config)
                self.norm = torch.nn.BatchNorm1d(dim, affine=False)
            def encode_video(self, frames):
                flat = self.norm(frames.vectors[frames.mask])
                vectors = torch.zeros_like(frames.vectors).masked_scatter(frames.mask[..., None], flat)
                return super().encode_video(replace(frames, vectors=vectors))
        """,
    "tokens of others without their gradient": """
        class Broken(WTI):
            def step(self, batch, gather=ALONE):
                def cut(tokens):
                    everyone = gather.tokens(replace(tokens, weights=tokens.weights.detach()))
                    return everyone if len(everyone) > len(tokens) else tokens
                return super().step(batch, replace(gather, tokens=cut))
        """,
}


def write(folder: Path, body: str) -> str:
    file = folder / "broken.py"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(HEAD + textwrap.dedent(body))
    return str(file)


def broken_laws(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.law: verdict.detail for verdict in verdicts if not verdict.kept}


@pytest.mark.parametrize("what", BROKEN)
def test_a_law_catches_who_breaks_it(what, tmp_path):
    law, body = BROKEN[what]
    verdicts = check(write(tmp_path, body), dim=16, seeds=(0,), laws=LAWS)
    assert law in broken_laws(verdicts), broken_laws(verdicts)
    assert [verdict.law for verdict in verdicts] == [BUILT, *LAWS]


def test_every_law_has_somebody_who_breaks_it():
    assert {law for law, _ in BROKEN.values()} == set(LAWS)


def test_two_processes_catch_who_learns_alone(tmp_path):
    """All of them in one pair of processes, which costs seconds to start."""
    names = [write(tmp_path / str(number), body) for number, body in enumerate(ALONE_TOGETHER.values())]
    names = [*names, "meanpool"]
    learnt = learnt_by_two(names, 16, (0,), patience=150)
    found = {name: cases(registry.find("methods", name, Method), 16, (0,)) for name in names}
    for name in names[:-1]:
        with pytest.raises(Broken, match="of two steps' way"):
            compared(found[name], learnt[name])
    assert "largest difference" in compared(found["meanpool"], learnt["meanpool"])[0]


def test_what_a_process_raises_is_the_verdict(tmp_path):
    name = write(
        tmp_path,
        """
        class Broken(WTI):
            def step(self, batch, gather=ALONE):
                if len(batch.words) < 5:
                    raise RuntimeError("I only work alone")
                return super().step(batch, gather)
        """,
    )
    verdicts = check(name, dim=16, seeds=(0,), laws=[TWO_PROCESSES])
    assert "RuntimeError: I only work alone (broken.py:" in broken_laws(verdicts)[TWO_PROCESSES]


def test_an_exception_is_a_verdict_with_its_place(tmp_path):
    _, body = BROKEN["a second word that must be there"]
    told = broken_laws(check(write(tmp_path, body), dim=16, seeds=(3,), laws=LAWS))
    assert told["one word and one frame are enough"].startswith("default, seed 3: IndexError: ")
    assert told["one word and one frame are enough"].endswith("(broken.py:12 in score)")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Broken(WTI:\n", "SyntaxError"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError: No module named 'nothing_of_that_name' (broken.py:9"),
        ("x = 1\n", "must define exactly one complete subclass of Method; found none"),
        ("class Broken(Method): pass\n", "found none"),
        ("class Broken(WTI):\n    def __init__(self, dim, config=None):\n        {}['scale']\n", "KeyError: 'scale'"),
        ("class Broken(WTI):\n    def __init__(self, dim):\n        super().__init__(dim)\n", "TypeError"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_verdict(text, says, tmp_path):
    (verdict,) = check(write(tmp_path, text), dim=16)
    assert verdict.law == BUILT
    assert not verdict.kept
    assert says in verdict.detail


def test_a_method_that_nobody_has_is_the_callers_mistake(tmp_path):
    with pytest.raises(LookupError, match=r"rushes.methods has no 'wit'; it has .*wti"):
        check("wit")
    with pytest.raises(LookupError, match="there is no file"):
        check(str(tmp_path / "mine.py"))
    with pytest.raises(LookupError, match="no law is called 'gravity'; there are padding"):
        check("wti", laws=["gravity"])


def test_checking_leaves_the_random_state_alone():
    before = torch.random.get_rng_state()
    check("meanpool", laws=["the same twice"])
    assert torch.equal(torch.random.get_rng_state(), before)


ON_PURPOSE = """
class Broken(WTI):
    @dataclass(frozen=True, kw_only=True)
    class Config(WTI.Config):
        shifted: bool = False
        def breaks(self):
            return {"pairs are independent": "their code does"} if self.shifted else {}
    def score(self, text, video):
        scores = super().score(text, video)
        return scores - scores.mean() if self.config.shifted else scores
"""


def test_a_law_broken_on_purpose_is_listed_with_its_reason(tmp_path):
    _, verdict = check(write(tmp_path, ON_PURPOSE), dim=16, laws=["pairs are independent"])
    assert verdict.kept
    assert verdict.on_purpose == ("shifted=True: their code does",)


@pytest.mark.parametrize(
    ("was", "law", "says"),
    [
        ("scores - scores.mean()", "pairs are independent", "on purpose (their code does), but it keeps it"),
        ("pairs are independent", BUILT, "shifted=True says it breaks 'scores'; the laws are padding changes nothing"),
    ],
)
def test_who_claims_to_break_a_law_must_break_it(tmp_path, was, law, says):
    file = write(tmp_path, ON_PURPOSE.replace(was, "scores"))
    assert says in broken_laws(check(file, dim=16, laws=["pairs are independent"]))[law]
