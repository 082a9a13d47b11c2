"""Attacks on the answers of the bundled model, through the command line, and against transformers' own arithmetic."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta

from smoothcert.answerers.loading import load_answerer
from smoothcert.answerers.pretrained import PretrainedAnswerer
from smoothcert.attacks import make_attack
from smoothcert.attacks.noise import NoiseKey, draw_chunks
from smoothcert.attacks.objectives.answer import AnswerObjective
from smoothcert.attacks.token_subject import TokenSubject
from smoothcert.audit.audit import audit_run
from smoothcert.datasets.image_question import ImageQuestion
from smoothcert.datasets.shape_questions import ask_about
from smoothcert.datasets.synthetic import draw_scenes
from smoothcert.defences import ConvolutionalPurifier, LinearMapper, save_module
from smoothcert.defences.defended_tower import defend_tower
from smoothcert.encoders import KnownEncoder
from smoothcert.errors import EncoderError, JobError
from smoothcert.job import EncoderSection, load_job
from smoothcert.job.answer import AnswerSection
from smoothcert.job.encoder import DefenceSection
from smoothcert.report.breakdowns import breakdown_questions
from smoothcert.report.pairs import shown_pairs
from smoothcert.runtime.driver import Driver
from smoothcert.sql import Query
from smoothcert.store import RunDirectory
from smoothcert.summary.summary import summarise
from smoothcert.work.answer.attacked_rows import AttackedAnswerRowMaker, Certified
from smoothcert.work.answer.attacking import AnswerAttacker
from smoothcert.work.answer.judging import Judged
from smoothcert.work.attack.metered import Meter
from smoothcert.work.inputs import Inputs
from smoothcert.work.tasks import phases_of

shapes_run = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "shapes_run.py")))
smoothcert = shapes_run.smoothcert
PAIRS, KINDS = 3, ("count", "place", "presence", "relation", "size")


def write_job(here: Path, target: Path) -> Path:
    small = {"steps": 3, "eot_draws": 4, "evaluate_draws": 16}
    section = {
        "smooth_draws": 4,
        "max_new_tokens": 8,
        "subjects": ["defended", "vote"],
        "defence": {"purifier": str(here / "blur.safetensors")},
        "vote": {"pilot_draws": 3, "max_draws": 16},
        "attacks": [
            {
                "attack": "pgd",
                "norm": "l2",
                "budgets": [0.05, 1.5],
                "subjects": ["bare", "defended", "vote"],
                **small,
            },
            {
                "attack": "m-attack",
                "objective": "matching",
                "target_image": str(target),
                "subjects": ["bare", "smoothed"],
                **small,
            },
        ],
    }
    return shapes_run.write_job(here, {"max_draws": 16, "radii": [0.05]}, section)


def blur() -> torch.Tensor:
    """Weights of a purifier that takes half of each pixel from its neighbours."""
    kernel = torch.zeros(3, 3, 3, 3)
    for channel in range(3):
        kernel[channel, channel] = 0.5 / 9
        kernel[channel, channel, 1, 1] -= 0.5
    return kernel


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run over three pairs, the image of one of which is broken at first."""
    here = tmp_path_factory.mktemp("attacked")
    asked = shapes_run.write_shapes(here, PAIRS, KINDS)
    images = sorted((here / "shapes").rglob("*.png"))
    save_module(here / "blur.safetensors", ConvolutionalPurifier.kind, {"layers.0.weight": blur()})
    job = write_job(here, images[0])
    with shapes_run.broken(images[1]):
        told = {
            "here": here,
            "asked": asked,
            "first": smoothcert("certify", str(job)),
            "broken": rows_of(here),
        }
    told["retry"] = smoothcert(
        "retry", str(here / "mine"), "--table", "attacked_answers", "--where", "status <> 'ok'"
    )
    told["rows"] = rows_of(here)
    return told


def rows_of(here: Path) -> list[dict[str, Any]]:
    with Query([RunDirectory.open(str(here / "mine"))]) as query:
        return query.sql("SELECT * FROM attacked_answers").to_pylist()


