"""Puts the folders beside the code that people copy from into the wheel, as ``smoothcert/share/``.

Everything else is in pyproject.toml. An editable install has no copies: ``smoothcert.shipped`` finds the folders here.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

FOLDERS = ("jobs", "schemas", "recipes")
KINDS = (".yaml", ".json", ".py")


class BuildWithShare(build_py):
    """Builds the package, and copies the folders into it."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for folder in FOLDERS:
            target = Path(self.build_lib) / "smoothcert" / "share" / folder
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for file in sorted(Path(__file__).parent.joinpath(folder).iterdir()):
                if file.suffix in KINDS:
                    shutil.copyfile(file, target / file.name)


setup(cmdclass={"build_py": BuildWithShare})
