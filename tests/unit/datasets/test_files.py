import pytest

from smoothcert.datasets.files import list_files, store_trouble
from smoothcert.errors import SourceError

SUFFIX = (".parquet",)


@pytest.fixture
def tree(folder, put):
    for name in ("b.parquet", "a.parquet", "deep/c.PARQUET", "_tmp/d.parquet", ".hidden.parquet", "note.txt"):
        put(f"{folder}/{name}", b"12345")
    return folder


def names(uris, suffixes=SUFFIX, **options):
    return [file.name for file in list_files(uris, suffixes, **options)]


def test_a_directory_is_sorted_and_filtered(tree):
    assert names([tree]) == names([tree + "/"]) == ["a.parquet", "b.parquet", "deep/c.PARQUET"]
    assert names([tree], recursive=False) == ["a.parquet", "b.parquet"]
    assert {file.size_bytes for file in list_files([tree], SUFFIX)} == {5}


def test_a_glob_takes_what_it_matches_sorted(tree):
    assert names([f"{tree}/*.parquet"]) == ["a.parquet", "b.parquet"]
    assert names([f"{tree}/**/*.parquet"]) == ["a.parquet", "b.parquet"]
    assert names([f"{tree}/.h*.parquet"]) == [".hidden.parquet"]
    assert names([f"{tree}/_tmp/*"]) == ["d.parquet"]
    assert names([f"{tree}/[ab].parquet"]) == ["a.parquet", "b.parquet"]


def test_a_list_keeps_its_order(tree):
    assert names([f"{tree}/b.parquet", f"{tree}/a.parquet"]) == ["b.parquet", "a.parquet"]
    assert names([f"{tree}/deep/c.PARQUET", f"{tree}/a.parquet"]) == ["deep/c.PARQUET", "a.parquet"]


def test_a_single_file_is_named_by_its_last_part(tree):
    assert names([f"{tree}/deep/c.PARQUET"]) == ["c.PARQUET"]
    assert names([f"{tree}/note.txt"]) == ["note.txt"]  # named outright: the suffix is the user's business


def test_brackets_in_a_file_name_are_no_glob(tmp_path):
    (tmp_path / "a[1].parquet").write_bytes(b"")
    assert names([str(tmp_path / "a[1].parquet")]) == ["a[1].parquet"]


def test_same_names_in_two_folders_stay_apart(folder, put):
    for name in ("x/a.parquet", "y/a.parquet"):
        put(f"{folder}/{name}", b"")
    assert names([folder]) == ["x/a.parquet", "y/a.parquet"]


def test_several_stores_at_once(tmp_path, put):
    put(f"{tmp_path}/a.parquet", b"")
    put("memory://elsewhere/a.parquet", b"")
    got = names([f"{tmp_path}/a.parquet", "memory://elsewhere/a.parquet"])
    assert len(set(got)) == 2 and got[1] == "memory:///elsewhere/a.parquet"


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert [f.uri for f in list_files(["a.parquet"], SUFFIX)] == [str(tmp_path / "a.parquet")]
    assert [f.uri for f in list_files([f"file://{tmp_path}/a.parquet"], SUFFIX)] == [
        str(tmp_path / "a.parquet")
    ]


@pytest.mark.parametrize(
    "uri, said",
    [
        ("{}/none.parquet", "it does not exist"),
        ("{}/*.tar", "matches no file"),
        ("simplecache::{}/a.parquet", "chains file systems"),
        ("s4://bucket/x", "rotocol"),
        ("{}/empty", "has no .parquet file: it is empty"),
        ("{}/texts", "has no .parquet file, only files with suffix .txt"),
        ("{}/nested", "has no .parquet file: there are only folders in it, which hold none (one, two)"),
    ],
)
def test_what_means_nothing_is_named_with_a_remedy(tmp_path, put, uri, said):
    put(f"{tmp_path}/a.parquet", b"")
    put(f"{tmp_path}/texts/a.txt", b"")
    (tmp_path / "empty").mkdir()
    for name in ("one", "two"):
        (tmp_path / "nested" / name).mkdir(parents=True)
    uri = uri.format(tmp_path)
    with pytest.raises(SourceError, match=r"(.|\n)*remedy: .+") as caught:
        list_files([uri], SUFFIX)
    assert said in str(caught.value) and uri in str(caught.value)


def test_a_folder_of_folders_is_not_empty_where_folders_are_not_searched(folder, put):
    put(f"{folder}/data/one/a.parquet", b"")
    with pytest.raises(SourceError, match="one") as caught:
        list_files([f"{folder}/data"], SUFFIX, recursive=False)
    assert "it is empty" not in str(caught.value)


def test_no_file_twice(tree):
    with pytest.raises(SourceError, match="matches the file '.*a.parquet' twice"):
        list_files([tree, f"{tree}/a.parquet"], SUFFIX)


def test_an_empty_list():
    with pytest.raises(SourceError, match="data.uri is an empty list"):
        list_files([], SUFFIX)


def test_unknown_store_errors_keep_their_text():
    class VendorError(Exception):
        pass

    with pytest.raises(SourceError, match="cannot open 's3://b/k': VendorError: slow down"):
        with store_trouble("s3://b/k", "open"):
            raise VendorError("slow down")
