"""Scoring in blocks: the same scores under any budget, within its memory, for every registered method."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache

import pytest
import torch

from rushes import registry
from rushes.methods.base import Method
from rushes.scoring import score_all
from rushes.train.cases import Case, cases
from rushes.types import Tokens

NAMES = registry.names("methods")
DIM = 64
PRESETS = ("default", "released", "paper")
BUDGETS = {"least": 1 << 20, "small": 2 << 20, "ample": 64 << 20}
KINDS = {  # words of each text, frames of each video
    "more texts": ((7, 3, 1, 5, 4, 2, 7), (6, 3, 1, 5)),
    "more videos": ((4, 1, 7), (6, 3, 1, 5, 2)),
    "one text": ((5,), (6, 3, 1, 5)),
    "one video": ((7, 3, 1, 5, 4), (4,)),
    "one word, one frame": ((1, 1, 1), (1, 1)),
}


def configurations(name: str) -> list[Case]:
    found = cases(registry.find("methods", name, Method), DIM, (0,))
    return [case for case in found if case.name in PRESETS]


EVERY = [pytest.param(case, id=f"{name}-{case.name}") for name in NAMES for case in configurations(name)]


def test_every_method_is_there():
    assert {"meanpool", "seqtransf", "xpool", "wti", "xclip"} <= set(NAMES)
    assert len(EVERY) > len(NAMES)  # presets beside the defaults


@torch.no_grad()
def encoded(case: Case, method: Method, kind: str = "more texts") -> tuple[Tokens, Tokens]:
    words, frames = KINDS[kind]
    return method.encode_text(case.words(words)), method.encode_video(case.frames(frames))


def shaken(method: Method) -> Method:
    """Weights moved from where they start, where many are the identity and some scores alike."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, weight in method.named_parameters():
            if weight.ndim and name != "log_scale":
                weight += 0.05 * torch.randn_like(weight)
    return method


def many(tokens: Tokens, count: int) -> Tokens:
    """So many rows, each with tokens of its own."""
    repeated = tokens[torch.arange(count) % len(tokens)]
    draw = torch.Generator().manual_seed(count)
    turned = repeated.vectors + 0.5 * torch.randn(repeated.vectors.shape, generator=draw) / DIM**0.5
    return Tokens(turned, repeated.mask, repeated.spans, repeated.level, repeated.weights)


