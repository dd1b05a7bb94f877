"""Photos in cloud storage: by URL, inside the image folder, and with the keys of local files."""

import gzip
import io
import os
import signal
import sys
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pairmatch import Pairs, Profile
from pairmatch.backbones.descriptor import DescriptorBackbone
from pairmatch.core.errors import ConfigurationError, DataError, ImageError, MissingExtraError
from pairmatch.data import read_profiles
from pairmatch.distributed.parts import sent_images
from pairmatch.features.extractor import FeatureStore
from pairmatch.features.poolers import NativePooler
from pairmatch.io.images import check_image, image_digest, image_size, load_image, pixels_digest
from pairmatch.io.remote import joined_url, remote_url


def png(seed):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def bucket():
    """A folder of photos in memory, as fsspec keeps it."""
    storage = fsspec.filesystem("memory")
    for number in range(4):
        storage.pipe(f"/bucket/photos/{number}.png", png(number))
    storage.pipe("/bucket/private.png", png(9))
    yield "memory://bucket/photos"
    storage.rm("/bucket", recursive=True)


def table(folder, rows):
    path = folder / "pairs.csv"
    path.write_text("\n".join(["id_a,image_a,id_b,image_b", *rows]) + "\n")
    return path


def test_a_url_is_read_and_keyed_like_its_bytes(bucket, tmp_path):
    url, content = f"{bucket}/0.png", png(0)
    assert image_digest(url) == image_digest(content)
    assert pixels_digest(url) == pixels_digest(content)
    assert image_size(url) == (30, 20)
    assert load_image(url).tobytes() == load_image(content).tobytes()
    store = FeatureStore(tmp_path / "store.sqlite")
    store.extract([Profile("here", (content,))], DescriptorBackbone(), [NativePooler()])
    plan = store.plan([Profile("there", (url,))], DescriptorBackbone(), [NativePooler()])
    assert plan.stored == 1


def test_tables_name_photos_below_the_url_of_the_image_folder(bucket, tmp_path):
    path = table(tmp_path, ["a,0.png,b,1.png", f"c,{bucket}/2.png,d,3.png;0.png"])
    pairs = Pairs.read(path, images=bucket)
    assert [len(person.images) for person in pairs.people] == [1, 1, 1, 2]
    assert pairs.profiles["c"].images == (f"{bucket}/2.png",)
    # The command line passes a Path, in which `//` has become `/`
    assert Pairs.read(path, images=Path(bucket)).profiles.keys() == pairs.profiles.keys()


def test_files_are_read_by_url_too(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(2):
        (tmp_path / "photos" / f"{number}.png").write_bytes(png(number))
    pairs = Pairs.read(table(tmp_path, ["a,0.png,b,1.png"]), images=f"file://{tmp_path}/photos")
    assert pairs.profiles["a"].images == (f"file://{tmp_path}/photos/0.png",)
    here = f"file://localhost{tmp_path}/photos/0.png"
    assert image_digest(here) == image_digest(tmp_path / "photos" / "0.png")


@pytest.mark.parametrize(
    "name",
    [
        "../private.png",
        "memory://bucket/private.png",
        "memory://bucket/photos/../private.png",
        "memory://bucket/photos-of-others/0.png",
        "/bucket/private.png",
        "s3://other/0.png",
        "0.png::memory://bucket/private.png",
        "file:///etc/hostname",
    ],
)
def test_no_cell_leaves_the_image_folder(name, bucket, tmp_path):
    with pytest.raises(DataError, match=r"line 2, column image_b.*leaves the image folder memory"):
        Pairs.read(table(tmp_path, [f"a,0.png,b,{name}"]), images=bucket)


def test_a_url_in_a_table_needs_the_url_of_its_folder(bucket, tmp_path):
    path = table(tmp_path, [f"a,{bucket}/0.png,b,{bucket}/1.png"])
    with pytest.raises(DataError, match="name the URL of the folder with `images`"):
        Pairs.read(path)
    with pytest.raises(ConfigurationError, match="is a web address"):
        Pairs.read(path, images="https://example.org/photos")


def test_photos_that_cannot_be_read_are_named_with_their_cell(bucket, tmp_path, monkeypatch):
    fsspec.filesystem("memory").pipe("/bucket/photos/broken.png", b"no photo")
    with pytest.raises(DataError) as error:
        Pairs.read(table(tmp_path, ["a,gone.png,b,broken.png"]), images=bucket)
    assert f"column image_a: {bucket}/gone.png: the file does not exist" in str(error.value)
    assert f"column image_b: {bucket}/broken.png: not a photo" in str(error.value)
    monkeypatch.setattr("pairmatch.io.images.MAX_FILE_BYTES", 100)
    assert "more than 100 bytes" in check_image(f"{bucket}/0.png")
    with pytest.raises(ImageError, match="must not hold '::'"):
        load_image(f"{bucket}/0.png::{bucket}/1.png")


def test_without_fsspec_the_extra_is_named(bucket, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"pairmatch\[cloud\]"):
        load_image(f"{bucket}/0.png")


def test_nodes_of_a_cluster_read_shared_storage_themselves(bucket):
    shared = "s3://bucket/0.png"
    assert sent_images((shared, f"{bucket}/0.png")) == (shared, png(0))


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("s3://bucket/photos", "s3://bucket/photos"),
        (Path("s3://bucket/photos"), "s3://bucket/photos"),
        (Path("gs://bucket"), "gs://bucket"),
        (Path("file:///data/photos"), "file:///data/photos"),
        ("file://localhost/data/photos", "file:///data/photos"),
        (Path("file://localhost/data/photos"), "file:///data/photos"),
        ("s3://localhost/data", "s3://localhost/data"),
        ("photos", None),
        ("C:/photos", None),
        ("https://example.org", None),
    ],
)
def test_urls_are_told_from_paths(path, url):
    assert remote_url(path) == url