def test_each_question_has_one_row_for_each_attack_subject_and_budget(done: dict[str, Any]) -> None:
    assert done["first"][0] == done["retry"][0] == 0, (done["first"], done["retry"])
    found = Counter(
        (row["question_id"], row["attack"], row["subject"], row["budget"]) for row in done["rows"]
    )
    ways = [("pgd", subject, budget) for subject in ("bare", "defended", "vote") for budget in (0.05, 1.5)]
    ways += [("m-attack", subject, 16 / 255) for subject in ("bare", "smoothed")]
    assert found == Counter((line["id"], *way) for line in done["asked"] for way in ways)
    assert {row["status"] for row in done["rows"]} == {"ok"}
    assert "Answers under attack" in " ".join(done["first"][1].split())


def test_a_broken_image_was_quarantined_once_a_subject_and_budget(done: dict[str, Any]) -> None:
    bad = Counter((row["attack"], row["subject"]) for row in done["broken"] if row["status"] != "ok")
    assert bad == {
        ("pgd", "bare"): 2,
        ("pgd", "defended"): 2,
        ("pgd", "vote"): 2,
        ("m-attack", "bare"): 1,
        ("m-attack", "smoothed"): 1,
    }


def test_rows_keep_the_budget_and_say_what_follows_from_the_answers(done: dict[str, Any]) -> None:
    references = {line["id"]: line["answers"] for line in done["asked"]}
    for row in done["rows"]:
        norm = row["perturbation_l2"] if row["norm"] == "l2" else row["perturbation_linf"]
        assert 0 < norm <= row["budget"] or row["success"] is None or row["answer"] == row["clean_answer"]
        right = [row[name] in references[row["question_id"]] for name in ("clean_answer", "answer")]
        right = [
            each or any(f" {text} " in f" {row[name]} " for text in references[row["question_id"]])
            for each, name in zip(right, ("clean_answer", "answer"), strict=True)
        ]
        if row["subject"] != "vote":  # whose classes are normalised: 'two' is '2'
            assert [row["clean_right"], row["right"]] == right
        assert row["success"] == (not row["right"] if row["clean_right"] else None)


def test_certified_answers_are_not_beaten(done: dict[str, Any]) -> None:
    """A certificate fails with probability 0.05 and an outcome is misjudged with 0.001; seeds are fixed."""
    votes = [row for row in done["rows"] if row["subject"] == "vote" and row["vote_radius"] is not None]
    within = [row for row in votes if row["perturbation_l2"] <= row["vote_radius"]]
    assert within and not any(row["violation"] for row in within)
    assert all(row["violation"] is None for row in votes if row not in within)


def test_progress_expects_what_searches_and_judges_take(done: dict[str, Any]) -> None:
    """At most, since searches stop where they succeed: here three steps, of which one at least is always made."""
    driver = Driver(load_job(done["here"] / "job.yaml"))
    (phase,) = [each for each in phases_of(driver.job) if each.name == "attacked answers"]
    for task, attack in zip(phase.tasks, ("pgd", "m-attack"), strict=True):
        rows = [row for row in done["rows"] if row["attack"] == attack]
        judged = sum(row["draws"] if row["subject"] == "vote" else 1 for row in rows)
        searched = {(row["subject"], row["budget"], row["pair_id"]): row["queries"] for row in rows}
        queries = sum(searched.values()) if attack == "m-attack" else sum(row["queries"] for row in rows)
        expected = task.draws_per_pair(driver.inputs) * PAIRS
        assert queries / 4 + judged <= expected <= 3 * (queries + 2 * judged)


def test_the_view_and_the_summary_count_them(done: dict[str, Any]) -> None:
    run = RunDirectory.open(str(done["here"] / "mine"))
    with Query([run]) as query:
        view = query.sql("SELECT * FROM attacked_answer_accuracy").to_pylist()
    figures = summarise(run.url).answers
    assert len(view) == 8
    for line in view:
        mine = [
            row
            for row in done["rows"]
            if all(row[name] == line[name] for name in ("attack", "subject", "budget"))
        ]
        counted = [row["success"] for row in mine if row["success"] is not None]
        assert line["acc"] == pytest.approx(np.mean([row["right"] for row in mine]))
        assert line["asr"] == pytest.approx(np.mean(counted))
    figure = figures["answers_attack_success/pgd_l21.5_bare"]
    assert figure.of == sum(bool(row["clean_right"]) for row in done["rows"] if _is(row, "bare", 1.5))
    audited = audit_run(run)
    assert (audited.sound, audited.attacks) == (True, len(done["rows"]))


