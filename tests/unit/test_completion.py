"""Completion in a real bash: what a user gets behind the tabulator key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = Path(sys.executable).parent / "engine"

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and ENGINE.exists()), reason="needs bash, and the command that pip installs"
)


def completed(*words: str, folder: Path) -> list[str]:
    """What bash offers for the last of the words, by the function that the script binds to the command."""
    script = """
        eval "$(engine completion bash)"
        COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
        _engine_completion engine
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{ENGINE.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script, "bash", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_commands_options_and_choices(tmp_path):
    assert completed("engine", "com", folder=tmp_path) == ["compare", "completion"]
    assert completed("engine", "compare", "--ju", folder=tmp_path) == ["--junit"]
    assert completed("engine", "profile", "--preset", "q", folder=tmp_path) == ["quick"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(engine, shell):
    code, out, _ = engine("completion", shell)
    assert code == 0
    assert f"_ENGINE_COMPLETE={shell}_complete" in out


def test_another_shell_is_told_which_there_are(engine):
    code, _, err = engine("completion", "tcsh")
    assert (code, "'bash', 'zsh', 'fish'" in err) == (2, True)
