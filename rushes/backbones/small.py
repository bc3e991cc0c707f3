"""Small, the embedded default: EfficientNet-Lite2 sees, MiniLM-L6 reads, trained heads bring both into one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int, UInt8
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import conv2d, hardtanh_, interpolate, pad

from rushes.backbones.base import Backbone, TextBatch, Words, checked_texts
from rushes.similarity import masked_mean

# EfficientNet-Lite2 (Tan and Le 2019, width 1.1, depth 1.2, no squeeze-and-excite, ReLU6): one row a stage,
# (blocks, kernel, stride of the first, expansion, channels out)
STAGES = (
    (1, 3, 1, 1, 16),
    (3, 3, 2, 6, 24),
    (3, 5, 2, 6, 48),
    (4, 3, 2, 6, 88),
    (4, 5, 1, 6, 120),
    (5, 5, 2, 6, 208),
    (1, 3, 1, 6, 352),
)
STEM, TOP = 32, 1280  # channels after the first and the last convolution

# MiniLM-L6-H384 (Wang et al. 2020): a BERT of six post-norm layers
VOCABULARY, WIDTH, HEADS, LAYERS = 30522, 384, 12, 6


class Small(Backbone):
    """A dual encoder of 28 million weights for a laptop without a GPU or a network.

    Frames are squashed whole into the square, never cropped: what stands at the edge is seen. A frame's feature is

        f = W mean_p x_p + b

    over the positions p of the last convolution's map (learnt attention over positions overfits 6,000 photos). Every
    word token, [CLS] and [SEP] too, has a contextual feature; the sentence has its own head on their mean. None of
    them is normalised.

    The weights hold no batch norm: it is folded into the convolutions (`fold`) before training.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Backbone.Config):
        dim: int = 256  # of the shared space; 384 and 512 were no better on dev, see LOG 2026-11-21
        image_size: int = 224  # pixels; Lite2 was trained at 260, which costs 1.4 times the time
        max_words: int = 128  # of MiniLM's 512 positions; trained on captions of up to 40
        dropout: float = 0.1  # in training only; MiniLM's own

    squash = True

    def __init__(self, tokenizer: Tokenizer, config: Config | None = None):
        super().__init__()
        self.config = config if config is not None else Small.Config()
        self.dim, self.image_size = self.config.dim, self.config.image_size
        self.max_words = self.config.max_words
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.max_words)
        # channels last: 2.5 times the frames a second of the default layout on a CPU (benchmarks/encode.py)
        self.vision: nn.Sequential = lite2().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.text = MiniLM(self.config.max_words, self.config.dropout)
        self.frame_head = nn.Linear(TOP, self.dim)
        self.word_head = nn.Linear(WIDTH, self.dim)
        self.sentence_head = nn.Linear(WIDTH, self.dim)

    @classmethod
    def build(cls, config: dict[str, Any], folder: str | None) -> Small:
        if folder is None:
            raise ValueError("the backbone 'small' needs the folder with its tokenizer.json; give the model's folder")
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise ValueError(f"{file} is missing; save the model again, or install packages/rushes-small again")
        return cls(Tokenizer.from_file(str(file)), cls.Config(**config))

    def assets(self, folder: str) -> None:
        self.tokenizer.save(str(Path(folder) / "tokenizer.json"), pretty=False)

    def tokenize(self, texts: Sequence[str]) -> TextBatch:
        """Lower-case word pieces between [CLS] and [SEP]; a text of more than `max_words` of them loses its end."""
        encoded = self.tokenizer.encode_batch(checked_texts(texts))
        ids, offsets = (
            nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
            for rows in ([text.ids for text in encoded], [text.offsets for text in encoded])
        )
        counts = torch.tensor([len(text.ids) for text in encoded])
        return TextBatch(ids, torch.arange(ids.shape[1]) < counts[:, None], offsets)

    def words(self, batch: TextBatch) -> Words:
        return self.words_of(self.text(batch.ids, batch.mask), batch.mask)

    def words_of(self, hidden: Float[Tensor, "text word width"], mask: Bool[Tensor, "text word"]) -> Words:
        """The heads alone, on what the text tower says of each token."""
        return Words(self.word_head(hidden), mask, self.sentence_head(masked_mean(hidden, mask)))

    def frames(self, pixels: UInt8[Tensor, "frame 3 height width"]) -> Float[Tensor, "frame dim"]:
        if len(pixels) == 0:
            return self.frame_head.weight.new_zeros(0, self.dim)
        # 8 at a time on a CPU: the widest maps of 8 frames stay in its cache, and any batch costs the same memory
        parts = pixels.split(8 if pixels.device.type == "cpu" else 256)
        return torch.cat([self.frames_of(self.vision(squashed(part, self.image_size))) for part in parts])

    def frames_of(self, maps: Float[Tensor, "frame channel row column"]) -> Float[Tensor, "frame dim"]:
        """The head alone, on the vision tower's last map."""
        return self.frame_head(reduce(maps, "frame channel row column -> frame channel", "mean"))


