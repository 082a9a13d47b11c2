"""Questions to the bundled multimodal model, through the command line: rows, certified answers, resume and retry."""

from __future__ import annotations

import io
import json
import runpy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smoothcert.answerers.cider import cider
from smoothcert.answerers.loading import load_answerer
from smoothcert.answerers.metrics import rouge_l
from smoothcert.answerers.normalising import normalise
from smoothcert.audit.audit import audit_run
from smoothcert.catalogue.answer_metrics import ANSWER_METRICS
from smoothcert.datasets import open_source
from smoothcert.datasets.questions import read_questions
from smoothcert.encoders import load_encoder
from smoothcert.errors import JobError
from smoothcert.job import EncoderSection, load_job
from smoothcert.report.answers import answer_questions
from smoothcert.runtime.driver import Driver
from smoothcert.sql import Query
from smoothcert.store import RunDirectory
from smoothcert.summary.summary import summarise
from smoothcert.tracking import figures
from smoothcert.work.answer.asking import AskedPair, Asker
from smoothcert.work.answer.inputs import AnswerInputs
from smoothcert.work.answer.task import AnswerTask
from smoothcert.work.attack.metered import Meter
from smoothcert.work.tasks import phases_of

shapes_run = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "shapes_run.py")))
smoothcert = shapes_run.smoothcert
PAIRS = 3


