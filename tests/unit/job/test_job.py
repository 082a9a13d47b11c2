"""Job files: everything wrong is refused before any work, naming the field, the value and what to do."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.errors import JobError
from smoothcert.job import Job, fingerprint, job_json_schema, load_job, load_study, parse_job

REPOSITORY = Path(__file__).parents[3]
TINY = """
name: tiny
data: {format: parquet, uri: pairs.parquet}
encoder: {model: "bundled:digits-clip"}
certify: {sigma: 0.5}
"""


def refusal(*overrides: str, text: str = TINY) -> str:
    with pytest.raises(JobError) as caught:
        parse_job(text, overrides)
    assert caught.value.remedy and caught.value.exit_code == 2
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("certify.sigma=0", ("certify.sigma=0", "greater than 0")),
        ("certify.sigma=-0.25", ("certify.sigma=-0.25", "greater than 0")),
        ("certify.sigma=.nan", ("certify.sigma=nan", "finite")),
        ("certify.sigma=.inf", ("certify.sigma=inf",)),
        ("certify.sigma=31", ("certify.sigma=31", "30")),
        ("certify.sigma=loud", ("certify.sigma='loud'", "number")),
        ("certify.alpha=0", ("certify.alpha=0", "greater than 0")),
        ("certify.alpha=1", ("certify.alpha=1", "less than 1")),
        ("certify.alpha=.nan", ("certify.alpha=nan",)),
        ("certify.alpha_futility=1.5", ("certify.alpha_futility=1.5",)),
        ("certify.radii=[0.5, 0.25]", ("certify.radii", "[0.5, 0.25]", "[0.25, 0.5]")),
        ("certify.radii=[0.5, 0.5]", ("certify.radii", "[0.5, 0.5]", "write [0.5]")),
        ("certify.radii=[0.1, -1]", ("certify.radii.1=-1", "greater than 0")),
        ("certify.radii=[.inf]", ("certify.radii.0=inf",)),
        ("certify.radii=[]", ("certify.radii", "empty", "default")),
        ("certify.radii=0.5", ("certify.radii=0.5",)),
        ("certify.cosines=[0.8, 0.5]", ("certify.cosines", "[0.5, 0.8]")),
        ("certify.cosines=[1.0]", ("certify.cosines.0=1.0", "less than 1")),
        ("certify.cosines=[]", ("certify.cosines", "empty")),
        ("certify.pilot_draws=1", ("certify.pilot_draws=1", "2")),
        ("certify.max_draws=0", ("certify.max_draws=0",)),
        ("certify.method=bettin", ("certify.method='bettin'", "betting", "hoeffding")),
        ("certify.seed=-1", ("certify.seed=-1",)),
        ("certify.targets=[{certificate: class, radius: 1}]", ("class@1", "zero_shot", "add it or remove")),
        (
            "certify.targets=[{certificate: retrieval, radius: 1}]",
            ("retrieval@1", "'retrieval'", "add it or remove"),
        ),
        ("certify.targets=[{certificate: vote, radius: 1}]", ("vote@1", "zero_shot", "add it or remove")),
        (
            "certify.targets=[{certificate: retrieval_vote, radius: 1}]",
            ("retrieval_vote@1", "'retrieval'", "add it or remove"),
        ),
        ("certify.percentile=0", ("certify.percentile=0", "greater than 0")),
        ("certify.percentile=1", ("certify.percentile=1", "less than 1")),
        ("certify.percentile=-0.5", ("certify.percentile=-0.5",)),
        ("certify.percentile=.nan", ("certify.percentile=nan",)),
        (
            "certify.targets=[{certificate: class_percentile, radius: 1, cosine: 0}]",
            ("class_percentile>=0@1", "zero_shot", "add it or remove"),
        ),
        ("certify.targets=[{certificate: angular, radius: 1}]", ("targets.0", "'cosine'", "cosine: 0.8")),
        (
            "certify.targets=[{certificate: class, radius: 1, cosine: 0.1}]",
            ("targets.0", "no 'cosine'", "remove"),
        ),
        (
            "certify.targets=[{certificate: fcsb, radius: 1, cosine: -0.5}]",
            ("targets.0", "-0.5", "0 or more"),
        ),
        ("certify.targets=[{certificate: fcsb, radius: 0, cosine: 0.5}]", ("targets.0.radius=0",)),
        (
            "certify.targets=[{certificate: fsb, radius: 1, cosine: 0.5}]",
            ("targets.0.certificate='fsb'", "fcsb"),
        ),
        ("data.format=csv", ("data.format='csv'", "parquet", "webdataset", "manifest")),
        ("data.limit=0", ("data.limit=0",)),
        ("data=null", ("data=None",)),
        ("encoder.slots=0", ("encoder.slots=0",)),
        ("encoder.dtype=int8", ("encoder.dtype='int8'", "bfloat16")),
        ("zero_shot={labels: [cat, cat, dog]}", ("zero_shot.labels", "cat", "keep one")),
        ("zero_shot={labels: [cat]}", ("zero_shot.labels", "2")),
        ("zero_shot={labels: [cat, dog], prompts: [a photo]}", ("zero_shot.prompts", "a photo", "{label}")),
        ("retrieval={candidates: 5, k: 5}", ("retrieval", "k=5", "candidates=5")),
        ("executor.kind=dask", ("executor.kind='dask'", "ray")),
        ("executor.lease_s=0", ("executor.lease_s=0",)),
        ("output.quarantine_budget=1.5", ("output.quarantine_budget=1.5",)),
        ("name=a/b", ("name='a/b'",)),
        ("output.run=/data/runs/a", ("output.run", "'/data/runs/a'", '"/data/runs"', 'output.run: "a"')),
        ("output.run=s3://bucket/runs/a", ('output.runs: "s3://bucket/runs"', 'output.run: "a"')),
        ("output.run=today/a", ("'today/a'", 'output.runs: "today"', 'output.run: "a"')),
        ("output.run=/a/", ("'/a/'", 'output.runs: "/"', 'output.run: "a"')),
        ("output.run=a/", ("'a/'", 'output.runs: "runs"', 'output.run: "a"')),
        ("output.run=''", ("output.run", "''", "leave it out")),
        ("output.run=../..", ("'../..'", "not a valid folder name")),
        ("output.run='..'", ("'..'", "not a valid folder name")),
        ("name=", ("name=None",)),
    ],
)
def test_a_bad_value_is_refused_with_field_value_and_remedy(override, words):
    message = refusal(override)
    for word in words:
        assert word in message


def test_a_bad_sigma_is_reported_once_and_alone():
    """Default radii follow from sigma; nobody wrote them, so nobody should read about them."""
    for value in ("0", "-1", ".nan", "loud", "null"):
        assert "radii" not in refusal(f"certify.sigma={value}")


@pytest.mark.parametrize(
    ("override", "key", "meant"),
    [
        ("certify.simga=1", "certify.simga", "sigma"),
        ("certfy.sigma=1", "certfy", "certify"),
        ("data.columns.captoin=text", "data.columns.captoin", "caption"),
        ("executor.worker=2", "executor.worker", "workers"),
        ("certify.targets=[{certificate: fcsb, radus: 1, cosine: 0.5}]", "certify.targets.0.radus", "radius"),
        ("zero_shot={labels: [a, b], prompt: ['{label}']}", "zero_shot.prompt", "prompts"),
        ("sigma=0.5", "sigma", "certify.sigma"),
        ("caption=null", "caption", "data.columns.caption"),
        ("data.caption=null", "data.caption", "data.columns.caption"),
        ("uri=x", "uri", "data.uri"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(override, key, meant):
    message = refusal(override)
    assert f"{key}: unknown key (did you mean '{meant}'?)" in message


def test_a_key_that_resembles_nothing_lists_what_is_known():
    message = refusal("certify.xyzzy=1")
    assert "did you mean" not in message and "known: sigma, alpha" in message


def test_all_mistakes_are_reported_at_once():
    message = refusal("certify.alpha=2", "data.format=csv", "certify.max_draws=1")
    assert all(word in message for word in ("certify.alpha=2", "data.format='csv'", "certify.max_draws=1"))


@pytest.mark.parametrize("section", ["data", "encoder", "certify", "name"])
def test_a_missing_section_is_named(section):
    data = yaml.safe_load(TINY)
    del data[section]
    assert f"{section}: missing; add it" in refusal(text=yaml.safe_dump(data))


def test_early_stopping_needs_a_bound_that_may_be_peeked_at():
    target = "certify.targets=[{certificate: fcsb, radius: 1, cosine: 0.5}]"
    message = refusal(target, "certify.method=hoeffding")
    assert "method='hoeffding'" in message and "betting" in message
    parse_job(TINY, [target])
    parse_job(TINY, ["certify.method=hoeffding"])


def test_pooled_features_have_no_texts():
    pooled = "encoder.feature=pooled"
    parse_job(TINY, [pooled])
    for section in ("zero_shot={labels: [a, b]}", "retrieval={candidates: 5}"):
        assert "pooled" in refusal(pooled, section)
    assert "pooled" in refusal(pooled, "certify.targets=[{certificate: caption, radius: 1, cosine: 0.5}]")


# --- overrides ----------------------------------------------------------------------------------------------


def test_overrides_are_yaml_values_at_dotted_places_and_the_last_one_wins():
    job = parse_job(
        TINY,
        [
            "certify.sigma=0.25",
            "certify.sigma=1.0",
            "certify.radii=[0.1, 0.2]",
            "zero_shot.labels=[yes it is, 'no']",
            "data.columns.caption=text",
            "data.uri=s3://bucket/a=b.parquet",
            " tracking.enabled =false",
        ],
    )
    assert (job.certify.sigma, job.certify.radii) == (1.0, (0.1, 0.2))
    assert job.zero_shot is not None and job.zero_shot.labels == ("yes it is", "no")
    assert (job.data.columns.caption, job.data.uris) == ("text", ("s3://bucket/a=b.parquet",))
    assert job.tracking.enabled is False


@pytest.mark.parametrize(
    "override", ["certify.sigma", "=3", "", "certify.sigma.x=3", "certify.sigma=[", "name.x=1"]
)
def test_a_broken_override_is_quoted(override):
    assert repr(override) in refusal(override)


def test_a_merge_may_be_overridden():
    text = TINY + "zero_shot: {labels: [cat, dog]}\nattacks:\n"
    text += "  - &pgd {attack: pgd, norm: l2, budgets: [0.5], steps: 5}\n  - {<<: *pgd, steps: 7}\n"
    assert [each.steps for each in parse_job(text).attacks] == [5, 7]


def test_an_override_may_fill_a_section_that_is_null_or_absent():
    assert parse_job(TINY + "executor:\n", ["executor.workers=3"]).executor.workers == 3
    assert parse_job(TINY, ["retrieval.candidates=7"]).retrieval.candidates == 7


def test_an_override_with_a_key_twice_is_told_so():
    with pytest.raises(JobError, match="'sigma' stands twice in one mapping") as caught:
        parse_job(TINY, ["certify={sigma: 1, sigma: 2}"])
    assert "--set 'certify=" in caught.value.message and "quote" not in caught.value.remedy


# --- reading ------------------------------------------------------------------------------------------------


def test_files_that_cannot_be_jobs(tmp_path):
    for content, words in [
        (b"name: [", "not valid YAML"),
        (b"name: a\ncertify: {sigma: 1, sigma: 2}", "'sigma' stands twice in one mapping, in line 2"),
        (b"name: a\n\nname: b", "'name' stands twice in one mapping, in lines 1 and 3"),
        (b"- a list", "not a mapping"),
        (b"", "not a mapping"),
        (b"name: \xff\xfe", "UTF-8"),
        (b"!!python/object/apply:os.system ['echo hi']", "not valid YAML"),
    ]:
        path = tmp_path / "job.yaml"
        path.write_bytes(content)
        with pytest.raises(JobError, match=words) as caught:
            load_job(path)
        assert "job.yaml" in str(caught.value)
    with pytest.raises(JobError, match=r"nowhere\.yaml"):
        load_job(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "jobs").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_jobs_are_valid_and_name_their_schema(path):
    text = path.read_text()
    several = "\nstudy:" in text
    for job in [each.job for each in load_study(path).combinations] if several else [load_job(path)]:
        assert parse_job(job.to_yaml()) == job
        parts = {"bare": job.encoder, "smoothed": job.encoder, **job.defences}
        skipping = [name for attack in job.attacks if attack.bpda for name in attack.subjects]
        assert all(parts[name].purifier for name in skipping), "BPDA needs a purifier to skip"
    schema = f"{'study' if several else 'job'}.v1.json"
    named = text.splitlines()[0].rpartition("=")[2]
    assert (path.parent / named).resolve() == REPOSITORY / "schemas" / schema


def test_the_published_schema_is_that_of_the_code():
    assert json.loads((REPOSITORY / "schemas" / "job.v1.json").read_text()) == job_json_schema()


def test_the_resolved_job_reads_back_as_itself():
    job = parse_job(
        TINY, ["certify.targets=[{certificate: fcsb, radius: 0.1, cosine: 0.5}]", "certify.seed=7"]
    )
    assert parse_job(job.to_yaml()) == job
    assert Job.model_validate(job.model_dump(mode="json")) == job


def test_only_certificates_that_a_job_asks_for_can_be_in_its_rows():
    def names(*overrides):
        return {each.name for each in parse_job(TINY, list(overrides)).certificates}

    plain = names("zero_shot=null", "retrieval=null")
    assert {"fcsb", "angular", "clean_percentile", "pilot_percentile"} <= plain
    assert plain.isdisjoint({"second_moment", "class", "class_percentile", "retrieval", "vote"})
    assert names("zero_shot=null", "retrieval=null", "certify.percentile=null") == {
        each for each in plain if not each.endswith("_percentile")
    }
    more = names("zero_shot={labels: [cat, dog]}", "certify.second_moment=true")
    assert {"second_moment", "class", "class_percentile", "vote"} <= more


def test_default_radii_follow_sigma_in_every_way_it_can_be_written():
    for sigma in ("0.5", "'0.5'", "5e-1"):
        assert parse_job(TINY, [f"certify.sigma={sigma}"]).certify.radii == (0.125, 0.25, 0.5, 0.75)
    assert parse_job(TINY, ["certify.radii=null"]).certify.radii == (0.125, 0.25, 0.5, 0.75)
    assert parse_job(TINY, ["certify.radii=[3]"]).certify.radii == (3.0,)


@pytest.mark.parametrize(
    ("draws", "pilots"), [("2", 15), ("100", 15), ("'300'", 31), ("500", 47), ("1000", 63), ("10000", 191)]
)
def test_default_pilot_draws_follow_the_budget(draws, pilots):
    """About twice its root, and with the clean pass whole chunks."""
    certify = parse_job(TINY, [f"certify.max_draws={draws}", "certify.pilot_draws=null"]).certify
    assert certify.pilot_draws == pilots and (pilots + 1) % 16 == 0
    assert abs(pilots - 2 * math.sqrt(certify.max_draws)) <= 16
    assert parse_job(TINY, [f"certify.max_draws={draws}", "certify.pilot_draws=9"]).certify.pilot_draws == 9


@given(st.floats(1e-12, 30))
def test_default_radii_are_valid_for_every_sigma(sigma):
    radii = parse_job(TINY, [f"certify.sigma={sigma!r}"]).certify.radii
    assert radii == pytest.approx([0.25 * sigma, 0.5 * sigma, sigma, 1.5 * sigma], rel=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.uri=3", "data.uri=3: Input should be text in quotes or a valid list\n"),
        ("data.uri={a: b}", "data.uri: Input should be text in quotes or a valid list\n"),
        ("data.uri=[a, 3]", "data.uri.1=3: Input should be text in quotes\n"),
        ("certify=3", "certify=3: Input should be a valid mapping\n"),
        ("zero_shot.labels=3", "zero_shot.labels=3: Input should be a valid list\n"),
    ],
)
def test_complaints_speak_of_the_file_and_not_of_python(change, said):
    with pytest.raises(JobError) as caught:
        parse_job(TINY, [change])
    assert said in str(caught.value)
    assert "str:" not in str(caught.value) and "tuple" not in str(caught.value)


# --- what identifies a run ----------------------------------------------------------------------------------

SCIENCE = [
    "certify.sigma=0.25",
    "certify.alpha=0.01",
    "certify.seed=1",
    "certify.max_draws=10",
    "certify.pilot_draws=10",
    "certify.radii=[1]",
    "certify.method=hoeffding",
    "certify.rivals=3",
    "certify.targets=[{certificate: fcsb, radius: 0.1, cosine: 0.5}]",
    "encoder.chunk=3",
    "encoder.dtype=bfloat16",
    "encoder.feature=pooled",
    "encoder.revision=abc",
    "zero_shot.labels=[a, b]",
    "retrieval.candidates=7",
    "data.limit=5",
    "data.columns.caption=text",
]
CIRCUMSTANCES = [
    "executor.kind=ray",
    "executor.workers=3",
    "executor.pairs_per_unit=7",
    "output.runs=elsewhere",
    "output.run=mine",
    "output.quarantine_budget=1",
    "tracking.enabled=false",
    "tracking.uri=http://user:hunter2@server",
    "encoder.slots=3",
    "encoder.device=cpu",
    "encoder.threads=1",
]


def digest(*overrides: str, **parts: str) -> str:
    given = {"data_digest": "d", "encoder_digest": "e", "code_version": "1"} | parts
    return fingerprint(parse_job(TINY, overrides), **given)


@pytest.mark.parametrize("override", SCIENCE)
def test_what_changes_numbers_changes_the_fingerprint(override):
    assert digest(override) != digest()


@pytest.mark.parametrize("override", CIRCUMSTANCES)
def test_where_and_how_fast_does_not(override):
    assert digest(override) == digest()
    assert parse_job(TINY, [override]).science() == parse_job(TINY).science()


def test_data_encoder_and_code_are_part_of_the_fingerprint():
    every = {digest(), digest(data_digest="x"), digest(encoder_digest="x"), digest(code_version="x")}
    assert len(every) == 4 and all(len(value) == 64 and int(value, 16) >= 0 for value in every)


def test_writing_out_a_default_changes_nothing():
    assert (
        digest("certify.alpha=0.001", "certify.method=betting", "certify.radii=[0.125, 0.25, 0.5, 0.75]")
        == digest()
    )


def test_no_credential_of_the_tracking_server_is_in_what_is_fingerprinted():
    job = parse_job(TINY, ["tracking.uri=http://user:hunter2@server", "executor.address=ray://token@head"])
    assert "hunter2" not in json.dumps(job.science()) and "token" not in json.dumps(job.science())


def test_entries_that_are_no_text_are_complained_of_once():
    with pytest.raises(JobError) as caught:
        parse_job(TINY + "zero_shot: {labels: [1, 2], prompts: []}\n")
    text = str(caught.value)
    assert "zero_shot.labels.0=1: Input should be text in quotes" in text
    assert "zero_shot.labels:" not in text
    assert "zero_shot.prompts: a list of at least 1 is needed" in text


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("data.uri=https://user:SECRET@host/a.parquet", "data.uri"),
        ("data.uri=https://SECRET@host/a.parquet", "data.uri"),
        ("data.uri=https://acc.example/c/a.parquet?sv=2024&sig=SECRET", "data.uri"),
        ("data.uri=s3://AKIASECRET:wJalrSECRET/xyz+1@bucket/a.parquet", "data.uri"),
        ("data.uri=[a.parquet, 's3://SECRET@bucket/b.parquet']", "data.uri.1"),
        ("output.runs=s3://k:SECRET@bucket/runs", "output.runs"),
        ("encoder.model=https://SECRET@host/model", "encoder.model"),
    ],
)
def test_credentials_are_refused_and_not_shown(override, field):
    with pytest.raises(JobError) as caught:
        parse_job(TINY, [override])
    text = str(caught.value)
    assert f"\n  {field}: " in text and "usual chain" in text and "SECRET" not in text


@pytest.mark.parametrize(
    "uri", ["abfss://box@account.dfs.core.windows.net/x", "s3://bucket/part-?.parquet", "a?b=c.parquet"]
)
def test_what_looks_like_credentials_and_is_none_is_taken(uri):
    assert parse_job(TINY, [f"data.uri={uri}"]).data.uri == uri
