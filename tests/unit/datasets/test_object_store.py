"""The same data through S3's protocol: a server in this process, s3fs in front of it."""

import logging

import pytest

from smoothcert.datasets import write_demo_data
from smoothcert.errors import ReadError, SourceError

s3fs = pytest.importorskip("s3fs")
boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def bucket():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3fs.S3FileSystem.clear_instance_cache()
        client = boto3.client("s3")
        client.create_bucket(Bucket="data")
        yield client
        s3fs.S3FileSystem.clear_instance_cache()
        client.close()
        server.stop()


@pytest.mark.parametrize("format", ["parquet", "webdataset"])
def test_the_same_pairs_units_and_digest_as_on_disk(bucket, tmp_path, source, read_all, format):
    here = source(format, write_demo_data(tmp_path, format).directory)
    there = source(format, write_demo_data(f"s3://data/{format}", format).directory)
    assert [unit.unit_id for unit in there.units(50)] == [unit.unit_id for unit in here.units(50)]
    assert there.digest() == here.digest()
    same = [(pair.pair_id, pair.image, pair.captions, pair.label) for pair in read_all(here, 200)]
    assert [(pair.pair_id, pair.image, pair.captions, pair.label) for pair in read_all(there, 200)] == same


def test_a_missing_image_is_one_pair_and_a_missing_shard_is_the_source(bucket, source, picture):
    bucket.put_object(Bucket="data", Key="list/0.png", Body=picture(0))
    lines = b"".join(b'{"image": "%d.png", "caption": "c"}\n' % i for i in range(3))
    bucket.put_object(Bucket="data", Key="list/m.jsonl", Body=lines)
    manifest = source("manifest", "s3://data/list")
    (unit,) = manifest.units(10)
    good, *bad = manifest.read(unit)
    assert good.image == picture(0) and good.pair_id == "m.jsonl#0"
    assert [type(pair.error) for pair in bad] == [ReadError, ReadError]
    assert "'s3://data/list/1.png' does not exist" in bad[0].error.message
    bucket.delete_object(Bucket="data", Key="list/m.jsonl")
    with pytest.raises(SourceError, match="'s3://data/list/m.jsonl': it does not exist"):
        list(manifest.read(unit))


@pytest.mark.parametrize(
    "uri", ["s3://data/none.parquet", "s3://data/none/", "s3://no-such-bucket/x", "s3://data/*.pq"]
)
def test_what_is_not_there_is_named(bucket, source, uri):
    with pytest.raises(SourceError, match=r"(does not exist|matches no file)(.|\n)*remedy"):
        source("parquet", uri).digest()
