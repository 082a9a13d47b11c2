"""The model card of what was trained: for people, beside the files that a job names."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from smoothcert.job import TrainSection
from smoothcert.training.scores import Scores

Table = Mapping[float, tuple[Scores, Scores]]
"""By noise level, scores without and with what was trained."""


def write_card(
    name: str,
    section: TrainSection,
    facts: Mapping[str, object],
    before_and_after: Table,
) -> str:
    """Markdown, with front matter as model hubs read it.

    Args:
        name: of the job.
        section: the recipe.
        facts: what else is worth knowing, by name.
        before_and_after: scores on held-out pairs.
    """
    front = {"library_name": "smoothcert", "tags": ["adversarial-robustness", "randomized-smoothing"]}
    lines = ["---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {name}", ""]
    lines += [_use(section), "", "| fact | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in facts.items()]
    lines += [
        "",
        "Means over held-out pairs, before and after. They are estimates from a few draws, not certificates.",
        "",
        "| sigma | robustness score | smooth norm | cosine to the clean feature of the encoder as it was | accuracy |",
        "|---|---|---|---|---|",
    ]
    for sigma, (before, after) in sorted(before_and_after.items()):
        cells = (
            f"{before.robustness_score:.3f}, {after.robustness_score:.3f}",
            f"{before.smooth_norm:.3f}, {after.smooth_norm:.3f}",
            f"{before.clean_cosine:.3f}, {after.clean_cosine:.3f}",
            _accuracy(before, after),
        )
        lines.append(f"| {sigma:g} | {' | '.join(cells)} |")
    recipe = yaml.safe_dump({"train": section.model_dump(mode="json", exclude={"out"})}, sort_keys=False)
    return "\n".join([*lines, "", "## Recipe", "", "```yaml", recipe.strip(), "```", ""])


def _use(section: TrainSection) -> str:
    if section.tunes_encoder:
        return "A model tuned by `smoothcert train`. Name the folder `model` beside this file in `encoder.model`."
    parts = [stage for stage in section.stages if stage in ("purifier", "mapper")]
    fields = " and ".join(f"`encoder.{part}`" for part in parts) or "`encoder.mapper`"
    return f"A defence trained by `smoothcert train`. Name this directory in {fields} of a job."


def _accuracy(before: Scores, after: Scores) -> str:
    if before.accuracy is None or after.accuracy is None:
        return "-"
    return f"{before.accuracy:.3f}, {after.accuracy:.3f}"
