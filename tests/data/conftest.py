"""The published annotations, where they lie beside the checkout, and benchmarks of the same layout in small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ANNOTATIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "annotations"


@pytest.fixture
def published(request) -> Path:
    """The folder of published annotations that the test's file is named after."""
    name = Path(request.node.fspath).stem.removeprefix("test_")
    folder = ANNOTATIONS / name
    if not folder.is_dir():
        pytest.skip(f"the published annotations of {name} are not at {folder}")
    return folder


@pytest.fixture
def msrvtt_folder(tmp_path) -> Path:
    """MSR-VTT in small: six training videos (two of one source), one to validate, three to test, two captions each."""
    videos, sentences = [], []
    for number in range(10):
        split = "train" if number < 6 else "validate" if number == 6 else "test"
        url = f"https://videos.example/{max(number, 1)}"
        videos.append({"video_id": f"video{number}", "split": split, "url": url, "start time": 1.0, "end time": 9.5})
        sentences += [
            {"video_id": f"video{number}", "sen_id": 2 * number + one, "caption": f"caption {one} of {number}"}
            for one in (1, 0)
        ]
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(
        'key,vid_key,video_id,sentence\nret0,msr8,video8,"a dog, running"\nret1,msr9,video9,a cat\n'
    )
    (tmp_path / "MSRVTT_train.9k.csv").write_text("video_id\n" + "".join(f"video{n}\n" for n in range(8)))
    (tmp_path / "MSRVTT_train.7k.csv").write_text("video_id\n" + "".join(f"video{n}\n" for n in range(7)))
    return tmp_path