def agree(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", EVERY)
@pytest.mark.parametrize("kind", KINDS)
def test_any_budget_gives_the_scores_of_one_call(case, kind):
    method = shaken(case.method())
    text, video = encoded(case, method, kind)
    with torch.no_grad():
        wanted = method.score(text, video)
    assert wanted.shape == (len(text), len(video))
    for budget in BUDGETS.values():
        agree(score_all(method, text, video, budget), wanted)


@pytest.mark.parametrize("case", EVERY)
def test_many_blocks_give_the_scores_of_one_call(case):
    """Enough texts and videos for a MiB to hold but some of them."""
    method = shaken(case.method())
    text, video = encoded(case, method)
    text, video = many(text, 150), many(video, 90)
    with torch.no_grad():
        wanted = method.score(text, video)
    for budget in BUDGETS.values():
        agree(score_all(method, text, video, budget), wanted)
    assert wanted.std() > 1e-3


@pytest.mark.parametrize("case", EVERY)
def test_a_score_is_that_of_its_pair_alone(case):
    """In the middle of many: whatever shares a block with it."""
    method = shaken(case.method())
    text, video = encoded(case, method)
    text, video = many(text, 40), many(video, 30)
    found = score_all(method, text, video, BUDGETS["least"])
    for row, column in [(0, 0), (17, 29), (39, 3)]:
        with torch.no_grad():
            alone = method.score(text[row : row + 1], video[column : column + 1])
        agree(found[row : row + 1, column : column + 1], alone)


@pytest.mark.parametrize("case", EVERY)
def test_half_precision_tokens_are_scored_in_fp32(case):
    method = shaken(case.method())
    text, video = (tokens.to(torch.float16) for tokens in encoded(case, method))
    with torch.no_grad():
        wanted = method.score(text, video)
        same_numbers = method.score(text.to(torch.float32), video.to(torch.float32))
    for budget in BUDGETS.values():
        agree(score_all(method, text, video, budget), wanted)
    agree(wanted, same_numbers)


@pytest.mark.parametrize("name", NAMES)
def test_no_texts_or_videos_give_no_scores(name):
    case = configurations(name)[0]
    method = case.method()
    text, video = encoded(case, method)
    assert score_all(method, text[:0], video).shape == (0, 4)
    assert score_all(method, text, video[:0]).shape == (7, 0)


def test_a_method_in_training_is_scored_without_dropout_and_stays_in_training():
    case = configurations("xpool")[0]
    method = case.method().train()
    text, video = encoded(case, method)
    agree(score_all(method, text, video), score_all(method, text, video))
    assert method.training
    assert method.pool.training
    assert not score_all(method.eval(), text, video).requires_grad
    assert not method.training


def test_what_cannot_be_scored_is_named():
    case = configurations("wti")[0]
    method = case.method()
    text, video = encoded(case, method)
    with pytest.raises(ValueError, match="a budget of 1048575 bytes is too small to score in; give 1 MiB or more"):
        score_all(method, text, video, (1 << 20) - 1)
    narrow = Tokens(video.vectors[..., :32], video.mask, weights=video.weights)
    with pytest.raises(ValueError, match="text tokens have 64 numbers, video tokens 32"):
        score_all(method, text, narrow)


@pytest.mark.parametrize("error", [ValueError])
def test_a_failed_score_leaves_training_on(error):
    case = configurations("wti")[0]
    method = case.method().train()
    text, video = encoded(case, method)
    with pytest.raises(error, match="encoded by another method"):
        score_all(method, Tokens(text.vectors, text.mask), video)
    assert method.training


MEASURE = """
import json, os, sys
import torch
from rushes import registry
from rushes.backbones.base import Frames, Words
from rushes.methods.base import Method
from rushes.scoring import score_all

torch.set_num_threads(1)
torch.set_grad_enabled(False)
TEXTS, VIDEOS, WORDS, FRAMES, DIM = 600, 500, 32, 12, 256
budget, names = int(sys.argv[1]), sys.argv[2:]


def most_held():
    "Bytes. Not ru_maxrss: a new process starts at the peak of the one that made it, which hides what is below."
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def more(task):
    "How much more `task` holds at its peak than is held before it; in a process of its own, since peaks stay."
    coming, going = os.pipe()
    if os.fork() == 0:
        try:
            before = most_held()
            assert task().shape == (TEXTS, VIDEOS)
            os.write(going, str(most_held() - before).encode())
        finally:
            os._exit(0)
    os.close(going)
    os.wait()
    return int(os.read(coming, 100) or -1)


words = torch.randn(TEXTS, WORDS, DIM)
frames = torch.randn(VIDEOS, FRAMES, DIM)
real = torch.ones(TEXTS, WORDS, dtype=torch.bool)
spans = torch.arange(FRAMES + 1.0).unfold(0, 2, 1).expand(VIDEOS, -1, -1)
found = {
    "words by frames": more(lambda: torch.einsum("twd,vfd->twvf", words, frames).amax(dim=(1, 3))),
    "a vector a pair": more(lambda: (words[:, None, 0] * frames[None, :, 0]).sum(dim=2)),
}
for name in names:
    method = registry.find("methods", name, Method)(DIM).eval()
    text = method.encode_text(Words(words, real, words[:, 0], real))
    video = method.encode_video(Frames(frames, torch.ones(VIDEOS, FRAMES, dtype=torch.bool), spans))
    score_all(method, text[:2], video[:2], budget)  # loads what is loaded at first use
    found[name] = more(lambda: score_all(method, text, video, budget))
print(json.dumps(found))
"""


@cache
def measured() -> dict[str, int]:
    """Bytes that each method holds more while it scores 600 texts x 500 videos of 32 words x 12 frames."""
    command = [sys.executable, "-c", MEASURE, str(BUDGET), *NAMES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


BUDGET, SLACK = 32 << 20, 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is read from /proc")
@pytest.mark.parametrize("name", NAMES)
def test_memory_stays_within_the_budget(name):
    assert 0 <= measured()[name] < BUDGET + SLACK


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory of a process is read from /proc")
def test_what_is_held_is_seen():
    """Text x video x word x frame numbers are 460 MB, text x video x dim 307 MB."""
    assert measured()["words by frames"] > 400e6
    assert measured()["a vector a pair"] > 300e6
