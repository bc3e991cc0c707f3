"""The date that a container tells, where it tells a true one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import av
import numpy as np
import pytest

from rushes.video.probe import VideoError
from rushes.video.recorded import recorded, understood
from rushes.video.worker import Decoder


def film(path: Path, **told: str) -> Path:
    options = {"movflags": "use_metadata_tags"} if path.suffix in (".mov", ".mp4") else {}
    with av.open(str(path), "w", options=options) as output:
        output.metadata.update({name.replace("__", "."): value for name, value in told.items()})
        stream = output.add_stream("h264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_a_camera_s_date(tmp_path, ending):
    moment = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
    file = film(tmp_path / f"a.{ending}", creation_time=moment.isoformat())
    with Decoder() as decoder:
        assert decoder.recorded(file) == recorded(file) == moment.timestamp()


def test_apple_s_date_with_its_zone_goes_before(tmp_path):
    file = film(
        tmp_path / "a.mov",
        creation_time="2025-01-01T00:00:00Z",
        com__apple__quicktime__creationdate="2024-05-01T14:30:00+0200",
    )
    assert recorded(file) == datetime(2024, 5, 1, 12, 30, tzinfo=UTC).timestamp()


def test_none_where_none_is_told(tmp_path):
    with Decoder() as decoder:
        assert decoder.recorded(film(tmp_path / "a.mp4")) is None
        assert decoder.recorded(film(tmp_path / "b.avi")) is None
        (tmp_path / "c.mp4").write_text("no video")
        with pytest.raises(VideoError) as caught:
            decoder.recorded(tmp_path / "c.mp4")
        assert caught.value.code == "not-a-video"
        assert decoder.recorded(film(tmp_path / "d.mp4", creation_time="2024-05-01T12:00:00Z")) == 1714564800.0
        assert len(list(decoder.read(tmp_path / "d.mp4", size=32))) > 0  # and goes on to read


@pytest.mark.parametrize(
    "told", [None, "", "yesterday", "1904-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2999-01-01T00:00:00Z"]
)
def test_what_is_no_date(told):
    assert understood(told) is None


def test_zones():
    assert understood("2024-05-01T12:00:00Z") == understood("2024-05-01 12:00:00") == 1714564800.0
    assert understood("2024-05-01T14:00:00+02:00") == 1714564800.0
    assert understood(datetime.now(UTC).isoformat()) is not None
    assert understood((datetime.now(UTC) + timedelta(days=9)).isoformat()) is None
