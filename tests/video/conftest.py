"""Films that several tests read, made once a session."""

import subprocess
import sys

import pytest

from tests.video.films import film


@pytest.fixture(scope="session")
def films(tmp_path_factory):
    """`films("name.mp4", frames=90, ...)`: the film's path; the same arguments give the same file."""
    folder = tmp_path_factory.mktemp("films")
    made = {}

    def get(name, **how):
        key = (name, repr({**how, **{part: getattr(how[part], "__qualname__", how[part]) for part in how}}))
        if key not in made:
            place = folder / str(len(made))
            place.mkdir()
            made[key] = film(place / name, **how)
        return made[key]

    return get


@pytest.fixture(scope="session")
def landlock():
    """Skips where the kernel does not know Landlock; tried in a process of its own, because there is no way back."""
    code = "from rushes.video.sandbox import confine; print(confine(None))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    if "True" not in told:
        pytest.skip("this kernel has no Landlock")
