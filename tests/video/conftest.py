"""Films that several tests read, made once a session."""

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
