"""The shell scripts, run in a copy of the project files with programs that only note their calls.

Nothing here downloads or installs: the real installation is what a person, or CI, starts with.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.launch.place import OLD_PYTHON, PYTHON_WITHOUT_VENV, Place
from trainer.base.errors import UserError
from trainer.config.schema import DataConfig
from trainer.data.sources import reading

JOB = REPOSITORY / "launch" / "slurm.sbatch"
SCRIPTS = sorted([*REPOSITORY.glob("launch/*.sh"), JOB, REPOSITORY / ".ci" / "run"])
PROGRAMS = [path for path in SCRIPTS if path.name != "environment.sh"]
FILES = [
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    # Next to Python in the environment, which need not be activated.
    programs = str(Path(sys.executable).parent)
    shellcheck = shutil.which("shellcheck", path=f"{programs}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    command = [shellcheck, "--external-sources", str(script)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_its_python_imports_what_there_is(script: Path) -> None:
    lines = re.findall(r"^from trainer.+", script.read_text(), re.MULTILINE)
    exec("\n".join(lines), {})


@pytest.mark.parametrize("script", PROGRAMS, ids=lambda path: path.name)
def test_it_can_be_started(script: Path) -> None:
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("script", ["launch/quickstart.sh", "launch/test.sh", ".ci/run"])
class TestWithoutAFittingPython:
    def test_an_old_one_is_named(self, place: Place, script: str) -> None:
        place.program("python3", OLD_PYTHON)
        result = place.run(script)
        assert result.returncode == 2
        assert "3.11 or newer" in result.stderr
        assert "Python 3.9.2" in result.stderr
        assert not (place.root / ".venv").exists()

    def test_none_at_all(self, place: Place, script: str) -> None:
        result = place.run(script, PYTHON="python3.99")
        assert result.returncode == 2
        assert "no python3.99" in result.stderr
        assert "apt-get install python3 python3-venv" in result.stderr

    def test_debian_without_the_venv_package(self, place: Place, script: str) -> None:
        place.program("python3", PYTHON_WITHOUT_VENV)
        result = place.run(script)
        assert result.returncode == 2
        assert "apt-get install python3-venv" in result.stderr
        assert not (place.root / ".venv").exists()


class TestInstalling:
    def test_quickstart_installs_once(self, place: Place) -> None:
        first = place.run("launch/quickstart.sh")
        assert first.returncode == 0, first.stderr
        assert "1/3 Installing into .venv" in first.stdout
        (install,) = place.installs()
        assert install.endswith(f"--editable {place.root}")
        assert f"--constraint {place.root}/constraints.txt" in install

        second = place.run("launch/quickstart.sh")
        assert "1/3 Installed in .venv" in second.stdout
        assert not place.installs()

    def test_the_tests_add_their_extras_and_the_quickstart_needs_no_more(
        self, place: Place
    ) -> None:
        place.run("launch/quickstart.sh")
        place.run("launch/test.sh")
        install, apart = place.installs()
        assert install.endswith(f"--editable {place.root}[test]")
        # No other torch comes with torchvision, and Accelerate's command line does not see timm.
        assert apart.endswith(f"--no-deps --target {place.root}/.venv/timm timm torchvision")
        for script in ("launch/test.sh", "launch/quickstart.sh"):
            place.run(script)
            assert not place.installs()

    def test_the_tests_first_then_the_quickstart(self, place: Place) -> None:
        place.run("launch/test.sh")
        assert place.installs()
        place.run("launch/quickstart.sh")
        assert not place.installs()

    @pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
    def test_changed_project_files_install_again(self, place: Place, name: str) -> None:
        place.run("launch/quickstart.sh")
        with (place.root / name).open("a") as file:
            file.write("# changed\n")
        place.run("launch/quickstart.sh")
        assert len(place.installs()) == 1

    def test_a_moved_clone_installs_again(self, place: Place) -> None:
        place.run("launch/quickstart.sh")
        place.root = place.root.rename(place.root.with_name("moved"))
        place.run("launch/quickstart.sh")
        (install,) = place.installs()
        assert install.endswith("/moved")

    def test_a_failed_installation_is_tried_again(self, place: Place) -> None:
        failed = place.run("launch/quickstart.sh", FAIL_PIP="1")
        assert failed.returncode == 1
        assert "installation failed" in failed.stderr
        assert not any("train.py" in call for call in place.calls())
        assert place.run("launch/quickstart.sh").returncode == 0
        assert len(place.installs()) == 1


class TestQuickstart:
    def test_trains_the_default_recipe_with_the_arguments(self, place: Place) -> None:
        result = place.run("launch/quickstart.sh", "--train.epochs", "2", "--model.args", "{}")
        assert result.returncode == 0, result.stderr
        recipe = f"{place.root}/configs/fashion_mnist.yaml"
        last = f"{place.root}/train.py --config {recipe} --train.epochs 2 --model.args {{}}"
        assert place.calls()[-1] == last
        assert "trainer.data" in place.calls()[-2]

    def test_another_recipe_takes_the_place_of_the_default(self, place: Place) -> None:
        place.run("launch/quickstart.sh", "--config=configs/digits.yaml")
        assert place.calls()[-1] == f"{place.root}/train.py --config=configs/digits.yaml"

    @pytest.mark.parametrize(
        "arguments",
        [["--data.root", "x"], ["--data.root=x"], ["--data.name", "digits"], ["--config", "x"]],
    )
    def test_gets_no_data_where_the_arguments_choose_it(
        self, place: Place, arguments: list[str]
    ) -> None:
        result = place.run("launch/quickstart.sh", *arguments, FAIL_DATA="not asked for")
        assert result.returncode == 0, result.stderr
        assert not any("trainer.data" in call for call in place.calls())

    @pytest.mark.parametrize("code", [0, 1, 2, 75])
    def test_ends_as_the_training_does(self, place: Place, code: int) -> None:
        assert place.run("launch/quickstart.sh", EXIT_CODE=str(code)).returncode == code

    def test_says_what_the_trainer_said_where_no_data_can_be_had(self, place: Place) -> None:
        message = "data.root: no Fashion-MNIST, and no mirror answered"
        result = place.run("launch/quickstart.sh", FAIL_DATA=message, FAIL_APT="1")
        assert result.returncode == 2
        assert message in result.stderr
        assert not any("train.py" in call for call in place.calls())
        assert list((place.cache / "lockstep").rglob("*")) == [
            place.cache / "lockstep" / "fashion_mnist"
        ]


class TestDebianPackage:
    @pytest.fixture
    def package(self, tmp_path: Path) -> Path:
        """A package with the layout of dataset-fashion-mnist, and other bytes."""
        if shutil.which("dpkg-deb") is None:
            pytest.skip("this system has no dpkg-deb")
        tree = tmp_path / "package"
        folder = tree / "usr/share/datasets/fashion-mnist"
        folder.mkdir(parents=True)
        for name in FILES:
            (folder / name).write_bytes(name.encode())
        (tree / "DEBIAN").mkdir()
        (tree / "DEBIAN" / "control").write_text(
            "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\n"
            "Maintainer: Nobody <nobody@example.org>\nDescription: test\n"
        )
        path = tmp_path / "dataset-fashion-mnist_1_all.deb"
        subprocess.run(["dpkg-deb", "--build", tree, path], check=True, capture_output=True)
        return path

    def check(self, place: Place) -> None:
        folder = place.cache / "lockstep" / "fashion_mnist"
        assert sorted(path.name for path in folder.iterdir()) == FILES
        assert all((folder / name).read_text() == name for name in FILES)
        # Nothing temporary stays.
        assert list(folder.parent.iterdir()) == [folder]

    def test_fills_the_cache_when_the_mirrors_fail(self, place: Place, package: Path) -> None:
        place.environment |= {"PACKAGE": str(package), "SYSTEM_LISTS": "yes"}
        result = place.run("launch/quickstart.sh", FAIL_DATA="no mirror answered")
        assert result.returncode == 0, result.stderr
        assert "update" not in " ".join(place.calls())
        assert "train.py" in place.calls()[-1]
        self.check(place)

    def test_gets_package_lists_of_its_own_where_the_system_has_none(
        self, place: Place, package: Path
    ) -> None:
        place.environment |= {"PACKAGE": str(package)}
        result = place.run("launch/fetch_debian_package.sh")
        assert result.returncode == 0, result.stderr
        assert [call.split()[-1] for call in place.calls()] == [
            "dataset-fashion-mnist",
            "update",
            "dataset-fashion-mnist",
        ]
        self.check(place)

    def test_replaces_half_a_set(self, place: Place, package: Path) -> None:
        folder = place.cache / "lockstep" / "fashion_mnist"
        folder.mkdir(parents=True)
        (folder / FILES[0]).write_text("half")
        place.environment |= {"PACKAGE": str(package), "SYSTEM_LISTS": "yes"}
        assert place.run("launch/fetch_debian_package.sh").returncode == 0
        self.check(place)


@pytest.mark.parametrize(("missing", "code"), [("", 0), ("not here", 2)])
def test_quickstart_asks_the_trainer_for_the_images(
    missing: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own lines of Python, which only note their call in the tests above."""

    def prepare(config: DataConfig) -> None:
        assert config.name == "fashion_mnist"
        if missing:
            raise UserError(missing)

    monkeypatch.setattr(reading, "prepare", prepare)
    text = (REPOSITORY / "launch" / "quickstart.sh").read_text(encoding="utf-8")
    exit_code: object = 0
    try:
        exec(text.split("-c '")[1].split("')")[0], {})
    except SystemExit as ended:
        exit_code = ended.code
    assert exit_code == code
    assert capsys.readouterr().out.strip() == missing