def write_job(here: Path, **answer: Any) -> Path:
    section = {
        "smooth_draws": 5,
        "max_new_tokens": 12,
        "batch": 64,
        "vote": {"pilot_draws": 3, "max_draws": 20, "score": "rouge_l"},
        "clip_score": {"model": "bundled:digits-clip", "threads": 1},
        "judge": {"encoder": {"model": "bundled:digits-clip", "threads": 1}, "threshold": 0.7},
    }
    return shapes_run.write_job(here, {"max_draws": 24, "radii": [0.05, 0.1]}, section | answer)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run over three pairs, the image of one of which is broken at first."""
    here = tmp_path_factory.mktemp("answers")
    asked = shapes_run.write_shapes(here, PAIRS)
    job = write_job(here)
    with shapes_run.broken(sorted((here / "shapes").rglob("*.png"))[1]):
        told = {
            "here": here,
            "asked": asked,
            "first": smoothcert("certify", str(job)),
            "broken": rows_of(here),
        }
    told["retry"] = smoothcert("retry", str(here / "mine"), "--table", "answers", "--where", "status <> 'ok'")
    told["rows"], told["again"] = rows_of(here), smoothcert("certify", str(job))
    return told


def rows_of(here: Path, run: str = "mine") -> list[dict[str, Any]]:
    with Query([RunDirectory.open(str(here / run))]) as query:
        return query.sql("SELECT * FROM answers ORDER BY pair_id, question_id, subject").to_pylist()


def test_each_question_has_a_row_for_each_subject(done: dict[str, Any]) -> None:
    assert done["first"][0] == done["retry"][0] == done["again"][0] == 0, (done["first"], done["retry"])
    wanted = Counter((each["pair"], each["id"]) for each in done["asked"])
    for subject in ("bare", "smoothed", "vote"):
        found = Counter(
            (row["pair_id"], row["question_id"]) for row in done["rows"] if row["subject"] == subject
        )
        assert found == wanted
    assert {row["status"] for row in done["rows"]} == {"ok"}
    assert len({row["answer_id"] for row in done["rows"]}) == 1


def test_a_broken_image_was_quarantined_once_a_subject(done: dict[str, Any]) -> None:
    bad = [row for row in done["broken"] if row["status"] != "ok"]
    assert Counter(row["subject"] for row in bad) == {"bare": 1, "smoothed": 1, "vote": 1}
    assert {(row["error_stage"], row["answer"], row["vote_radius"]) for row in bad} == {
        ("decode", None, None)
    }


def test_bare_answers_are_those_of_transformers(done: dict[str, Any]) -> None:
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    from smoothcert.encoders.locate import locate

    directory = locate("bundled:shapes-llava", None)
    model, tokenizer = (
        LlavaForConditionalGeneration.from_pretrained(directory).eval(),
        AutoTokenizer.from_pretrained(directory),
    )
    for row in [each for each in done["rows"] if each["subject"] == "bare"][:8]:
        place = row["pair_id"].partition("#")[2]
        image = sorted((done["here"] / "shapes").rglob("*.png"))[int(place)]
        pixels = torch.from_numpy(
            np.asarray(Image.open(image).convert("RGB")).transpose(2, 0, 1)[None].copy()
        )
        prompt = row["prompt"].replace("<image>", "<image>" * 17)
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            made = model.generate(
                input_ids=ids, pixel_values=pixels / 127.5 - 1, max_new_tokens=12, do_sample=False
            )
        assert row["answer"] == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_votes_are_certified_as_their_counts_say(done: dict[str, Any]) -> None:
    from scipy.stats import beta, norm

    votes = [row for row in done["rows"] if row["subject"] == "vote"]
    for row in votes:
        assert (row["draws"], row["pilot_draws"], row["alpha"]) == (20, 3, 0.05)
        share = beta.ppf(0.05, row["votes"], 21 - row["votes"]) if row["votes"] else 0.0
        assert row["vote_share_lcb"] == pytest.approx(share, rel=1e-9)
        if share > 0.5:
            assert row["vote_radius"] == pytest.approx(0.2 * norm.ppf(share), rel=1e-6)
        else:
            assert row["vote_radius"] is None
    assert sum(row["vote_radius"] is not None for row in votes) > len(votes) / 2


def test_certified_scores_follow_from_their_draws(done: dict[str, Any]) -> None:
    from scipy.stats import binom, norm

    for row in done["rows"]:
        if row["subject"] != "vote":
            assert row["score"] is None and row["score_bounds"] is None
            continue
        assert row["score_metric"] == "rouge_l" and 0 <= row["score_lcb"] <= row["score"] <= 1
        assert row["score"] == pytest.approx(np.mean(row["score_draws"])) and len(row["score_draws"]) == 20
        for radius, bound in zip((0.05, 0.1), row["score_percentile_bounds"], strict=True):
            # Chiang et al. 2020 at the next eighth of sigma: 0.25 and 0.5 of it
            share = norm.cdf(-radius / 0.2)
            ranks = [k for k in range(1, 21) if binom.cdf(k - 1, 20, share) <= 0.05]
            assert (bound or 0.0) == (sorted(row["score_draws"])[max(ranks) - 1] if ranks else 0.0)
        for radius, bound in zip((0.05, 0.1), row["score_bounds"], strict=True):
            if bound is None:
                assert row["score_lcb"] < 1e-6
            else:
                exact = norm.cdf(norm.ppf(row["score_lcb"]) - radius / 0.2)
                assert bound == pytest.approx(exact, abs=1e-9) and bound <= exact


def test_sql_summary_mlflow_and_status_count_them(done: dict[str, Any]) -> None:
    votes = [row for row in done["rows"] if row["subject"] == "vote"]
    certified = sum((row["vote_radius"] or 0) >= 0.1 for row in votes)
    right = sum((row["vote_radius"] or 0) >= 0.1 and row["exact_match"] == 1 for row in votes)
    run = RunDirectory.open(str(done["here"] / "mine"))
    with Query([run]) as query:
        rows = query.sql("SELECT * FROM certified_answers(0.1)").to_pylist()
        scores = query.sql("SELECT * FROM certified_scores(0.1)").to_pylist()
        kinds = query.sql("SELECT kind, exact_match FROM answer_accuracy WHERE subject = 'bare'").to_pylist()
    assert sum(row["certified"] for row in rows) == certified
    assert sum(row["certified_right"] for row in rows) == right
    for name, column in (("score", "score_bounds"), ("score_percentile", "score_percentile_bounds")):
        mean = np.mean([row[column][1] or 0.0 for row in votes])
        total = sum(row["questions"] * row[f"certified_{name}"] for row in scores)
        assert total / len(votes) == pytest.approx(mean)
    assert len(kinds) == len({row["kind"] for row in votes})
    summary = summarise(run.url)
    assert summary.tables["answers"].rows == len(done["rows"])
    figure = summary.answers["answers_certified_right/r0.1"]
    assert (figure.count, figure.of) == (right, len(votes))
    assert figures.metrics(summary)["answers_certified_right/r0.1"] == pytest.approx(right / len(votes))
    mean = np.mean([row["score_percentile_bounds"][1] or 0.0 for row in votes])
    name = "answers_certified_score_percentile/r0.1"
    assert figures.metrics(summary)[name] == pytest.approx(mean)
    code, said = smoothcert("status", run.url)
    assert code == 0 and "answers: 2 of 2 units committed" in said
    assert "certified 0.1" in " ".join(done["first"][1].split())


def test_metrics_by_models_are_theirs(done: dict[str, Any]) -> None:
    """The CLIP score and the judge against the encoder itself, asked for each row alone."""
    encoder = load_encoder(EncoderSection(model="bundled:digits-clip", threads=1))
    paths = sorted((done["here"] / "shapes").rglob("*.png"))
    for row in done["rows"][:12]:
        image = encoder.prepare(Image.open(paths[int(row["pair_id"].partition("#")[2])]).convert("RGB"))
        seen = encoder.encode_images(torch.from_numpy(image)[None].float() / 255)[0]
        said, *others = encoder.encode_texts([row["wording"] or row["answer"], *row["reference_answers"]])
        assert row["clip_score"] == pytest.approx(max(0.0, float(seen @ said)), abs=1e-5)
        best = max(float(said @ each) for each in others)
        assert row["judged_similarity"] == pytest.approx(min(1.0, max(0.0, best)), abs=1e-5)
        assert (row["judge"], row["judge_threshold"], row["judge_reply"]) == (
            "bundled:digits-clip",
            0.7,
            None,
        )
        assert row["judge_digest"] == row["clip_digest"] == encoder.digest


def test_metrics_of_a_vote_are_about_its_wording(done: dict[str, Any]) -> None:
    votes = [row for row in done["rows"] if row["subject"] == "vote" and row["answer"] is not None]
    assert any(
        row["wording"] != row["answer"] for row in votes
    )  # "a small circle" is the class "small circle"
    for row in votes:
        assert normalise(row["wording"]) == row["answer"]
        assert row["rouge_l"] == rouge_l(row["wording"], row["reference_answers"])


def test_every_metric_is_in_view_summary_mlflow_and_report(done: dict[str, Any]) -> None:
    run = RunDirectory.open(str(done["here"] / "mine"))
    with Query([run]) as query:
        view = query.sql("SELECT * FROM answer_accuracy").to_pylist()
        page = figures_of(query, run)["answers"]
    summary = summarise(run.url)
    logged = figures.metrics(summary)
    bare = [row for row in done["rows"] if row["subject"] == "bare"]
    for name, metric in ANSWER_METRICS.items():
        place = (
            "bare_caption" if name == "cider" else "bare"
        )  # words weigh among captions, not among all questions
        figure = summary.answers[f"answers_{name}/{place}"]
        assert 0 <= figure.mean <= metric.largest and logged[f"answers_{name}/{place}"] == figure.mean
        assert figure.count == (PAIRS if name == "cider" else len(bare))
        if metric.kind != "set":
            assert name in view[0] and name in page[0]
    mean = sum(row["rouge_l"] for row in bare) / len(bare)
    assert summary.answers["answers_rouge_l/bare"].mean == pytest.approx(mean, rel=1e-9)
    captions = [(row["answer"], row["reference_answers"]) for row in bare if row["kind"] == "caption"]
    assert summary.answers["answers_cider/bare_caption"].mean == pytest.approx(cider(lambda: captions)[0])
    votes = [row for row in done["rows"] if row["subject"] == "vote" and row["kind"] == "caption"]
    voted = [(row["wording"], row["reference_answers"]) for row in votes]
    assert summary.answers["answers_cider/vote_caption"].mean == pytest.approx(cider(lambda: voted)[0])
    close = sum(row["judged_similarity"] >= 0.7 for row in bare)
    assert summary.answers["answers_judged_match/bare"].mean == pytest.approx(close / len(bare))


def test_progress_expects_what_pairs_take(done: dict[str, Any]) -> None:
    """Without targets every question takes as many draws, so that the estimate is what the rows say."""
    driver = Driver(load_job(done["here"] / "job.yaml"))
    (phase,) = [each for each in phases_of(driver.job) if each.name == "answers"]
    taken = sum(row["pilot_draws"] + row["draws"] if row["subject"] == "vote" else 1 for row in done["rows"])
    assert phase.draws_per_pair(driver.inputs) == pytest.approx(taken / PAIRS)


def figures_of(query: Query, run: RunDirectory) -> dict[str, list[dict[str, Any]]]:
    """The report's rows, by figure."""
    found = {each.key: each.ask(query) for each in answer_questions([run.info])}
    return {
        key: [dict(zip(figure.columns, row, strict=True)) for row in figure.rows]
        for key, figure in found.items()
        if figure is not None
    }


