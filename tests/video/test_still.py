"""A picture file gives upright pixels of the size asked for; anything else says why not."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from rushes.video.probe import VideoError
from rushes.video.still import still


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Red in the upper left quarter of 100 x 60 pixels, grey elsewhere."""
    pixels = np.full((60, 100, 3), 120, np.uint8)
    pixels[:30, :50] = (255, 0, 0)
    return pixels


def red(pixels: np.ndarray, x: float, y: float) -> bool:
    """Whether the place, in shares of width and height, is red."""
    r, g, b = pixels[int(y * pixels.shape[0]), int(x * pixels.shape[1])].astype(int)
    return r > 200 and g < 80 and b < 80


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tiff", "gif", "avif"])
def test_every_kind_of_picture(drawn, tmp_path, ending):
    file = tmp_path / f"a picture %03d.{ending}"  # a name that FFmpeg would take for a sequence of files
    Image.fromarray(drawn).save(file)
    pixels = still(file, size=64, squash=False)
    assert pixels.shape == (64, 107, 3)
    assert red(pixels, 0.2, 0.2)
    assert not red(pixels, 0.8, 0.2)
    assert not red(pixels, 0.2, 0.8)
    assert still(file, size=48).shape == (48, 48, 3)


def test_a_name_does_not_matter(drawn, tmp_path):
    Image.fromarray(drawn).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.txt")
    assert red(still(tmp_path / "a.txt", size=32), 0.2, 0.2)


@pytest.mark.parametrize(("orientation", "place"), [(1, (0.2, 0.2)), (3, (0.8, 0.8)), (6, (0.8, 0.2)), (8, (0.2, 0.8))])
def test_a_photograph_is_upright(drawn, tmp_path, orientation, place):
    """Cameras store pixels as the sensor lay, and a number that says how to turn them."""
    marks = Image.Exif()
    marks[274] = orientation
    Image.fromarray(drawn).save(tmp_path / "turned.jpg", exif=marks, quality=95)
    pixels = still(tmp_path / "turned.jpg", size=60, squash=False)
    assert pixels.shape[:2] == ((60, 100) if orientation in (1, 3) else (100, 60))
    assert red(pixels, *place)


def test_transparency_and_grey(tmp_path):
    Image.fromarray(np.full((20, 30), 77, np.uint8)).save(tmp_path / "grey.png")
    assert np.abs(still(tmp_path / "grey.png", size=20).astype(int) - 77).max() <= 3
    Image.new("RGBA", (20, 30), (10, 200, 10, 128)).save(tmp_path / "clear.png")
    assert still(tmp_path / "clear.png", size=20).shape == (20, 20, 3)


def test_a_video_gives_its_first_frame(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        stream = output.add_stream("h264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for level in (200, 100, 0):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert abs(float(still(tmp_path / "a.mp4", size=32).mean()) - 200) < 8


def test_the_same_pixels_as_another_decoder(drawn, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(picture).save(tmp_path / "a.png")
    want = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(still(tmp_path / "a.png", size=64).astype(int) - want).mean() < 3


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"just text", "not-a-video"),
        (b"\xff\xd8\xff\xe0 and no more", "no-frames"),
        (b"\x89PNG\r\n\x1a\n and no more", "no-frames"),
        (None, "missing"),
    ],
)
def test_what_is_no_picture(tmp_path, content, code):
    file = tmp_path / "a.jpg"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.jpg") as caught:
        still(file)
    assert caught.value.code == code


def test_a_playlist_reads_nothing(tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "a.png").write_text("#EXTM3U\n#EXTINF:1,\nsecret.png\n")
    with pytest.raises(VideoError):
        still(tmp_path / "a.png")