def _is(row: dict[str, Any], subject: str, budget: float) -> bool:
    return row["attack"] == "pgd" and row["subject"] == subject and row["budget"] == budget


class Small:
    """The bundled model with some questions about scenes that the run does not have."""

    def __init__(self) -> None:
        section = AnswerSection(model="bundled:shapes-llava", questions="-", max_new_tokens=8)
        answerer = load_answerer(section, EncoderSection(model="-", device="cpu", threads=1))
        assert isinstance(answerer, PretrainedAnswerer)
        self.answerer = answerer
        rng = np.random.default_rng(5)
        images, captions, _ = draw_scenes(rng, 7, 32)
        asked = [
            (place, each)
            for place, caption in enumerate(captions)
            for each in ask_about(caption, rng)
            if each.kind in ("size", "place")
        ]
        places = [place for place, _ in asked]
        self.questions = [each.question for _, each in asked]
        self.x = torch.from_numpy(images[places].transpose(0, 3, 1, 2).copy()).float() / 255

    def goal(self, text: str | None = None) -> AnswerObjective:
        tokens = self.answerer.image_tokens(self.x)
        said = self.answerer.say(tokens, self.questions)
        wanted = said if text is None else [self.answerer.spell(text)] * len(said)
        forced = self.answerer.force(self.questions, wanted)
        shape = (tokens.shape[1], tokens.shape[2])
        return AnswerObjective(forced.ids, forced.answer, self.answerer.scores, shape, text is not None)

    def plainly(self, x: torch.Tensor, question: str) -> str:
        """What transformers' own generate says of pixels."""
        model, tokenizer = self.answerer._model, self.answerer._tokenizer
        prompt = self.answerer.prompt(question).replace("<image>", "<image>" * 17)
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            made = model.generate(
                input_ids=ids, pixel_values=x[None] * 2 - 1, max_new_tokens=8, do_sample=False
            )
        return tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True).strip()


@pytest.fixture(scope="module")
def small() -> Small:
    return Small()


@pytest.mark.parametrize(
    ("target", "norm"), [(None, "l2"), (None, "linf"), ("large", "l2"), ("in the centre", "l2")]
)
def test_what_a_search_calls_success_transformers_says(small: Small, target: str | None, norm: str) -> None:
    subject = TokenSubject(small.answerer.tower, "bare", sigma=0.0, eot_draws=1, chunk=64)
    names = [str(number) for number in range(len(small.questions))]
    found = make_attack("pgd", steps=10).run(
        subject, small.goal(target), small.x, names, norm=norm, budget=3.0 if norm == "l2" else 0.2
    )
    before = [small.plainly(x, question) for x, question in zip(small.x, small.questions, strict=True)]
    after = [small.plainly(x, question) for x, question in zip(found.images, small.questions, strict=True)]
    for record, old, new in zip(found.records, before, after, strict=True):
        assert record.success == (new != old if target is None else new == target)
    if target != "in the centre":  # no answer to questions of size
        assert sum(record.success for record in found.records) > len(names) / 2


def test_loss_and_gradient_are_those_of_transformers(small: Small) -> None:
    """Cross-entropy of the answer's words from its own forward pass of pixels with labels."""
    goal, model = small.goal(), small.answerer._model
    subject = TokenSubject(small.answerer.tower, "bare", sigma=0.0, eot_draws=1, chunk=64)
    _, mine = subject.gradient(small.x, lambda feature, rows: goal.select(rows).loss(feature), [])
    losses = goal.loss(subject.features(small.x, [])).detach()
    for row in range(3):
        x = small.x[row : row + 1].clone().requires_grad_(True)
        whole = (goal.ids[row] != 0) | goal.answer[row]
        ids = goal.ids[row][whole][None]
        labels = torch.where(goal.answer[row][whole][None], ids, -100)
        loss = model(input_ids=ids, pixel_values=x * 2 - 1, labels=labels).loss
        (gradient,) = torch.autograd.grad(loss, x)
        assert losses[row].item() == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
        torch.testing.assert_close(mine[row], gradient[0], rtol=1e-3, atol=1e-6)


