"""vLLM's offline engine as an answerer: the tower is ours, so that noise goes on x; vLLM is given its image tokens.

Written against vLLM's documentation (multimodal inputs, embedding inputs) and held against a stand-in of its interface
in the tests; it has not been run with vLLM itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from smoothcert.answerers.base import Answerer, TextAnswer
from smoothcert.answerers.prompts import Prompts
from smoothcert.encoders.tower import TowerEncoder
from smoothcert.errors import JobError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from smoothcert.job.answer import AnswerSection

FAMILIES = ("llava", "qwen2_vl", "qwen2_5_vl")
"""Those whose image tokens vLLM documents how to take."""
_MEMORY = 0.8
"""Share of the GPU's memory that vLLM may take; the tower needs the rest."""


class VllmAnswerer(Answerer):
    """A language model in vLLM behind a tower of ours; answers in batches of vLLM's own making.

    Args:
        tower: of the model, without its language model.
        tokenizer: of the model.
        template: prompt with ``{question}`` and the image token once.
        section: of the job.
        directory: of the model.

    Raises:
        JobError: vLLM is not installed, does not take this family's image tokens, or the template does not fit.
    """

    has_tokens = True

    def __init__(
        self, tower: TowerEncoder, tokenizer: Any, *, template: str, section: AnswerSection, directory: str
    ) -> None:
        config = tower.model.config
        if config.model_type not in FAMILIES:
            raise JobError(
                f"answer.backend='vllm' takes image tokens of {', '.join(FAMILIES)}, not of {config.model_type}",
                remedy="set answer.backend: transformers",
            )
        vllm = _vllm()
        self.tower, self._section = tower, section
        self._sampling = vllm.SamplingParams
        self._ends = {tokenizer.eos_token_id}
        self.name, self.input_size = tower.name, tower.input_size
        self.device, self.dtype = tower.device, str(tower.dtype).removeprefix("torch.")
        self.template = template
        self.template_digest = hashlib.sha256(template.encode()).hexdigest()
        what = f"vllm {vllm.__version__} {tower.digest} {section.max_new_tokens} {section.temperature!r}"
        self.digest = hashlib.sha256(what.encode()).hexdigest()
        # vLLM widens the one image token itself
        self._prompts = Prompts(tokenizer, template, config.image_token_id, 1, model=tower.name)
        self._engine = vllm.LLM(
            model=directory,
            dtype=self.dtype,
            trust_remote_code=False,
            enable_mm_embeds=True,
            limit_mm_per_prompt={"image": 1},
            gpu_memory_utilization=_MEMORY,
            max_num_seqs=section.batch,
        )

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """See ``Answerer.prepare``."""
        return self.tower.prepare(image)

    def answer(
        self, pixels: torch.Tensor, questions: Sequence[str], seeds: Sequence[int]
    ) -> list[TextAnswer]:
        """See ``Answerer.answer``."""
        return self.answer_tokens(self.image_tokens(pixels), questions, seeds)

    @torch.inference_mode()
    def image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """See ``Answerer.image_tokens``."""
        return self.tower.image_tokens(pixels)

    def answer_tokens(
        self, tokens: torch.Tensor, questions: Sequence[str], seeds: Sequence[int]
    ) -> list[TextAnswer]:
        """See ``Answerer.answer_tokens``."""
        asked = [
            {"prompt_token_ids": ids, "multi_modal_data": {"image": self._image(each)}}
            for ids, each in zip(self._prompts.ids(questions), tokens, strict=True)
        ]
        section = self._section
        sampling = [
            self._sampling(
                temperature=section.temperature,
                max_tokens=section.max_new_tokens,
                **({"seed": seed % 2**31} if section.temperature else {}),
            )
            for seed in seeds
        ]
        return [
            self._read(each.outputs[0]) for each in self._engine.generate(asked, sampling, use_tqdm=False)
        ]

    def _image(self, tokens: torch.Tensor) -> Any:
        """Image tokens (T, d) as vLLM takes them: (1, T, d); Qwen-VL's with the grid that they lie on."""
        embeds = tokens[None].to(self.tower.dtype).cpu()
        grid = self.tower.other_inputs(1).get("image_grid_thw")
        return embeds if grid is None else {"image_embeds": embeds[0], "image_grid_thw": grid.cpu()}

    def _read(self, output: Any) -> TextAnswer:
        ids = list(output.token_ids)
        if ids and ids[-1] in self._ends:
            ids.pop()
        return TextAnswer(output.text.strip(), len(ids), output.finish_reason != "length")


def _vllm() -> Any:
    try:
        import vllm
    except ImportError as exc:
        raise JobError(
            f"answer.backend='vllm' needs the package vllm, which cannot be imported here: {exc}",
            remedy="pip install 'smoothcert[vllm]' on every machine that answers (it needs a GPU), or set "
            "answer.backend: transformers",
        ) from exc
    return vllm
