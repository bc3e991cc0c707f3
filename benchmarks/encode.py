"""How many frames a second does Small encode beside CLIP ViT-B/32, on this machine, in this run?

    python benchmarks/encode.py [--threads 2] [--seconds 3]

CLIP has random weights, which changes nothing of its speed. Both see uint8 pixels already decoded to their input size
and in memory; both run in fp32, eagerly, in turns, so that a busy machine slows both. The ratio is the claim, the
frames a second are not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from rushes.model import load


def clip() -> Callable[[Tensor], Tensor]:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    shape = CLIPVisionConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        patch_size=32,
        image_size=224,
        projection_dim=512,
        attn_implementation="sdpa",
    )
    model = CLIPVisionModelWithProjection(shape).eval()
    mean = torch.tensor([0.481, 0.458, 0.408])[:, None, None]
    deviation = torch.tensor([0.269, 0.261, 0.276])[:, None, None]
    return lambda pixels: model(pixel_values=(pixels.float() / 255 - mean) / deviation).image_embeds


def seconds(encode: Callable[[Tensor], Tensor], pixels: Tensor) -> float:
    start = time.perf_counter()
    encode(pixels)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="for CLIP, at each batch size")
    parser.add_argument("--model", default="small")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    reference, small = clip(), load(options.model)
    with torch.inference_mode():
        for batch in (1, 8, 32):
            pixels = torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8)
            seconds(reference, pixels), seconds(small.frames, pixels)  # the first call of each prepares its kernels
            theirs: list[float] = []
            ours: list[float] = []
            while sum(theirs) < options.seconds or len(theirs) < 3:
                theirs.append(seconds(reference, pixels))
                ours.append(seconds(small.frames, pixels))
            ratio = median(a / b for a, b in zip(theirs, ours, strict=True))
            print(
                f"batch {batch:2}: CLIP ViT-B/32 {batch / median(theirs):6.1f} frames/s, "
                f"small {batch / median(ours):6.1f} frames/s, {ratio:.2f} times ({len(theirs)} turns)"
            )


if __name__ == "__main__":
    main()