def test_the_report_shows_what_is_certified_of_answers_and_scores(done: dict[str, Any]) -> None:
    run = RunDirectory.open(str(done["here"] / "mine"))
    with Query([run]) as query:
        shown = figures_of(query, run)
    votes = [row for row in done["rows"] if row["subject"] == "vote"]
    kinds = {row["kind"] for row in votes} | {"(all)"}
    assert len(shown["certified-answers"]) == len(shown["certified-scores"]) == len(kinds) * 2 * 2
    for row in shown["certified-answers"]:
        mine = [each for each in votes if row["about"] in ("(all)", each["kind"])]
        held = [each for each in mine if (each["vote_radius"] or 0) >= row["radius"]]
        right = [each for each in held if each["exact_match"] == 1]
        count = len(held if row["curve"] == "certified" else right)
        assert (row["certified"], row["questions"]) == (count, len(mine))
        assert row["share"] == pytest.approx(count / len(mine))
    names = {"mean rouge_l": "score_bounds", "percentile of rouge_l": "score_percentile_bounds"}
    for row in shown["certified-scores"]:
        mine = [each for each in votes if row["about"] in ("(all)", each["kind"])]
        bounds = [each[names[row["curve"]]][[0.05, 0.1].index(row["radius"])] or 0.0 for each in mine]
        assert row["certified"] == pytest.approx(np.mean(bounds)) and row["questions"] == len(mine)


