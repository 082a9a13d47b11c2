"""Parts on disk: read back as written, known by content, refused with the defence's own name."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from smoothcert.defences import (
    ResidualMapper,
    TrainedFor,
    UNetPurifier,
    bundled_defences,
    defend,
    read_part,
    save_part,
)
from smoothcert.encoders import Encoder, KnownEncoder, load_encoder
from smoothcert.errors import EncoderError
from smoothcert.job.encoder import DefenceSection, EncoderSection

SIDE, DIM = 8, 4
TRAINED = TrainedFor(sigma=(0.25, 0.5), encoder_digest="e", data_digest="d", recipe="r")


@pytest.fixture(scope="module")
def base() -> KnownEncoder:
    torch.set_num_threads(1)
    return KnownEncoder.rotating(2.0, input_size=(SIDE, SIDE), feature_dim=DIM)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A purifier and a mapper whose weights do something."""
    place = tmp_path / "my psm"
    place.mkdir()
    torch.manual_seed(0)
    parts = {
        "purifier": UNetPurifier((SIDE, SIDE), (8,)),
        "mapper": ResidualMapper(DIM, groups=2, width=8, heads=2, blocks=1),
    }
    for name, module in parts.items():
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        save_part(place / f"{name}.safetensors", module, TRAINED)
    return place


def trained_mapper_of_tokens(width: int) -> ResidualMapper:
    """One that is no longer the identity."""
    mapper = ResidualMapper(width, width=8, heads=2, blocks=1, tokens=True)
    torch.nn.init.normal_(mapper.leave.weight, std=0.1)
    return mapper


def both(folder: Path) -> DefenceSection:
    return DefenceSection(purifier=str(folder), mapper=str(folder))


def pixels() -> torch.Tensor:
    return torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_a_directory_holds_both_parts_and_each_is_read_as_written(base: Encoder, folder: Path) -> None:
    level = torch.full((3,), 0.25)
    purifier, mapper = read_part(str(folder), "purifier"), read_part(str(folder), "mapper")
    assert purifier.trained == mapper.trained == TRAINED
    inner = base.encode_images(purifier.module(pixels(), level))
    wanted = torch.nn.functional.normalize(mapper.module(inner, level), dim=1)
    defended = defend(base, both(folder), "mine", 0.25)
    torch.testing.assert_close(defended.encode_images(pixels()), wanted)
    by_file = DefenceSection(
        purifier=str(folder / "purifier.safetensors"), mapper=str(folder / "mapper.safetensors")
    )
    assert defend(base, by_file, "mine", 0.25).digest == defended.digest


def test_the_level_is_part_of_what_a_defended_encoder_is(base: Encoder, folder: Path) -> None:
    one, other = (defend(base, both(folder), "mine", sigma) for sigma in (0.25, 0.5))
    assert one.digest != other.digest
    assert not torch.allclose(one.encode_images(pixels()), other.encode_images(pixels()))
    with pytest.raises(EncoderError, match="depends on the noise level, and none is given"):
        defend(base, both(folder), "mine")


@pytest.mark.parametrize(("sigma", "notes"), [(0.25, 0), (0.4, 0), (0.5, 0), (0.2, 2), (1.0, 2)])
def test_a_level_outside_the_trained_range_is_noted_for_each_part(
    base: Encoder, folder: Path, sigma: float, notes: int
) -> None:
    found = [note for note in defend(base, both(folder), "mine", sigma).notes if "used at" in note]
    assert len(found) == notes
    for note in found:
        assert note.startswith("defence 'mine'") and f"used at {sigma:g}" in note and "0.25 to 0.5" in note


def test_parts_of_another_encoder_are_noted(base: Encoder, folder: Path) -> None:
    found = defend(base, both(folder), "mine", 0.25).notes
    assert len(found) == 2
    for part, note in zip(("purifier", "mapper"), found, strict=True):
        assert note.startswith(
            f"defence 'mine': its {part} was trained for another encoder than '{base.name}'"
        )


def test_a_module_of_code_may_ask_for_the_level(base: Encoder, tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "import torch\n"
        "class Scaling(torch.nn.Module):\n"
        "    def __init__(self, by):\n"
        "        super().__init__()\n"
        "        self.by = by\n"
        "    def forward(self, pixels):\n"
        "        return pixels * self.by\n"
        "def make(encoder, sigma):\n"
        "    return Scaling(1 - sigma)\n"
    )
    section = DefenceSection(purifier=f"{code}:make")
    defended = defend(base, section, "mine", 0.25)
    torch.testing.assert_close(defended.encode_images(pixels()), base.encode_images(pixels() * 0.75))
    assert defended.digest != defend(base, section, "mine", 0.5).digest


