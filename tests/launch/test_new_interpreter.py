"""Files of the user's folder do not run in place of modules."""

import re
import subprocess

import pytest

from dens_ocp.launch import new_interpreter
from tests.conftest import ROOT
from tests.runs import environment

WAYS = {
    "program": new_interpreter.of_program("import queue; print(*sys.argv[1:])", "--help"),
    "command line": new_interpreter.of_command_line("plan", "--help"),
    "module": new_interpreter.of_module("pip", "--help"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_with_a_modules_name(way, tmp_path):
    for name in ("queue", "random", "fairchem", "pip", "dens_ocp"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the file of the user has run')")
    done = subprocess.run(
        WAYS[way], cwd=tmp_path, env=environment(),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


def test_all_processes_of_python_are_started_so():
    for path in (ROOT / "src").rglob("*.py"):
        if path.name != "new_interpreter.py":
            assert not re.search(r'sys\.executable, *"-', path.read_text()), path
