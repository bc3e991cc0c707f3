"""What a training run is: every choice that its result depends on, as plain data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from rushes import registry
from rushes.evaluate.metrics import METRICS
from rushes.methods.base import Method

PLACES = ("root", "features", "workers", "tracker", "save_every")  # may change from one start of a run to the next


@dataclass(frozen=True, kw_only=True)
class Run:
    """A method, data, and how the one learns from the other. Numbers are of the whole batch, whoever computes it.

    >>> run = Run(method="wti", data="reels", switches={"summary": 0.0})
    >>> Run.of(run.plain()) == run, run.config().summary
    (True, 0.0)
    """

    method: str  # a name of rushes.methods, or a path ending in .py
    switches: Mapping[str, Any] = field(default_factory=dict)  # of the method's Config, on top of its defaults
    data: str  # a name of rushes.data
    root: str = "."  # folder of the data
    protocol: str | None = None  # None: the data's default
    features: str | None = None  # folder where the backbone's features are kept; None: `.rushes-features` in the root
    backbone: str = "small"  # an installed model, a folder or a hub id; its method, if it has one, is not used
    end_to_end: bool = False  # the backbone learns too, from decoded frames; False: from its features, computed once

    epochs: int = 5  # the family's (CLIP4Clip, X-CLIP, DRL) for one of captions on MSR-VTT
    epoch_of: Literal["videos", "captions"] = "videos"  # each once, in another order every epoch
    captions: int = 1  # drawn for each video where an epoch goes through videos
    batch: int = 128  # videos or captions a step, all processes together
    micro: int | None = None  # texts or videos encoded at a time by each process: gradient caching; None: all at once
    frames: int = 12  # of a video, at most
    words: int = 32  # tokens of a text, at most; the sentence's own feature has seen them all
    draw: bool = True  # frames are drawn, one of each equal share of a video; False: its middle, as in evaluation

    rate: float = 1e-4  # of new modules, at its highest; the family's
    backbone_rate: float = 1e-6  # of the backbone; the family has 1e-7 for fp16 weights and Adam without correction
    decay: float = 0.2  # AdamW's, none on biases, norms and scalars; the family's
    warmup: float = 0.1  # share of all steps
    clip: float = 1.0  # norm of all gradients, at most
    precision: Literal["no", "fp16", "bf16"] = "no"  # of the backbone's arithmetic; weights, scores, losses are fp32

    select: Literal["last", "best"] = "last"  # which weights are the result: the last, or the best epoch's on "val"
    metric: str = "t2v MRR"  # what "best" looks at: R@1 of a few hundred queries moves by luck, MRR less
    seed: int = 0
    smoke: bool = False  # a few videos and steps

    workers: int = 2  # videos decoded at a time, in end-to-end training
    tracker: str = "tensorboard"  # or another one of Accelerate's, or "none"
    save_every: int = 500  # steps between checkpoints; there is one of the best epoch and of the last step besides

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "captions", "frames", "words", "workers", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.micro is not None and self.micro < 1:
            raise ValueError(f"micro is {self.micro}; give 1 or more, or None to encode all at once")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}; give a share of all steps, from 0 to below 1")
        for name, kind in get_type_hints(Run).items():
            if (known := get_args(kind)) and isinstance(known[0], str) and getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; give {' or '.join(known)}")
        if self.metric not in metrics():
            raise ValueError(f"metric is {self.metric!r}; there are {', '.join(metrics())}")
        if self.epoch_of == "captions" and self.captions != 1:
            raise ValueError(
                f"captions={self.captions} of each video, but an epoch goes through captions; leave it at 1"
            )

    def method_class(self) -> type[Method]:
        return registry.find("methods", self.method, Method)

    def config(self) -> Any:
        """The method's configuration. TypeError for a switch that it does not have."""
        return self.method_class().configured(**self.switches)

    def whole(self) -> Run:
        """The same run with every switch of the method said."""
        return replace(self, switches=asdict(self.config()))

    def small(self) -> Run:
        """The same path through everything in seconds: what `--smoke` runs."""
        batch = min(self.batch, 8)
        return replace(
            self, smoke=True, epochs=2, batch=batch, micro=max(1, batch // 2), frames=min(self.frames, 4), save_every=2
        )

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return json.loads(json.dumps(asdict(self)))

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Run:
        known = {one.name for one in fields(Run)}
        if unknown := sorted(set(plain) - known):
            raise ValueError(f"a run has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        return Run(**plain)

    def save(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(json.dumps(self.plain(), indent=2) + "\n")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Run:
        return Run.of(json.loads(Path(path).read_text()))


def metrics() -> list[str]:
    """What a model can be chosen by, or is measured by on the way: direction and name.

    >>> metrics()[:2], "v2t MRR" in metrics()
    (['t2v R@1', 't2v R@5'], True)
    """
    return [f"{direction} {name}" for direction in ("t2v", "v2t") for name in METRICS]


def differences(run: Run, other: Mapping[str, Any]) -> list[str]:
    """In what the run differs from one that was saved, places left aside: "seed 0, was 1"."""
    mine = run.plain()
    names = [name for name in mine if name not in PLACES and mine[name] != other.get(name)]
    return [f"{name} {mine[name]!r}, was {other.get(name)!r}" for name in names]