def test_urls_are_joined():
    assert joined_url("s3://b/photos/", "x/a.jpg") == "s3://b/photos/x/a.jpg"
    assert joined_url("s3://b", "s3://bb/a.jpg") is None


@pytest.mark.slow
def test_a_real_s3_server(tmp_path, monkeypatch):
    """Reads through s3fs from a server that speaks the protocol of S3."""
    server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")

    def stop(*_):
        raise TimeoutError("the test took more than 100 s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(100)
    running = server.ThreadedMotoServer(port=0)
    running.start()
    try:
        host, port = running.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="photos")
        for number in range(2):
            client.put_object(Bucket="photos", Key=f"2026/{number}.png", Body=png(number))
        path = table(tmp_path, ["a,0.png,b,1.png"])
        pairs = Pairs.read(path, images="s3://photos/2026")
        assert image_digest(pairs.profiles["b"].images[0]) == image_digest(png(1))
        with pytest.raises(DataError, match="the file does not exist"):
            Pairs.read(table(tmp_path, ["a,0.png,b,7.png"]), images="s3://photos/2026")
        for day in (1, 2):
            body = f"id_a,image_a,id_b,image_b\na{day},0.png,b{day},1.png\n".encode()
            client.put_object(Bucket="photos", Key=f"log/day={day}/part.csv", Body=body)
            for source in ("s3://photos/log", "s3://photos/log/*/*.csv"):
                assert len(Pairs.read(source, images="s3://photos/2026").pairs) == day
    finally:
        running.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_web_address_in_a_cell_is_refused_with_the_reason(bucket, tmp_path):
    path = table(tmp_path, ["a,https://example.org/0.png,b,HTTP://example.org/1.png"])
    for images in (bucket, None):
        with pytest.raises(DataError, match="does not download web addresses") as error:
            Pairs.read(path, images=images)
        assert len(error.value.problems) == 2


# --- tables


@pytest.fixture
def log(bucket):
    """Tables in a storage, in parts by day, beside the photos that they name."""
    storage = fsspec.filesystem("memory")
    header = b"id_a,image_a,id_b,image_b\n"
    storage.pipe("/bucket/pairs.csv", header + b"a,photos/0.png,b,photos/1.png\n")
    storage.pipe("/bucket/log/day=1/part.csv", header + b"a,0.png,b,1.png\n")
    storage.pipe("/bucket/log/day=2/part.csv.gz", gzip.compress(header + b"c,2.png,d,3.png\n"))
    storage.pipe("/bucket/log/_SUCCESS", b"")
    storage.pipe("/bucket/log/.part.crc", b"x")
    return "memory://bucket/log"


def test_a_table_is_read_by_its_url(log):
    for source in ("memory://bucket/pairs.csv", Path("memory://bucket/pairs.csv")):
        pairs = Pairs.read(source)
        assert pairs.profiles["b"].images == ("memory://bucket/photos/1.png",)


@pytest.mark.parametrize(
    "source",
    [
        "memory://bucket/log",
        "memory://bucket/log/",
        "memory://bucket/log/*/part.csv*",
        "memory://bucket/log/day=*",
        ["memory://bucket/log/day=1", "memory://bucket/log/day=2/part.csv.gz"],
    ],
)
def test_a_table_of_several_files_is_read_by_url(source, log, bucket):
    pairs = Pairs.read(source, images=bucket)
    assert [(pair.a, pair.b) for pair in pairs.pairs] == [("a", "b"), ("c", "d")]


