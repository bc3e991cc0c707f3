"""A model is a backbone and a method: pixels and words in, scores out, a folder on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rushes import registry
from rushes.backbones.base import Backbone, Frames, Words
from rushes.methods.base import Method
from rushes.types import Tokens

FORMAT = 1  # of the saved folder; raise it when an older reader would go wrong


class Model(nn.Module):
    """A backbone with a method on top, under the name it was loaded by."""

    def __init__(self, backbone: Backbone, method: Method, name: str = "unsaved", folder: Path | None = None):
        super().__init__()
        if backbone.dim != method.dim:
            raise ValueError(f"the backbone gives {backbone.dim} numbers a token, the method takes {method.dim}")
        self.backbone = backbone
        self.method = method
        self.name = name
        self.folder = folder  # where it was loaded from and where what belongs to it lies; None for one of a hub

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def method_name(self) -> str:
        return _registered(self.method)

    def digest(self) -> str:
        """128 bits over every tensor's name, shape and first values: tells other weights in milliseconds."""
        digest = hashlib.blake2b(digest_size=16)
        for name, tensor in sorted(self.state_dict().items()):
            sample = tensor.detach().flatten()[:1024].cpu()
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(sample.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tokens:
        """Tokens of texts, ready to be scored or stored."""
        return self.method.encode_text(self.words(texts))

    @torch.inference_mode()
    def words(self, texts: Sequence[str]) -> Words:
        """The backbone's features of texts, and which words are content words where the method asks for it."""
        return self.backbone.read(texts, self.method.tagger)

    @torch.inference_mode()
    def frames(self, pixels: UInt8[Tensor, "frame 3 height width"]) -> Float[Tensor, "frame dim"]:
        """The backbone's feature of each frame."""
        return self.backbone.frames(pixels.to(self.device))

    @torch.inference_mode()
    def videos(self, frames: Frames) -> Tokens:
        """Tokens of videos whose frame features are known."""
        return self.method.encode_video(frames)

    def save(self, folder: str | os.PathLike[str], *, half: bool = False) -> None:
        """Write config.json and model.safetensors (and the backbone's own files) into `folder`.

        `half` stores fp16 weights, exact to 3 digits; otherwise save and load is bit-exact.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        self.backbone.assets(str(target))
        weights = {name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}
        if half:
            weights = {name: w.half() if w.is_floating_point() else w for name, w in weights.items()}
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
        (target / "model.safetensors").chmod(0o644)  # it is made readable by its owner alone
        config = {
            "rushes": FORMAT,
            "backbone": {"name": _registered(self.backbone), "config": self.backbone.settings()},
            "method": {"name": _registered(self.method), "config": self.method.settings()},
        }
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load(name: str | os.PathLike[str], device: str = "cpu") -> Model:
    """A model by name ("small"), by folder, or a CLIP or SigLIP checkpoint by hub id.

    A checkpoint that is not ours comes with mean pooling, the method that needs no training.
    LookupError says what there is; no pickle is ever read.
    """
    known = {point.name: point for point in entry_points(group="rushes.models")}
    key = os.fspath(name)
    folder = Path(known[key].load()()) if key in known else Path(key)
    config = _config(folder)
    if config is None:
        if not folder.is_dir() and "/" not in key:
            hint = "; `pip install ./packages/rushes-small` installs it" if key == "small" else ""
            have = ", ".join(sorted(known)) or "none"
            raise LookupError(f"no model {key!r}: installed models are {have}; or give a folder or a hub id{hint}")
        return _from_checkpoint(key, device)
    if config["rushes"] > FORMAT:
        raise ValueError(f"{folder} has model format {config['rushes']}, this Rushes reads {FORMAT}; update Rushes")
    backbone_class = registry.find("backbones", config["backbone"]["name"], Backbone)
    method_class = registry.find("methods", config["method"]["name"], Method)
    backbone = backbone_class.build(config["backbone"]["config"], str(folder))
    switches = method_class.configured(**config["method"]["config"])
    method = method_class(backbone.dim, switches)  # pyright: ignore[reportAbstractUsage]  find gives complete ones
    model = Model(backbone, method, name=key, folder=folder)
    weights = load_file(folder / "model.safetensors")
    wanted = model.state_dict()
    model.load_state_dict(
        {name: tensor.to(wanted[name].dtype) if name in wanted else tensor for name, tensor in weights.items()}
    )
    return model.to(device).eval()


def installed() -> dict[str, Path]:
    """Installed models and their folders."""
    return {point.name: Path(point.load()()) for point in entry_points(group="rushes.models")}


def _config(folder: Path) -> dict[str, Any] | None:
    file = folder / "config.json"
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON ({error}); save the model again") from error
    return config if "rushes" in config else None


def _from_checkpoint(key: str, device: str) -> Model:
    from rushes.backbones.clip import Clip
    from rushes.methods.meanpool import MeanPool

    backbone = Clip.pretrained(key)
    folder = Path(key) if Path(key).is_dir() else None
    return Model(backbone, MeanPool(backbone.dim), name=key, folder=folder).to(device).eval()


def _registered(part: nn.Module) -> str:
    """The name by which the registry finds a part again: its file in ours, or its path."""
    module = type(part).__module__
    if module.startswith(("rushes.backbones.", "rushes.methods.")):
        return module.rsplit(".", 1)[1]
    import inspect

    return str(Path(inspect.getfile(type(part))).resolve())
