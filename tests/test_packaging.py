"""The package: what a stranger gets from it."""

import importlib.util
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
UV = Path(sys.executable).parent / "uv"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist, as an installer would."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


def test_the_standard_library_keeps_its_profile_module() -> None:
    """No room of ours shadows `profile`: cProfile and torch import it."""
    spec = importlib.util.find_spec("profile")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(sysconfig.get_path("stdlib"))


def test_the_wheel_holds_all_three_rooms(wheel: Path) -> None:
    """Every module of the three rooms arrives, once, with the marker of typed packages."""
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert "penchant/py.typed" in names
    for room in ("streams", "encoders", "profile"):
        sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / room).rglob("*.py")}
        assert {name.removeprefix("penchant/") for name in names if name.startswith(f"penchant/{room}/")} >= sources


def test_the_sdist_brings_no_tests_or_data(wheel: Path) -> None:
    """What a source distribution holds is what it is built from."""
    (archive,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        roots = {Path(name).parts[1] for name in sdist.getnames() if len(Path(name).parts) > 1}
    assert roots == {
        "src",
        "deploy",
        "docs",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "pyproject.toml",
        "PKG-INFO",
        ".gitignore",
    }


def test_the_wheel_runs_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Installed with its base dependencies alone, `penchant doctor` runs, and says what is missing."""
    python = tmp_path / "venv" / "bin" / "python"
    run(UV, "venv", "--quiet", "--python", sys.executable, str(tmp_path / "venv"))
    # The versions tested, so that a release of someone else's does not decide this.
    pins = tmp_path / "pins.txt"
    pins.write_text(run(UV, "pip", "freeze", "--exclude-editable", "--python", sys.executable))
    run(UV, "pip", "install", "--quiet", "--python", str(python), "--constraint", str(pins), str(wheel))
    doctor = subprocess.run(
        [tmp_path / "venv" / "bin" / "penchant", "--bootstrap-servers", "127.0.0.1:1", "doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert doctor.returncode == 1, doctor.stderr
    assert "Traceback" not in doctor.stdout + doctor.stderr
    assert "penchant[encoders]" in doctor.stdout


def run(*command: str | Path) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