@pytest.mark.parametrize("name", ["log[1]", "what?"])
def test_a_folder_or_file_that_is_named_like_a_pattern_is_no_pattern(name, bucket):
    """A folder above it holds a file of the same name, and one that the pattern matches."""
    storage = fsspec.filesystem("memory")
    header = b"id_a,image_a,id_b,image_b\n"
    for folder in ("", "log1/", "whats/"):
        storage.pipe(f"/bucket/{folder}part.csv", header + b"wrong,0.png,file,1.png\n")
    storage.pipe(f"/bucket/{name}/part.csv", header + b"a,0.png,b,1.png\n")
    for number in range(2):
        storage.pipe(f"/bucket/{name}/{number}.png", png(number))
    for source in (f"memory://bucket/{name}", f"memory://bucket/{name}/part.csv"):
        pairs = Pairs.read(source)
        assert [(pair.a, pair.b) for pair in pairs.pairs] == [("a", "b")]
        assert pairs.profiles["b"].images == (f"memory://bucket/{name}/1.png",)


def test_parquet_and_profiles_are_read_by_url(log, bucket):
    people = pa.table({"id": ["a", "b"], "text": ["tea", "coffee"], "day": [1, 2]})
    buffer = io.BytesIO()
    pq.write_table(people, buffer)
    fsspec.filesystem("memory").pipe("/bucket/people.parquet", buffer.getvalue())
    fsspec.filesystem("memory").pipe("/bucket/ids.csv", b"id_a,id_b\na,b\n")
    pairs = Pairs.read("memory://bucket/ids.csv", profiles="memory://bucket/people.parquet")
    assert pairs.profiles["b"].text == "coffee"
    assert [person.id for person in read_profiles("memory://bucket/people.parquet")] == ["a", "b"]


def test_new_files_of_a_storage_are_seen(log, bucket):
    assert len(Pairs.read(log, images=bucket).pairs) == 2
    new = b"id_a,image_a,id_b,image_b\ne,0.png,f,1.png\n"
    fsspec.filesystem("memory").pipe("/bucket/log/day=3/part.csv", new)
    assert len(Pairs.read(log, images=bucket).pairs) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("memory://bucket/gone.csv", "memory://bucket/gone.csv: the file does not exist."),
        ("memory://bucket/log/*.csv", "memory://bucket/log/*.csv: no file matches."),
        ("memory://bucket/photos", "memory://bucket/photos: the folder holds no tables"),
        (
            "memory://bucket/private.png",
            "memory://bucket/private.png is not a folder, and the name",
        ),
        ("memory://bucket/nowhere", "memory://bucket/nowhere is not a folder, and the name"),
        ("memory://bucket/bad.csv", "memory://bucket/bad.csv: 1 problem:"),
        ("memory://bucket/delta", "memory://bucket/delta: a Delta table"),
        ("memory://bucket/iceberg", "memory://bucket/iceberg: an Iceberg table"),
        (["memory://bucket/pairs.csv", "pairs.csv"], "must all be local or all in one storage"),
        (["memory://bucket/pairs.csv"] * 2, "memory://bucket/pairs.csv: the file is given twice."),
    ],
)
def test_tables_that_cannot_be_read_are_named_by_their_url(source, message, log, bucket, tmp_path):
    storage = fsspec.filesystem("memory")
    storage.pipe("/bucket/bad.csv", b"id_a,image_a,id_b,image_b\na,photos/0.png,,photos/1.png\n")
    storage.pipe("/bucket/delta/_delta_log/0.json", b"{}")
    storage.pipe("/bucket/delta/part.csv", b"id_a,id_b\na,b\n")
    storage.pipe("/bucket/iceberg/metadata/v1.metadata.json", b"{}")
    storage.pipe("/bucket/iceberg/data/part.csv", b"id_a,id_b\na,b\n")
    with pytest.raises(DataError) as error:
        Pairs.read(source)
    assert message in str(error.value)


def test_rows_of_tables_in_several_buckets_are_named_by_url(log, bucket):
    storage = fsspec.filesystem("memory")
    storage.pipe("/other/pairs.csv", b"id_a,image_a,id_b,image_b\na,0.png,,1.png\n")
    with pytest.raises(DataError) as error:
        Pairs.read(
            ["memory://bucket/log/day=1/part.csv", "memory://other/pairs.csv"], images=bucket
        )
    assert error.value.summary == "memory://: 2 problems:"
    columns, cell = error.value.problems
    assert columns.startswith("memory://: other/pairs.csv without the column 'day'")
    assert cell.startswith("memory://other/pairs.csv line 2, column id_b")
    storage.rm("/other", recursive=True)


@pytest.mark.parametrize("address", ["https://example.org/pairs.csv", "http://example.org/log"])
def test_a_web_address_is_no_table(address):
    for source in (address, Path(address), [address]):
        with pytest.raises(ConfigurationError, match=f"{address} is a web address"):
            Pairs.read(source)


def test_a_local_folder_that_is_named_like_a_url_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memory:").mkdir()
    (tmp_path / "memory:" / "0.png").write_bytes(png(0))
    table(tmp_path / "memory:", ["a,0.png,b,0.png"])
    assert Pairs.read("memory:/pairs.csv").profiles["a"].images == (Path("memory:/0.png"),)
