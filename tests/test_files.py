"""Reading files within limits."""

import tracemalloc
from pathlib import Path

import pytest

from pairmatch.io.files import read_file


def test_files_are_read_up_to_a_limit(tmp_path):
    path = tmp_path / "x"
    for content in (b"", b"a", bytes(range(256)) * 400):
        path.write_bytes(content)
        assert read_file(path, most_bytes=len(content)) == content
        if content:
            with pytest.raises(OSError, match=rf"more than {len(content) - 1:,}"):
                read_file(path, most_bytes=len(content) - 1)


def test_a_high_limit_takes_no_memory(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"short")
    tracemalloc.start()
    read_file(path, most_bytes=2**32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_file_may_be_longer_than_its_size_says():
    path = Path("/proc/self/smaps")  # regular, of size 0
    if not path.is_file():
        pytest.skip("needs /proc")
    assert len(read_file(path, most_bytes=10**8)) > 100_000
    with pytest.raises(OSError, match=r"more than 1,000"):
        read_file(path, most_bytes=1000)