class TestTestScript:
    def test_hands_arguments_and_exit_code_on(self, place: Place) -> None:
        result = place.run("launch/test.sh", "tests/launch", "-k", "two words", EXIT_CODE="5")
        assert result.returncode == 5
        assert place.calls()[-1].startswith("-m pytest -n 3 ")
        assert place.calls()[-1].endswith(" tests/launch -k two words")

    def test_ci_checks_style_and_types_before_the_tests(self, place: Place) -> None:
        place.program("id", "#!/bin/sh\necho 1000\n")
        result = place.run(".ci/run")
        assert result.returncode == 0, result.stderr
        programs = [call.split()[1] for call in place.calls() if not call.startswith("-m pip")]
        assert programs == ["venv", "ruff", "ruff", "mypy", "pytest"]

    @pytest.fixture
    def root(self, place: Place) -> None:
        place.program("id", "#!/bin/sh\necho 0\n")

    @pytest.mark.usefixtures("root")
    def test_ci_installs_slurm_qemu_and_a_browser_before_the_tests(self, place: Place) -> None:
        assert place.run(".ci/run").returncode == 0
        slurm, emulator, browser = place.calls()[-4:-1]
        assert slurm.endswith("slurm-wlm munge")
        assert emulator.endswith("qemu-user-static")
        assert browser.endswith("chromium")

    @pytest.mark.usefixtures("root")
    def test_ci_goes_on_where_they_cannot_be_installed(self, place: Place) -> None:
        result = place.run(".ci/run", FAIL_APT="1")
        assert result.returncode == 0
        assert "chromium cannot be installed here: tests that need it" in result.stderr
        assert place.calls()[-1].startswith("-m pytest")

    @pytest.mark.parametrize("check", ["ruff check .", "ruff format --check .", "mypy"])
    def test_ci_fails_at_once_where_a_check_fails(self, place: Place, check: str) -> None:
        result = place.run(".ci/run", FAIL_CHECK=f"-m {check}")
        assert result.returncode == 1
        assert f"-m {check}" in place.calls()
        assert not any(call.startswith("-m pytest") for call in place.calls())

    def test_ci_fails_with_the_tests(self, place: Place) -> None:
        assert place.run(".ci/run", EXIT_CODE="1").returncode == 1