def test_smoothed_and_voted_features_are_those_of_their_draws(small: Small) -> None:
    x, key = small.x[:2], [NoiseKey(1, name, "attack") for name in "ab"]
    noisy = [x[row] + 0.3 * next(draw_chunks(key[row], (3, 32, 32), 5, 5, x.device)) for row in range(2)]
    tokens = torch.stack([small.answerer.image_tokens(each).flatten(1) for each in noisy])
    goal = small.goal().select(torch.tensor([0, 1]))
    for rule, expected in (("smoothed", tokens.mean(1)), ("vote", tokens.flatten(1))):
        subject = TokenSubject(small.answerer.tower, rule, sigma=0.3, eot_draws=5, chunk=8)
        seen = subject.features(x, key)
        torch.testing.assert_close(seen, expected, rtol=1e-4, atol=1e-5)
    each = torch.stack([goal.margin(tokens[:, draw]) for draw in range(5)])
    torch.testing.assert_close(goal.margin(seen), each.median(0).values, rtol=1e-4, atol=1e-4)
    losses = torch.stack([goal.loss(tokens[:, draw]) for draw in range(5)])
    torch.testing.assert_close(goal.loss(seen), losses.mean(0), rtol=1e-4, atol=1e-5)


def test_defended_tokens_are_those_of_purified_noisy_images(small: Small, tmp_path: Path) -> None:
    """Against transformers' own features of blurred pixels; and the blur against torch's average pooling."""
    path = tmp_path / "blur.safetensors"
    save_module(path, ConvolutionalPurifier.kind, {"layers.0.weight": blur()})
    eye = defend_tower(small.answerer.tower, DefenceSection(purifier=str(path)), 0.3)
    defended, x = small.answerer.behind(eye), small.x[:2]

    def plain(pixels: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(pixels, (1, 1, 1, 1), mode="replicate")
        blurred = 0.5 * pixels + 0.5 * torch.nn.functional.avg_pool2d(padded, 3, stride=1)
        with torch.no_grad():
            return small.answerer._model.get_image_features(
                pixel_values=blurred * 2 - 1, return_dict=True
            ).pooler_output

    expected = torch.stack([*plain(x)])
    torch.testing.assert_close(defended.image_tokens(x), expected, rtol=1e-4, atol=1e-5)
    assert (defended.image_tokens(x) - small.answerer.image_tokens(x)).abs().max() > 1e-3
    assert len({defended.digest, small.answerer.digest}) == 2
    key = [NoiseKey(1, name, "attack") for name in "ab"]
    noisy = [x[row] + 0.3 * next(draw_chunks(key[row], (3, 32, 32), 5, 5, x.device)) for row in range(2)]
    subject = TokenSubject(eye, "smoothed", sigma=0.3, eot_draws=5, chunk=8, name="defended")
    means = torch.stack([torch.stack([*plain(each)]).flatten(1).mean(0) for each in noisy])
    torch.testing.assert_close(subject.features(x, key), means, rtol=1e-4, atol=1e-5)
    subject.check_gradients()


def test_a_mapper_of_whole_features_is_refused(small: Small, tmp_path: Path) -> None:
    width = small.answerer.tower.feature_dim
    save_module(tmp_path / "turn.safetensors", LinearMapper.kind, {"weight": torch.eye(width)})
    with pytest.raises(EncoderError, match="a language model reads tokens"):
        defend_tower(small.answerer.tower, DefenceSection(mapper=str(tmp_path / "turn.safetensors")), 0.3)


def test_a_certificate_that_is_beaten_is_a_violation() -> None:
    maker = AttackedAnswerRowMaker.__new__(AttackedAnswerRowMaker)
    maker._classes = "text"
    maker._section = load_answer_attack(alpha=0.01)
    question = ImageQuestion("1", "what?", ("cat",))
    judged = Judged("dog", ("dog",) * 30 + ("a cat",) * 4, (), 34)
    beaten = maker._against(Certified("cat", 0.5), 0.4, judged, question)
    assert beaten["violation"] is True
    assert beaten["certified_share_ucb"] == pytest.approx(beta.ppf(0.99, 5, 30))
    assert maker._against(Certified("cat", 0.5), 0.6, judged, question)["violation"] is None
    close = Judged("dog", ("dog",) * 18 + ("a cat",) * 16, (), 34)
    assert maker._against(Certified("cat", 0.5), 0.4, close, question)["violation"] is False


def test_answers_to_a_multiple_choice_count_by_the_option_that_they_name() -> None:
    maker = AttackedAnswerRowMaker.__new__(AttackedAnswerRowMaker)
    maker._classes, maker._section = "text", load_answer_attack(alpha=0.01)
    question = ImageQuestion("1", "which?", ("a dog",), None, ("a cat", "a dog"))
    for text, right in (("B.", True), ("(b) a dog", True), ("a dog", True), ("A", False), ("neither", False)):
        assert maker._right("bare", text, question) is right
    judged = Judged("cat", ("A.",) * 30 + ("B",) * 4, (), 34)
    assert maker._against(Certified("dog", 0.5), 0.4, judged, question)["violation"] is True
    assert maker._against(Certified("cat", 0.5), 0.4, judged, question)["violation"] is False


def load_answer_attack(**settings: Any) -> Any:
    attack = {"attack": "pgd", "norm": "l2", "budgets": 1.0, **settings}
    return AnswerSection.model_validate({"model": "-", "questions": "-", "attacks": [attack]}).attacks[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "target_answer"}, "belong together"),
        ({"target_answer": "yes"}, "belong together"),
        ({"objective": "target_answer", "target_answer": " "}, "target_answer is empty"),
        ({"objective": "answers"}, r"'answers' is unknown.*answer"),
        ({"keep": 3}, "keep is not known"),
        ({"surrogates": [{"model": "bundled:digits-clip"}]}, "searches the model itself"),
        ({"objective": "matching"}, "needs a target"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_answer_attack(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subjects": ["defended"]}, "needs a defence"),
        ({"defence": {"purifier": "blur.safetensors"}}, "defence is used by the subject 'defended' alone"),
        ({"subjects": ["bare", "defended"], "defence": {}}, "names neither purifier nor mapper"),
        (
            {"subjects": ["defended"], "defence": {"purifier": "a"}, "endpoint": "http://x"},
            "an endpoint takes images",
        ),
        (
            {"subjects": ["defended"], "defence": {"purifier": "a"}, "backend": "vllm"},
            "a defence needs backend: transformers",
        ),
    ],
)
def test_a_defence_and_its_subject_belong_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnswerSection.model_validate({"model": "-", "questions": "-", **settings})