def test_the_audit_is_content(done: dict[str, Any]) -> None:
    assert audit_run(RunDirectory.open(str(done["here"] / "mine"))).sound


def test_smoothed_tokens_are_those_of_the_image_without_noise(done: dict[str, Any]) -> None:
    job = load_job(done["here"] / "job.yaml", ["certify.sigma=1e-9"])
    assert job.answer is not None
    answerer = load_answerer(job.answer, job.encoder)
    pair = next(iter(open_source(job.data).read(next(iter(open_source(job.data).units(1))))))
    x = answerer.prepare(Image.open(io.BytesIO(pair.image or b"")))
    asker = Asker(job, job.answer, answerer, Meter(answerer.device))
    clean = answerer.image_tokens(torch.from_numpy(x)[None].float() / 255)[0]
    torch.testing.assert_close(asker.smoothed_tokens(AskedPair(pair, x, ()), 1), clean, rtol=0, atol=1e-5)


def test_votes_of_several_pairs_together_are_those_of_each(done: dict[str, Any]) -> None:
    """Pairs share batches: of 20 answers one at most may then differ by the rounding of a batch's arithmetic."""
    job = load_job(done["here"] / "job.yaml", ["answer.batch=100"])
    assert job.answer is not None
    answerer = load_answerer(job.answer, job.encoder)
    source = open_source(job.data)
    questions = read_questions(job.answer)
    asked = []
    for pair in (pair for unit in source.units(2) for pair in source.read(unit)):
        x = answerer.prepare(Image.open(io.BytesIO(pair.image or b"")))
        asked.append(AskedPair(pair, x, questions.of(pair.pair_id)))
    together = Asker(job, job.answer, answerer, Meter(answerer.device)).votes(asked)
    rows = {(row["pair_id"], row["question_id"]): row for row in done["rows"] if row["subject"] == "vote"}
    assert sum(map(len, together)) == len(rows)
    for each, votes in zip(asked, together, strict=True):
        for question, (result, _) in zip(each.questions, votes, strict=True):
            row = rows[each.pair.pair_id, question.question_id]
            assert (result.answer, result.draws) == (row["answer"], row["draws"])
            assert result.votes is not None and abs(result.votes - row["votes"]) <= 1


