"""What is written beside a trained model: its run, its history, and a card that tells both to a reader."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rushes.train.material import Material
from rushes.train.run import Run

SHOWN = ("t2v R@1", "t2v R@5", "t2v R@10", "t2v MdR", "v2t R@1", "v2t MdR")


def write(folder: Path, run: Run, state: dict[str, Any], material: Material) -> None:
    """run.json, history.json and README.md of a finished run."""
    run.save(folder / "run.json")
    result = {"selected": selected(run, state), "data": state["data"], "history": state["history"]}
    (folder / "history.json").write_text(json.dumps(result, indent=2) + "\n")
    (folder / "README.md").write_text(card(run, state, material))


def selected(run: Run, state: dict[str, Any]) -> dict[str, Any]:
    """The epoch whose weights these are, and its losses and numbers."""
    history = state["history"]
    if run.select == "last":
        return history[-1]
    return next(entry for entry in history if entry["step"] == state["best"]["step"])


def card(run: Run, state: dict[str, Any], material: Material) -> str:
    chosen, train = selected(run, state), material.train.split
    rule = "the last epoch's weights" if run.select == "last" else f"the epoch with the best {run.metric} on `val`"
    unseen = "" if run.smoke else " The test set was not looked at."
    lines = [
        f"# {run.method} on {run.data}",
        "",
        "A smoke run on a few videos: it shows that training runs, and has learnt nothing." if run.smoke else "",
        f"Trained by Rushes {version('rushes')}, seed {run.seed}; run.json has each choice, `history.json` each epoch.",
        "",
        f"- **Data**: {run.data}, protocol {run.protocol or 'default'}, {len(train.videos):,} videos and "
        f"{len(train.captions):,} captions; digest of what was trained and chosen on: {state['data']}.",
        f"- **Backbone**: {run.backbone}, {'trained too' if run.end_to_end else 'as it came'}; at most {run.frames} "
        f"frames and {run.words} words.",
        f"- **Selection**: {rule} (epoch {chosen['epoch'] + 1} of {run.epochs}).{unseen}",
        *(f"- **Note**: {note}." for note in material.notes),
    ]
    if "val" in chosen:
        numbers = [name for name in SHOWN if name in chosen["val"]]
        held = material.val.split if material.val else train
        lines += [
            "",
            f"On `val`, {len(held.captions):,} captions and {len(held.videos):,} videos"
            f"{'' if run.select == 'last' else ', which it was chosen on, so these flatter it'}:",
            "",
            "| " + " | ".join(numbers) + " |",
            "|" + "---|" * len(numbers),
            "| " + " | ".join(f"{chosen['val'][name]:.1f}" for name in numbers) + " |",
        ]
    return "\n".join(line for number, line in enumerate(lines) if line or lines[number - 1]) + "\n"