def test_what_an_endpoint_does_not_show_cannot_be_attacked() -> None:
    section = {"model": "eye-1", "endpoint": "http://x", "questions": "-", "subjects": ["bare"]}
    attack = {"attack": "pgd", "norm": "l2", "budgets": 1.0, "subjects": ["bare"]}
    with pytest.raises(ValueError, match="neither gradients nor image tokens"):
        AnswerSection.model_validate({**section, "attacks": [attack]})
    AnswerSection.model_validate({**section, "attacks": [{**attack, "objective": "divergence"}]})


def test_an_encoder_of_another_size_is_refused_before_any_work(done: dict[str, Any]) -> None:
    attack = "{attack: pgd, norm: l2, budgets: 1.0, objective: divergence}"
    job = load_job(done["here"] / "job.yaml", [f"answer.attacks=[{attack}]"])
    assert job.answer is not None
    inputs = Inputs(job, KnownEncoder.rotating(input_size=(4, 6)))
    meter = Meter(torch.device("cpu"))
    with pytest.raises(JobError, match="a perturbation of one does not fit the other"):
        AnswerAttacker(inputs, job.answer.attacks[0], meter, None)


def test_the_report_shows_answers_before_and_under_attack(done: dict[str, Any]) -> None:
    run = RunDirectory.open(str(done["here"] / "mine"))
    with Query([run]) as query:
        pairs, _, _ = shown_pairs(query, run, PAIRS)
        (found,) = [
            each.ask(query)
            for each in breakdown_questions([run.info], None)
            if each.key == "attacked-answers"
        ]
    shown = {
        (pair["pair_id"], each["question"], each["subject"], each["budget"]): (
            each["clean_answer"],
            each["answer"],
        )
        for pair in pairs
        for each in pair["attacked_answers"]
    }
    rows = {
        (row["pair_id"], row["question"], row["subject"], row["budget"]): (row["clean_answer"], row["answer"])
        for row in done["rows"]
    }
    assert shown and shown.items() <= rows.items()
    assert found is not None and sum(row[found.columns.index("questions")] for row in found.rows) == len(rows)