def test_questions_of_other_data_are_refused_before_any_work(done: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text('{"pair": "elsewhere#1", "question": "what?"}\n')
    job = load_job(done["here"] / "job.yaml", [f"answer.questions={tmp_path}/other.jsonl"])
    with pytest.raises(JobError, match=r"(?s)any of the first 3 pairs.*'elsewhere#1'.*another split"):
        Driver(job).check()
    setting = f"answer.questions={tmp_path}/other.jsonl"
    code, said = smoothcert("plan", str(done["here"] / "job.yaml"), "--no-probe", "--set", setting)
    assert code == 2 and "no question about any of the first" in said and "'elsewhere#1'" in said


def test_what_needs_reference_answers_is_refused_where_there_are_none(
    done: dict[str, Any], tmp_path: Path
) -> None:
    lines = [{name: each[name] for name in ("pair", "id", "question")} for each in done["asked"]]
    (tmp_path / "bare.jsonl").write_text("\n".join(map(json.dumps, lines)))
    job = load_job(done["here"] / "job.yaml", [f"answer.questions={tmp_path}/bare.jsonl"])
    assert job.answer is not None
    task = AnswerTask(job.answer)
    with pytest.raises(JobError, match=r"(?s)vote\.score='rouge_l' needs reference answers.*none of the"):
        task._refuse_unanswered(read_questions(job.answer))
    vote = job.answer.vote.model_copy(update={"score": None, "classes": "right"})
    right = AnswerTask(job.answer.model_copy(update={"vote": vote, "judge": None}))
    with pytest.raises(JobError, match=r"vote\.classes='right' needs reference answers"):
        right._refuse_unanswered(read_questions(job.answer))


def test_other_numbers_of_image_tokens_than_the_model_makes_stop_before_any_work(
    done: dict[str, Any],
) -> None:
    driver = Driver(load_job(done["here"] / "job.yaml"))
    driver.inputs.share(
        AnswerInputs
    ).answerer._prompts._count += 1  # as a checkpoint with a wrong sequence length
    with pytest.raises(JobError, match=r"(?s)fails on the first question: ValueError.*image tokens"):
        driver.check()


def test_a_target_longer_than_an_answer_may_be_is_refused(done: dict[str, Any]) -> None:
    target = " ".join(["a small red circle"] * 5)
    attack = f"attack: pgd, norm: l2, budgets: [0.5], objective: target_answer, target_answer: {target}, subjects: bare"
    job = load_job(done["here"] / "job.yaml", [f"answer.attacks=[{{{attack}}}]"])
    with pytest.raises(JobError, match=r"(?s)takes \d+ tokens with its end.*max_new_tokens=12.*or more"):
        Driver(job).check()


def test_the_bundled_model_is_as_good_as_its_card_says() -> None:
    """On 120 held-out scenes; the seed is fixed, so that only another model or library changes the share."""
    from smoothcert.datasets.shape_questions import ask_about
    from smoothcert.datasets.synthetic import draw_scenes
    from smoothcert.job.answer import AnswerSection

    section = AnswerSection(model="bundled:shapes-llava", questions="-", max_new_tokens=14, batch=128)
    answerer = load_answerer(section, EncoderSection(model="-", device="cpu", threads=1))
    rng = np.random.default_rng(77)
    images, captions, _ = draw_scenes(rng, 120, 32)
    asked = [(place, each) for place, caption in enumerate(captions) for each in ask_about(caption, rng)]
    asked.sort(key=lambda pair: pair[1].kind == "caption")
    pixels = (
        torch.from_numpy(images[[place for place, _ in asked]].transpose(0, 3, 1, 2).copy()).float() / 255
    )
    said = answerer.answer(pixels, [each.question for _, each in asked], [0] * len(asked))
    right = [answer.text in (each.answer, each.other) for answer, (_, each) in zip(said, asked, strict=True)]
    assert np.mean(right) >= 0.99
    assert load_encoder(EncoderSection(model="bundled:shapes-llava", threads=1)).feature_dim == 96