def squashed(pixels: UInt8[Tensor, "frame 3 height width"], size: int) -> Float[Tensor, "frame 3 size size"]:
    """The whole frame squeezed into a square, bicubic with antialias, on the scale EfficientNet-Lite was trained with.

        x = (pixel - 127) / 128

    >>> squashed(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), 8)[0, 0, 0, 0]
    tensor(1.)
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise ValueError(f"expected uint8 pixels [frame 3 height width], got {pixels.dtype} {tuple(pixels.shape)}")
    image = pixels.contiguous(memory_format=torch.channels_last).float()
    if image.shape[2:] != (size, size):
        image = interpolate(image, (size, size), mode="bicubic", antialias=True).clamp(0, 255)
    return (image - 127) / 128


def lite2() -> nn.Sequential:
    """EfficientNet-Lite2 without its classifier: stem, 21 blocks, top. A slice of it is a part of the tower."""
    parts: list[nn.Module] = [Conv(3, STEM, kernel=3, stride=2)]
    channels = STEM
    for blocks, kernel, stride, expansion, out in STAGES:
        for block in range(blocks):
            parts.append(Block(channels, out, kernel, stride if block == 0 else 1, expansion))
            channels = out
    return nn.Sequential(*parts, Conv(channels, TOP))


class Conv(nn.Module):
    """A convolution with bias and ReLU6, padded as TensorFlow pads ("same"), where these weights come from.

    At stride 2 that is one more pixel after than before on even sizes; torch's own symmetric padding would shift every
    map by half a step, and cost the ImageNet weights some of their accuracy.
    """

    def __init__(self, into: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, clip: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride, groups=groups)
        self.clip = clip

    def forward(self, maps: Float[Tensor, "frame into height width"]) -> Float[Tensor, "frame out row column"]:
        conv, kernel, stride = self.conv, self.conv.kernel_size[0], self.conv.stride[0]
        around: int = kernel // 2
        if stride > 1:
            before, after = zip(*(same_padding(side, kernel, stride) for side in maps.shape[2:]), strict=True)
            maps, around = pad(maps, (before[1], after[1], before[0], after[0])), 0
        maps = conv2d(maps, conv.weight, conv.bias, stride, around, 1, conv.groups)
        return hardtanh_(maps, 0.0, 6.0) if self.clip else maps  # in place: the tower is bound by memory, not by sums


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after, such that ceil(side / stride) outputs see the input from its start.

    >>> same_padding(224, 3, 2), same_padding(65, 3, 2), same_padding(56, 5, 2)
    ((0, 1), (1, 1), (1, 2))
    """
    missing = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return missing // 2, missing - missing // 2


class Block(nn.Module):
    """An inverted bottleneck: widen, look around channel by channel, narrow; added to its input where shapes allow."""

    def __init__(self, into: int, out: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = into * expansion
        self.expand = Conv(into, wide) if expansion > 1 else nn.Identity()
        self.depthwise = Conv(wide, wide, kernel, stride, groups=wide)
        self.project = Conv(wide, out, clip=False)
        self.adds = stride == 1 and into == out

    def forward(self, maps: Float[Tensor, "frame into height width"]) -> Float[Tensor, "frame out row column"]:
        seen = self.project(self.depthwise(self.expand(maps)))
        return maps + seen if self.adds else seen


def fold(
    weight: Float[Tensor, "out into row column"],
    gain: Float[Tensor, "out"],
    shift: Float[Tensor, "out"],
    mean: Float[Tensor, "out"],
    variance: Float[Tensor, "out"],
    epsilon: float = 1e-3,  # TensorFlow's for these weights, not torch's 1e-5
) -> tuple[Float[Tensor, "out into row column"], Float[Tensor, "out"]]:
    """A convolution without bias and the batch norm after it as one convolution: its weight and bias.

        w' = w g / sqrt(var + eps)        b' = shift - mean g / sqrt(var + eps)

    >>> one = torch.ones(1)
    >>> fold(torch.ones(1, 1, 1, 1), gain=4 * one, shift=one, mean=3 * one, variance=4 * one, epsilon=0)[1]
    tensor([-5.])
    """
    slope = gain.double() / (variance.double() + epsilon).sqrt()
    return (weight.double() * slope[:, None, None, None]).float(), (shift.double() - mean.double() * slope).float()


class MiniLM(nn.Module):
    """The text tower: what each token means among its neighbours. Token types are folded into the positions."""

    def __init__(self, max_words: int, dropout: float):
        super().__init__()
        self.word = nn.Embedding(VOCABULARY, WIDTH)
        self.position = nn.Embedding(max_words, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.dropout = nn.Dropout(dropout)
        # a post-norm layer of torch with exact GELU is a BERT layer (tests compare them), and torch is here already
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout, "gelu", 1e-12, batch_first=True)
            for _ in range(LAYERS)
        )

    def forward(
        self, ids: Int[Tensor, "text word"], mask: Bool[Tensor, "text word"]
    ) -> Float[Tensor, "text word width"]:
        return self.through(self.embedded(ids), mask)

    def embedded(self, ids: Int[Tensor, "text word"]) -> Float[Tensor, "text word width"]:
        return self.dropout(self.norm(self.word(ids) + self.position.weight[: ids.shape[1]]))

    def through(
        self,
        hidden: Float[Tensor, "text word width"],
        mask: Bool[Tensor, "text word"],
        first: int = 0,
        last: int = LAYERS,
    ) -> Float[Tensor, "text word width"]:
        """Layers `first` to before `last`: training keeps what the lower ones say and repeats the upper ones."""
        for layer in self.layers[first:last]:
            hidden = layer(hidden, src_key_padding_mask=~mask)
        return hidden