def test_a_mapper_of_tokens_leaves_pooled_features_alone(tmp_path: Path) -> None:
    digits = load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu", threads=1))
    torch.manual_seed(0)
    save_part(tmp_path / "mapper.safetensors", trained_mapper_of_tokens(64), TRAINED)
    defended = defend(digits, DefenceSection(mapper=str(tmp_path)), "mine", 0.25)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(defended.encode_images(images), digits.encode_images(images))
    assert defended.mapper is None and defended.token_mapper is not None
    assert not torch.allclose(defended.encode_patches(images), digits.encode_patches(images))


def test_a_mapper_of_other_tokens_is_an_error_before_work(tmp_path: Path, base: Encoder) -> None:
    digits = load_encoder(EncoderSection(model="bundled:digits-clip", device="cpu", threads=1))
    save_part(tmp_path / "mapper.safetensors", trained_mapper_of_tokens(6), TRAINED)
    section = DefenceSection(mapper=str(tmp_path))
    with pytest.raises(
        EncoderError, match="defence 'mine': .* made for tokens of size 6, .*digits-clip' have 64"
    ):
        defend(digits, section, "mine", 0.25)
    with pytest.raises(EncoderError, match="defence 'mine': encoder 'known' has no patch features"):
        defend(base, section, "mine", 0.25)
    code = tmp_path / "narrow.py"
    code.write_text(
        "import torch\n"
        "class Narrow(torch.nn.Linear):\n"
        "    tokens = True\n"
        "def make(encoder):\n"
        "    return Narrow(6, 6)\n"
    )
    with pytest.raises(EncoderError, match=r"defence 'mine': its mapper fails on a tensor of \(1, 16, 64\)"):
        defend(digits, DefenceSection(mapper=f"{code}:make"), "mine", 0.25)


def test_names_for_people() -> None:
    for fields, wanted in (
        ({"purifier": "a/psm", "mapper": "a/psm"}, "psm"),
        ({"purifier": "bundled:digits-psm", "mapper": "bundled:digits-psm"}, "digits-psm"),
        ({"purifier": "a/psm/"}, "purifier psm"),
        ({"purifier": "blur.safetensors", "mapper": "nets.py:turn"}, "purifier blur, mapper nets.py:turn"),
    ):
        assert DefenceSection(**fields).label == wanted


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def strange(path: Path) -> None:
    safetensors.torch.save_file(
        {"weight": torch.zeros(1)},
        path,
        {"smoothcert": "unet_purifier", "settings": '{"input_size": [8, 8]}'},
    )


def no_json(path: Path) -> None:
    safetensors.torch.save_file(
        {"weight": torch.zeros(1)}, path, {"smoothcert": "unet_purifier", "settings": "{"}
    )


def other_size(path: Path) -> None:
    save_part(path, UNetPurifier((16, 16), (8,)), TRAINED)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (cut, "is damaged or cut short"),
        (strange, "its content is not that of a unet_purifier"),
        (no_json, "its content is not that of a unet_purifier"),
        (other_size, "was made for images of 16x16, encoder 'known' reads 8x8"),
        (Path.unlink, "No such file"),
    ],
)
def test_a_bad_purifier_is_an_error_that_names_the_defence(
    base: Encoder, folder: Path, harm: object, said: str
) -> None:
    harm(folder / "purifier.safetensors")  # type: ignore[operator]
    with pytest.raises(EncoderError) as caught:
        defend(base, both(folder), "mine", 0.25)
    assert said in str(caught.value) and "defence 'mine': purifier='" in str(caught.value)


def test_a_mapper_of_another_feature_size_is_an_error(base: Encoder, folder: Path) -> None:
    save_part(folder / "mapper.safetensors", ResidualMapper(DIM + 2, groups=2, width=8, heads=2), TRAINED)
    with pytest.raises(
        EncoderError, match="was made for features of size 6, those of encoder 'known' have 4"
    ):
        defend(base, both(folder), "mine", 0.25)


def test_an_unknown_bundled_defence_is_an_error_with_the_nearest(base: Encoder) -> None:
    assert bundled_defences() == sorted(bundled_defences())
    with pytest.raises(EncoderError, match="defence 'mine': purifier='bundled:digits-pms' is not bundled"):
        defend(base, DefenceSection(purifier="bundled:digits-pms"), "mine", 0.25)
