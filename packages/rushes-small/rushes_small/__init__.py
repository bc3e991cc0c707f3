"""Tells Rushes where the files of its embedded model lie."""

from pathlib import Path


def folder() -> Path:
    """The folder with config.json, model.safetensors, tokenizer.json and the model card."""
    return Path(__file__).parent / "model"
