"""Where Ray keeps its sockets: never a path that is too long, never a traceback."""

from collections import namedtuple
from pathlib import Path

import pytest

from launcher.cluster import ray_folder
from launcher.cluster.ray_folder import choose_ray_folder
from sft.errors import UserError


def test_a_short_folder_with_room_is_taken_as_ray_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/var/tmp")
    assert choose_ray_folder() == "/var/tmp/ray"


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_path_too_long_for_sockets_is_passed_over(
    variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setenv(variable, str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    folder = choose_ray_folder()
    assert not folder.startswith(str(tmp_path))
    assert len(folder + ray_folder.LONGEST_BELOW) <= ray_folder.SOCKET_BYTES


def test_where_none_will_do_each_is_told_with_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(ray_folder.shutil, "disk_usage", lambda path: usage(10, 8, 2))
    with pytest.raises(UserError) as refused:
        choose_ray_folder()
    text = str(refused.value)
    assert "/proc/ray: it cannot be written" in text
    assert "/tmp/ray: only 2 bytes are left" in text
    assert "set TMPDIR to a short path on a disk with room" in text
