"""Commands of the image in a login shell of Debian, which resets PATH: what the Ray cluster launcher and KubeRay run.

The image's root is a folder here: the programs in it write down how they were called, the profile is Debian's with that
folder before its paths, and bash reads it as the profile of a user.
"""

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
BIN = "/opt/smoothcert/bin"
# what /etc/profile of Debian 12 does to a user who is not root, and then for everything in profile.d
PROFILE = """
PATH="{root}/usr/local/bin:{root}/usr/bin"
export PATH
for i in {root}/etc/profile.d/*.sh; do
  if [ -r "$i" ]; then . "$i"; fi
done
"""


@dataclass(frozen=True)
class Image:
    """A root folder in which the image's files lie where the Dockerfile puts them."""

    root: Path

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as ``bash --login`` in a container of the image does."""
        return subprocess.run(
            ["/bin/bash", "--login", "-c", command],
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "HOME": str(self.root / "home"),
                "PATH": f"{self.root}{BIN}:/usr/bin:/bin",  # what ENV in the Dockerfile sets
                "RAY_HEAD_IP": "10.0.0.1",
            },
        )

    def calls(self) -> list[list[str]]:
        """How programs of the image were called so far: name and arguments."""
        log = self.root / "calls"
        return [shlex.split(line) for line in log.read_text().splitlines()] if log.exists() else []


def copied_profile() -> tuple[Path, str]:
    """The file that the Dockerfile copies into /etc/profile.d, and its place in the image."""
    for line in (INFRA / "image/Dockerfile").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and words[-1].startswith("/etc/profile.d/"):
            return ROOT / words[-2], words[-1]
    raise AssertionError("the Dockerfile copies nothing into /etc/profile.d")


@pytest.fixture
def bare_image(tmp_path: Path) -> Image:
    """Without anything in profile.d."""
    root = tmp_path / "root"
    for folder in (BIN, "/usr/local/bin", "/usr/bin", "/etc/profile.d", "/home"):
        (root / folder[1:]).mkdir(parents=True)
    for program in ("ray", "smoothcert", "python"):
        file = root / BIN[1:] / program
        file.write_text(f'#!/bin/bash\nprintf "%q " {program} "$@" >> {root}/calls; echo >> {root}/calls\n')
        file.chmod(0o755)
    # a Python without our packages, as in the base image
    other = root / "usr/local/bin/python"
    other.write_text("#!/bin/bash\nexit 1\n")
    other.chmod(0o755)
    (root / "home/.bash_profile").write_text(PROFILE.format(root=root))
    return Image(root)


@pytest.fixture
def image(bare_image: Image) -> Image:
    source, place = copied_profile()
    # /etc/profile.d reads only such files
    assert place.endswith(".sh")
    text = source.read_text(encoding="utf-8")
    (bare_image.root / place[1:]).write_text(text.replace(BIN, f"{bare_image.root}{BIN}"))
    return bare_image


def cluster() -> Any:
    return yaml.safe_load((INFRA / "ray-cluster/cluster.yaml").read_text(encoding="utf-8"))


def rayjob() -> Any:
    documents = yaml.safe_load_all((INFRA / "kuberay/rayjob.yaml").read_text(encoding="utf-8"))
    return next(each for each in documents if each["kind"] == "RayJob")


def test_a_login_shell_without_the_profile_finds_nothing(bare_image: Image) -> None:
    done = bare_image.run("ray stop")
    assert done.returncode == 127 and "ray: command not found" in done.stderr
    assert bare_image.run("python -c 'import smoothcert'").returncode == 1, "another Python"
    assert bare_image.calls() == []


def test_a_login_shell_of_the_image_finds_its_programs(image: Image) -> None:
    for program in ("ray", "smoothcert", "python"):
        done = image.run(f"command -v {program}")
        assert done.stdout.strip() == f"{image.root}{BIN}/{program}", done.stderr
    assert image.run("echo $PATH").stdout.strip().endswith(f":{image.root}/usr/bin"), "the rest is kept"


def test_every_command_of_the_cluster_launcher_runs(image: Image) -> None:
    commands = [*cluster()["head_start_ray_commands"], *cluster()["worker_start_ray_commands"]]
    for command in commands:
        # a limit that this machine does not allow is no fault of the command
        done = image.run(command.replace("ulimit -n 65536", "true"))
        assert (done.returncode, done.stderr) == (0, ""), command
    called = image.calls()
    assert [call[:2] for call in called] == [["ray", "stop"], ["ray", "start"]] * 2
    assert "--head" in called[1] and "--address=10.0.0.1:6379" in called[3]


def test_what_kuberay_runs_in_login_shells(image: Image) -> None:
    job = rayjob()["spec"]
    done = image.run(job["entrypoint"])
    assert (done.returncode, done.stderr) == (0, "")
    # Ray is started by the operator, and stopped by the hook
    done = image.run("ray start --head --block")
    assert (done.returncode, done.stderr) == (0, "")
    container = job["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    program, flag, script = container["lifecycle"]["preStop"]["exec"]["command"]
    assert (program, flag) == ("bash", "-c")
    done = image.run(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert [call[:2] for call in image.calls()] == [
        ["smoothcert", "certify"],
        ["ray", "start"],
        ["ray", "drain-node"],
        ["ray", "stop"],
    ]


def test_the_build_of_the_image_tries_a_login_shell() -> None:
    lines = (INFRA / "image/Dockerfile").read_text(encoding="utf-8").splitlines()
    runs = [line for line in lines if line.startswith("RUN bash --login -c")]
    assert runs and "ray" in runs[0] and "smoothcert --help" in runs[0]
